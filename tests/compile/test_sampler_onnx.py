"""sampler.onnx against the Python runtime: the same samples from the same seed, in one call."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import difftool
from difftool.bundle import Bundle, read_bundle
from difftool.compile.quantization.bundle import quantize
from difftool.compile.sampler_onnx.graph import portable_sampler
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.packed import graph_inputs
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import compile_program, ddpm, dpmpp_2m, plms, predictor_corrector
from difftool.errors import ArtefactError, UsageError
from difftool.runtime.shipped import find_bundle

LOAD = """
import sys, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
assert "seed" in [node.name for node in session.get_inputs()]
"""
AGREEMENT = 1e-4  # of float samples


def opened(bundle: Bundle, program: Program | None = None) -> Any:
    graph = portable_sampler(bundle, program or bundle.default_program())
    return onnxruntime.InferenceSession(graph)


def draw(session: Any, *, seed: int = 3, n: int = 2, **given: Any) -> dict[str, np.ndarray]:
    """Make one call; what is given besides seed and n becomes an array."""
    dtypes = {"first_sample": np.int64, "label": np.int64, "row": np.int64, "rows": np.int64}
    feeds = {"seed": np.array([seed], np.uint64), "n": np.array([n], np.int64)}
    feeds |= {name: np.asarray(given[name], dtypes.get(name, np.float32)) for name in given}
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def assert_agree(got: dict[str, np.ndarray], wanted: np.ndarray, rtol: float = 0) -> None:
    np.testing.assert_allclose(got["samples"], wanted, rtol=rtol, atol=AGREEMENT)


def on_cpu(bundle: Path | str, **options: int) -> difftool.Model:
    return difftool.load(bundle, backend="onnxruntime-cpu", **options)


@pytest.fixture(scope="module")
def tiny(featured_bundle: Path) -> Any:
    """The sampler of a tiny model, whose default is ddpm with 20 steps."""
    return opened(read_bundle(featured_bundle))


@pytest.mark.parametrize(
    ("sampler", "arguments"),
    [
        ("plms", {"steps": 8}),  # four history slots
        ("unipc", {"steps": 7}),
        ("dpmpp_2m_sde", {"steps": 6}),
        ("langevin", {"steps": 4, "step_size": 1e-3}),  # a uniform start
    ],
)
def test_every_table_fits(
    tiny: Any, featured_bundle: Path, sampler: str, arguments: dict[str, Any]
) -> None:
    model = on_cpu(featured_bundle)
    program = compile_program(model.spec, SamplerCall(sampler, arguments))
    got = draw(tiny, n=5, first_sample=[2], **graph_inputs(program))
    assert_agree(got, model.sample(program, n=5, seed=3, first_sample=2))


def test_blocks_of_rows_end_where_the_table_does(featured_bundle: Path) -> None:
    """More numbers than one draw holds: blocks of 6 rows for 150 samples of 64 numbers."""
    model = on_cpu(featured_bundle, max_batch=150)
    wanted = model.sample(ddpm(model.spec, steps=20), n=150, seed=3)
    assert_agree(draw(opened(model.bundle), n=150), wanted)


def test_points_have_samples_and_no_images(points_bundle: Path) -> None:
    model = on_cpu(points_bundle)
    got = draw(opened(model.bundle), n=7)
    assert set(got) == {"samples", "history_next", "denoised"}
    assert_agree(got, model.sample(n=7, seed=3), rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_labels_and_guidance_are_those_of_the_runtime(classes_bundle: Path, scale: float) -> None:
    model = on_cpu(classes_bundle)
    session = opened(model.bundle)
    labels = [2, 0, 3, 2]  # 3 is no label
    got = draw(session, n=4, label=labels, guidance_scale=[scale])
    assert_agree(got, model.sample(n=4, seed=3, labels=labels, guidance_scale=scale))
    in_turn = draw(session, n=4, first_sample=[2], guidance_scale=[scale])
    assert_agree(in_turn, model.sample(n=4, seed=3, first_sample=2, guidance_scale=scale))
    one_for_all = draw(session, n=2, label=[1])
    assert_agree(one_for_all, model.sample(n=2, seed=3, labels=1))


def test_known_values_are_held(featured_bundle: Path) -> None:
    model = on_cpu(featured_bundle)
    known = np.random.default_rng(0).uniform(-1, 1, (1, 8, 8)).astype(np.float32)
    mask = np.zeros((1, 8, 8), np.float32)
    mask[:, :4] = 1
    got = draw(opened(model.bundle), n=2, known=known[None], mask=mask[None])
    assert_agree(got, model.sample(n=2, seed=3, edit=difftool.edits.inpaint(known, mask)))


def test_an_empty_input_is_one_that_is_left_out(tiny: Any) -> None:
    empty = {node.name: [] for node in tiny.get_inputs() if node.type.startswith("optional")}
    assert {"first_sample", "table", "cond", "start", "row", "known", "mask"} < set(empty)
    got = draw(tiny, **empty)
    np.testing.assert_array_equal(got["samples"], draw(tiny)["samples"])


def test_a_run_in_parts_is_the_whole_run(tiny: Any, featured_bundle: Path) -> None:
    model = on_cpu(featured_bundle)
    program = plms(model.spec, steps=11)
    arrays = graph_inputs(program)
    whole = draw(tiny, **arrays)
    part: dict[str, Any] = {}
    for row in range(0, len(program), 4):
        done = draw(tiny, row=[row], rows=[4], **arrays, **part)
        part = {"x": done["samples"], "history": done["history_next"]}
    np.testing.assert_allclose(done["samples"], whole["samples"], rtol=0, atol=1e-6)
    states = list(model.stream(program, n=2, seed=3))
    np.testing.assert_allclose(done["denoised"], states[-1].denoised, rtol=0, atol=AGREEMENT)
    beyond = draw(tiny, row=[len(program)], **arrays, **part)
    np.testing.assert_array_equal(beyond["samples"], done["samples"])


@pytest.mark.parametrize("n", [0, -3])
def test_no_samples_are_an_empty_result(tiny: Any, classes_bundle: Path, n: int) -> None:
    for session in (tiny, opened(read_bundle(classes_bundle))):
        got = draw(session, n=n)
        assert got["samples"].shape == (0, 1, 8, 8)
        assert got["images"].shape == (0, 8, 8, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"table": np.zeros((20, 17))},
        {"table": np.zeros((20, 3))},
        {"table": np.full((20, 19), 99.0)},  # points outside cond
        {"table": np.zeros(19)},
        {"table": np.full((20, 19), np.nan)},
        {"cond": np.zeros(3)},
        {"start": np.zeros(2)},
        {"x": np.zeros((1, 1, 8, 8))},
        {"history": np.zeros((2, 2, 1, 8, 8))},
        {"n": np.array([1, 2])},
        {"nonsense": np.zeros(1)},
    ],
    ids=lambda wrong: "-".join(f"{name}{value.shape}" for name, value in wrong.items()),
)
def test_wrong_inputs_are_an_error_of_onnx_runtime(tiny: Any, wrong: dict[str, Any]) -> None:
    feeds = {"seed": np.zeros(1, np.uint64), "n": np.array([2])}
    for name, given in wrong.items():
        feeds[name] = given if given.dtype == np.int64 else given.astype(np.float32)
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        tiny.run(None, feeds)
    assert np.isfinite(draw(tiny)["samples"]).all()  # and the session goes on


def test_a_label_that_the_model_lacks_is_an_error_too(classes_bundle: Path) -> None:
    session = opened(read_bundle(classes_bundle))
    for labels in ([9], [4], [0, 1, 2]):  # the last are three, for two samples
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            draw(session, label=labels)


def test_int8_is_as_near_as_the_bundle_says(featured_bundle: Path, tmp_path: Path) -> None:
    """Row by row from the exact state: over a run int8's roundings would add up."""
    bundle = quantize(read_bundle(featured_bundle), out=tmp_path / "int8").bundle
    program, exact = bundle.default_program(), opened(bundle)
    graph = portable_sampler(bundle, program, "int8")
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.x64quantprecision", "1")
    int8 = onnxruntime.InferenceSession(graph, settings)
    bound = bundle.manifest.bounds["int8"].step_error
    state: dict[str, Any] = {}
    for row in range(len(program)):
        wanted = draw(exact, row=[row], rows=[1], **state)["samples"]
        got = draw(int8, row=[row], rows=[1], **state)["samples"]
        assert 0 < np.abs(got - wanted).max() <= bound * np.abs(wanted).max()
        state = {"x": wanted}


def test_an_adaptive_table_needs_norms(featured_bundle: Path, classes_bundle: Path) -> None:
    model = on_cpu(featured_bundle)
    program = predictor_corrector(model.spec, steps=6, corrector="adaptive")
    got = draw(opened(model.bundle, program), n=2)
    assert_agree(got, model.sample(program, n=2, seed=3), rtol=1e-5)
    with pytest.raises(UsageError, match="no norms"):
        portable_sampler(read_bundle(classes_bundle), program)


def test_a_precision_that_the_bundle_lacks_is_refused(featured_bundle: Path) -> None:
    bundle = read_bundle(featured_bundle)
    with pytest.raises(ArtefactError, match=r"has no step\.int8\.onnx"):
        portable_sampler(bundle, bundle.default_program(), "int8")


@pytest.mark.parametrize("name", ["ddpm-mnist", "ncsn-mnist", "classes", "points"])
def test_a_valid_file(name: str, classes_bundle: Path, points_bundle: Path, tmp_path: Path) -> None:
    """ONNX Runtime loads it without a word."""
    own = {"classes": classes_bundle, "points": points_bundle}
    bundle = read_bundle(own[name] if name in own else find_bundle(name))
    path = tmp_path / "sampler.onnx"
    path.write_bytes(portable_sampler(bundle, bundle.default_program()))
    onnx.checker.check_model(path, full_check=True)
    done = subprocess.run([sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_weights_lie_inside_the_innermost_loop(featured_bundle: Path) -> None:
    bundle = read_bundle(featured_bundle)
    model = onnx.load_from_string(portable_sampler(bundle, bundle.default_program()))
    inner = _body(_body(model.graph))
    step = onnx.load(bundle.file("step.onnx")).graph
    weights = [tensor for tensor in step.initializer if tensor.dims]
    names = {tensor.name for tensor in inner.initializer}
    assert weights
    assert {f"step.{tensor.name}" for tensor in weights} <= names
    assert {opset.domain for opset in model.opset_import} == {""}


def test_metadata_say_what_the_file_is(featured_bundle: Path) -> None:
    bundle = read_bundle(featured_bundle)
    session = opened(bundle)
    found = session.get_modelmeta().custom_metadata_map
    assert found["difftool.format"] == "1"
    assert found["difftool.program"] == bundle.default_program().name
    assert found["difftool.precision"] == "fp32"
    assert json.loads(found["difftool.spec"]) == bundle.spec.to_dict()


def _body(graph: onnx.GraphProto) -> onnx.GraphProto:
    (loop,) = [node for node in graph.node if node.op_type == "Loop"]
    return next(attribute.g for attribute in loop.attribute if attribute.name == "body")


@pytest.mark.parametrize("name", ["ddpm-mnist", "ncsn-mnist"])
def test_a_shipped_model_by_a_thousand_rows_is_that_of_the_runtime(name: str) -> None:
    model = on_cpu(name)
    assert len(model.default_program()) >= 1000
    got = draw(opened(model.bundle), seed=2**63 + 11, n=1, first_sample=[5])
    wanted = model.sample(n=1, seed=2**63 + 11, first_sample=5)
    assert_agree(got, wanted)
    pixels = difftool.to_uint8(wanted, model.spec)
    assert got["images"].dtype == np.uint8
    assert np.abs(got["images"].astype(int) - pixels).max() <= 1


@pytest.mark.parametrize(("name", "steps"), [("ddpm-mnist", 20), ("ncsn-mnist", 10)])
def test_another_program_runs_on_the_same_file(name: str, steps: int) -> None:
    model = on_cpu(name)
    program = dpmpp_2m(model.spec, steps=steps)
    got = draw(opened(model.bundle), n=3, **graph_inputs(program))
    assert_agree(got, model.sample(program, n=3, seed=3))


def test_table_and_cond_are_enough_if_the_start_is_the_same() -> None:
    model = on_cpu("ddpm-mnist")
    program = dpmpp_2m(model.spec, steps=20)
    arrays = graph_inputs(program)
    got = draw(opened(model.bundle), n=1, table=arrays["table"], cond=arrays["cond"])
    assert_agree(got, model.sample(program, n=1, seed=3))
