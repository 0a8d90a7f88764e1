"""sampler.onnx against the Python runtime: the same samples from the same seed, in one call."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import difftool
from difftool.bundle import STEP
from difftool.compile import quantize
from difftool.compile.sampler_onnx.graph import portable_sampler
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.packed import graph_inputs
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import compile_program, ddpm, dpmpp_2m, plms, predictor_corrector
from difftool.errors import ArtefactError, UsageError

AGREEMENT = 1e-4  # of float samples


@dataclass(frozen=True)
class Both:
    """A model in the Python runtime, and its `sampler.onnx` in ONNX Runtime."""

    model: difftool.Model
    graph: bytes
    session: Any

    def draw(self, *, seed: int = 3, n: int = 2, **given: Any) -> dict[str, np.ndarray]:
        """Call the graph; what is given besides seed and n becomes an array."""
        whole = {"first_sample", "label", "row", "rows"}
        feeds = {"seed": np.array([seed], np.uint64), "n": np.array([n], np.int64)} | {
            name: np.asarray(value, np.int64 if name in whole else np.float32)
            for name, value in given.items()
        }
        names = [node.name for node in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, feeds), strict=True))

    def agree(
        self, given: dict[str, Any], *, rtol: float = 0, seed: int = 3, n: int = 2, **settings: Any
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Demand the same samples of both; return all that the graph gives, and the model's."""
        got = self.draw(seed=seed, n=n, **given)
        wanted = self.model.sample(seed=seed, n=n, **settings)
        np.testing.assert_allclose(got["samples"], wanted, rtol=rtol, atol=AGREEMENT)
        return got, wanted


def opened(model: difftool.Model, program: Program) -> Both:
    graph = portable_sampler(model.bundle, program)
    return Both(model, graph, onnxruntime.InferenceSession(graph))


@cache
def both(bundle: Path | str) -> Both:
    model = difftool.load(bundle, backend="onnxruntime-cpu")
    return opened(model, model.default_program())


@pytest.fixture
def featured(featured_bundle: Path) -> Both:
    """A tiny model, whose default is ddpm with 20 steps."""
    return both(featured_bundle)


@pytest.fixture
def classes(classes_bundle: Path) -> Both:
    return both(classes_bundle)


@pytest.mark.parametrize(
    ("sampler", "arguments"),
    [
        ("plms", {"steps": 8}),  # four history slots
        ("consistency", {"steps": 4}),
        ("unipc", {"steps": 7}),
        ("dpmpp_2m_sde", {"steps": 6}),
        ("langevin", {"steps": 4, "step_size": 1e-3}),  # a uniform start
    ],
)
def test_every_table_fits(featured: Both, sampler: str, arguments: dict[str, Any]) -> None:
    program = compile_program(featured.model.spec, SamplerCall(sampler, arguments))
    given = {"first_sample": [2], **graph_inputs(program)}
    featured.agree(given, program=program, n=5, first_sample=2)


def test_blocks_of_rows_end_where_the_table_does(featured: Both) -> None:
    """More numbers than one draw holds: blocks of 6 rows for 150 samples of 64 numbers."""
    featured.agree({}, program=ddpm(featured.model.spec, steps=20), n=150)


def test_points_have_samples_and_no_images(points_bundle: Path) -> None:
    got, _ = both(points_bundle).agree({}, n=7, rtol=1e-5)
    assert set(got) == {"samples", "history_next", "denoised"}


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_labels_and_guidance_are_those_of_the_runtime(classes: Both, scale: float) -> None:
    labels, guided = [2, 0, 3, 2], {"guidance_scale": [scale]}  # 3 is no label
    classes.agree({"label": labels, **guided}, n=4, labels=labels, guidance_scale=scale)
    classes.agree({"first_sample": [2], **guided}, n=4, first_sample=2, guidance_scale=scale)
    classes.agree({"label": [1]}, labels=1)
    classes.agree({}, n=40, seed=2**64 - 1)  # each has a class of its own


def test_known_values_are_held(featured: Both) -> None:
    known = np.random.default_rng(0).uniform(-1, 1, (1, 8, 8)).astype(np.float32)
    mask = np.zeros((1, 8, 8), np.float32)
    mask[:, :4] = 1
    edit = difftool.edits.inpaint(known, mask)
    featured.agree({"known": known[None], "mask": mask[None]}, edit=edit)


def test_values_that_are_held_leave_the_class_open() -> None:
    model = difftool.load("ddpm-mnist", backend="onnxruntime-cpu")
    program = difftool.samplers.ddim(model.spec, steps=3)
    labelled = opened(model, program)
    known, mask = np.zeros((2, *model.spec.shape), np.float32)
    mask[:, :14] = 1
    held = {"known": known[None], "mask": mask[None]}
    edit = difftool.edits.inpaint(known, mask)
    labelled.agree(held, n=5, program=program, edit=edit)
    labelled.agree({**held, "label": [4]}, n=2, program=program, edit=edit, labels=4)
    labelled.agree({**held, "mask": 0 * held["mask"]}, n=5, program=program)  # nothing is held


def test_an_empty_input_is_one_that_is_left_out(featured: Both) -> None:
    inputs = featured.session.get_inputs()
    empty = {node.name: [] for node in inputs if node.type.startswith("optional")}
    assert {"first_sample", "table", "cond", "start", "row", "known", "mask"} < set(empty)
    got = featured.draw(**empty)
    np.testing.assert_array_equal(got["samples"], featured.draw()["samples"])


def test_a_run_in_parts_is_the_whole_run(featured: Both) -> None:
    program = plms(featured.model.spec, steps=11)
    arrays = graph_inputs(program)
    whole = featured.draw(**arrays)
    part: dict[str, Any] = {}
    for row in range(0, len(program), 4):
        done = featured.draw(row=[row], rows=[4], **arrays, **part)
        part = {"x": done["samples"], "history": done["history_next"]}
    np.testing.assert_allclose(done["samples"], whole["samples"], rtol=0, atol=1e-6)
    states = list(featured.model.stream(program, n=2, seed=3))
    np.testing.assert_allclose(done["denoised"], states[-1].denoised, rtol=0, atol=AGREEMENT)
    beyond = featured.draw(row=[len(program)], **arrays, **part)
    np.testing.assert_array_equal(beyond["samples"], done["samples"])


@pytest.mark.parametrize("n", [0, -3])
def test_no_samples_are_an_empty_result(featured: Both, classes: Both, n: int) -> None:
    for each in (featured, classes):
        got = each.draw(n=n)
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
def test_wrong_inputs_are_an_error_of_onnx_runtime(featured: Both, wrong: dict[str, Any]) -> None:
    feeds = {"seed": np.zeros(1, np.uint64), "n": np.array([2])}
    for name, given in wrong.items():
        feeds[name] = given if given.dtype == np.int64 else given.astype(np.float32)
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        featured.session.run(None, feeds)
    assert np.isfinite(featured.draw()["samples"]).all()  # and the session goes on


def test_a_label_that_the_model_lacks_is_an_error_too(classes: Both) -> None:
    for labels in ([9], [4], [0, 1, 2]):  # the last are three, for two samples
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            classes.draw(label=labels)


def test_int8_is_as_near_as_the_bundle_says(featured: Both, tmp_path: Path) -> None:
    """Row by row from the exact state: over a run int8's roundings would add up."""
    bundle = quantize(featured.model.bundle, out=tmp_path / "int8").bundle
    graph = portable_sampler(bundle, bundle.default_program(), "int8")
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.x64quantprecision", "1")
    int8 = Both(featured.model, graph, onnxruntime.InferenceSession(graph, settings))
    bound = bundle.manifest.bounds["int8"].step_error
    state: dict[str, Any] = {}
    for row in range(len(bundle.default_program())):
        wanted = featured.draw(row=[row], rows=[1], **state)["samples"]
        got = int8.draw(row=[row], rows=[1], **state)["samples"]
        assert 0 < np.abs(got - wanted).max() <= bound * np.abs(wanted).max()
        state = {"x": wanted}


def test_an_adaptive_table_needs_norms(featured: Both, classes: Both) -> None:
    program = predictor_corrector(featured.model.spec, steps=6, corrector="adaptive")
    opened(featured.model, program).agree({}, program=program, rtol=1e-5)
    with pytest.raises(UsageError, match="no norms"):
        portable_sampler(classes.model.bundle, program)


def test_a_precision_that_the_bundle_lacks_is_refused(featured: Both) -> None:
    with pytest.raises(ArtefactError, match=r"has no step\.int8\.onnx"):
        portable_sampler(featured.model.bundle, featured.model.default_program(), "int8")


@pytest.mark.parametrize("name", ["ddpm-mnist", "ncsn-mnist", "classes_bundle", "points_bundle"])
def test_a_valid_file(
    name: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """ONNX Runtime loads it without a word."""
    bundle = request.getfixturevalue(name) if name.endswith("_bundle") else name
    path = tmp_path / "sampler.onnx"
    path.write_bytes(both(bundle).graph)
    onnx.checker.check_model(path, full_check=True)
    capfd.readouterr()
    session = onnxruntime.InferenceSession(path)
    assert capfd.readouterr() == ("", "")
    assert "seed" in [node.name for node in session.get_inputs()]


def test_the_weights_lie_inside_the_innermost_loop(featured: Both) -> None:
    model = onnx.load_from_string(featured.graph)
    inner = _body(_body(model.graph))
    step = onnx.load(featured.model.bundle.file(STEP)).graph
    weights = [tensor for tensor in step.initializer if tensor.dims]
    names = {tensor.name for tensor in inner.initializer}
    assert weights
    assert {f"step.{tensor.name}" for tensor in weights} <= names
    assert {opset.domain for opset in model.opset_import} == {""}


def test_metadata_say_what_the_file_is(featured: Both) -> None:
    found = featured.session.get_modelmeta().custom_metadata_map
    assert found["difftool.format"] == "1"
    assert found["difftool.program"] == featured.model.default_program().name
    assert found["difftool.precision"] == "fp32"
    assert json.loads(found["difftool.spec"]) == featured.model.spec.to_dict()


def _body(graph: onnx.GraphProto) -> onnx.GraphProto:
    (loop,) = [node for node in graph.node if node.op_type == "Loop"]
    return next(attribute.g for attribute in loop.attribute if attribute.name == "body")


@pytest.mark.parametrize("name", ["ddpm-mnist", "ncsn-mnist"])
def test_a_shipped_model_by_a_thousand_rows_is_that_of_the_runtime(name: str) -> None:
    model = both(name).model
    assert len(model.default_program()) >= 1000
    got, wanted = both(name).agree({"first_sample": [5]}, seed=2**63 + 11, n=1, first_sample=5)
    pixels = difftool.to_uint8(wanted, model.spec)
    assert got["images"].dtype == np.uint8
    assert np.abs(got["images"].astype(int) - pixels).max() <= 1


@pytest.mark.parametrize(("name", "steps"), [("ddpm-mnist", 20), ("ncsn-mnist", 10)])
def test_another_program_runs_on_the_same_file(name: str, steps: int) -> None:
    program = dpmpp_2m(both(name).model.spec, steps=steps)
    both(name).agree(graph_inputs(program), program=program, n=3)


def test_table_and_cond_are_enough_if_the_start_is_the_same() -> None:
    program = dpmpp_2m(both("ddpm-mnist").model.spec, steps=20)
    arrays = graph_inputs(program)
    given = {name: arrays[name] for name in ("table", "cond")}
    both("ddpm-mnist").agree(given, program=program, n=1)
