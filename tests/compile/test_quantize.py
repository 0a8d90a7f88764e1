"""int8 is as its definition says, follows the trajectory, and fails if it must."""

import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from difftool.bundle import MANIFEST, STEP, Bundle, read_bundle, write_manifest
from difftool.bundle.amend import with_files
from difftool.compile.quantization import sensitivity
from difftool.compile.quantization.bundle import (
    INT8,
    REPORT,
    Quantized,
    bounds_for,
    compared,
    quantize,
    require_covered,
)
from difftool.compile.quantization.calibration import find_ranges, from_data, from_trajectory
from difftool.compile.quantization.graph import in_8_bits, layers
from difftool.compile.quantization.symmetric import in_int8
from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.columns import Column
from difftool.errors import CheckFailed, UsageError
from difftool.files import read_json
from difftool.runtime import load
from difftool.runtime.backends.sessions import cpu_options
from difftool.runtime.shipped import find_bundle
from difftool.verify import verify
from tests.fixtures import POINTS_NETWORK, POINTS_SPEC, export_model, save_model

Array = NDArray[np.float32]
Steps = list[tuple[int, int]]  # how many are done, and how many there are


@pytest.fixture(scope="module")
def quantized(
    classes_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Quantized, Steps]:
    """`classes_bundle` with int8, and what was told of each step."""
    counted = Mock()
    out = tmp_path_factory.mktemp("quantize") / "int8"
    result = quantize(read_bundle(classes_bundle), out=out, on_step=counted)
    return result, [call.args for call in counted.call_args_list]


def test_the_bundle(quantized: tuple[Quantized, Steps], classes_bundle: Path) -> None:
    """It has int8 and a report."""
    result, steps = quantized
    before = read_bundle(classes_bundle)
    assert result.bundle.manifest.files.keys() == before.manifest.files.keys() | {INT8, REPORT}
    assert steps == [(done, len(steps)) for done in range(1, len(steps) + 1)]
    assert len(steps) > 3 * len(before.default_program())
    assert read_json(result.bundle.file(REPORT)) == result.report
    assert result.report["calibration"] == {
        "source": "self",
        "program": "ddpm(steps=20, variance='small', clip=True)",
        "rows": 20,
        "samples": 7,
        "seed": 0,
    }


def test_outer_and_sensitive_layers_stay_in_float(quantized: tuple[Quantized, Steps]) -> None:
    report = quantized[0].report["layers"]
    shares = {name: layer["share"] for name, layer in report.items() if layer["share"] is not None}
    in_float = {name for name, layer in report.items() if layer["precision"] == "fp32"}
    limit = sensitivity.FAIR_SHARES / len(shares)
    assert in_float == {"conv_in", "conv_out", *(n for n, s in shares.items() if s > limit)}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    stored = {t.name for t in onnx.load(quantized[0].bundle.file(INT8)).graph.initializer}
    for name in report:
        if not name.startswith("node_"):
            assert (f"network.{name}.weight" in stored) == (name in in_float)


def test_the_report_says_what_a_comparison_finds(quantized: tuple[Quantized, Steps]) -> None:
    bundle, report = quantized[0].bundle, quantized[0].report
    assert verify(bundle, precision="int8").passed
    result = compared(bundle, bundle, report["errors"]["seed"], lambda done, total: None)
    assert result.errors == pytest.approx(report["errors"]["max"], rel=1e-2, abs=1e-6)
    assert result.rms == pytest.approx(report["errors"]["rms"], rel=1e-2, abs=1e-6)
    assert result.step_error > 1e-5
    assert report["bounds"] == bundle.manifest.bounds["int8"].model_dump()
    assert report["bounds"]["step_error"] == 3 * report["errors"]["step_error"]
    worst = report["errors"]["worst_psnr_db"]
    assert report["bounds"]["psnr"] == pytest.approx(worst - 6.02, abs=0.01)
    assert worst < report["errors"]["psnr_db"]


def test_int8_is_sampled_from(quantized: tuple[Quantized, Steps]) -> None:
    path = quantized[0].bundle.path
    exact, coarse = (load(path, precision=name).sample(n=3) for name in ("fp32", "int8"))
    assert 0 < np.abs(exact - coarse).max() < 0.1


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A trained model in a bundle of 10 steps, with int8 in all layers and bounds to suit."""
    folder = tmp_path_factory.mktemp("trained") / "bundle"
    shutil.copytree(find_bundle("ddpm-mnist"), folder)
    value = read_json(folder / MANIFEST)
    value["program"] = {"sampler": "ddim", "arguments": {"steps": 10}}
    write_manifest(folder, value)
    files = {INT8: _of_rows(read_bundle(folder), 10).SerializeToString()}
    bundle = with_files(read_bundle(folder), files)
    bounds = bounds_for(compared(bundle, bundle, 1, lambda done, total: None))
    return with_files(bundle, {}, bounds={"int8": bounds})


@pytest.fixture(scope="module")
def of_one_row(trained: Bundle) -> onnx.ModelProto:
    """The seeded defect of PTQ4DM: ranges of one noise level do not hold at the others."""
    return _of_rows(trained, 10, only=9)


def test_calibrated_on_a_single_row_verify_fails(
    trained: Bundle, of_one_row: onnx.ModelProto, tmp_path: Path
) -> None:
    assert verify(trained, precision="int8").passed
    copy = read_bundle(shutil.copytree(trained.path, tmp_path / "copy"))
    bad = with_files(copy, {INT8: of_one_row.SerializeToString()})
    assert not verify(bad, precision="int8").passed


def test_calibrated_on_a_single_row_nothing_is_written(
    trained: Bundle, of_one_row: onnx.ModelProto
) -> None:
    model, good = onnx.load(trained.file(STEP)), onnx.load(trained.file(INT8))
    checked = from_trajectory(trained, trained.default_program(), samples=8, seed=1)
    assert max(require_covered(model, good, layers(model), checked)) < 1.5
    with pytest.raises(CheckFailed, match="times that with ranges of the whole run"):
        require_covered(model, of_one_row, layers(model), checked)


def test_ranges_are_found_in_silence(
    classes_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime warns of inputs that have a default, and its calibration opens own sessions."""
    bundle = read_bundle(classes_bundle)
    found = from_trajectory(bundle, bundle.default_program(), samples=1, rows=1)
    assert find_ranges(onnx.load(bundle.file(STEP)), found.feeds)
    assert capfd.readouterr() == ("", "")


def test_feeds_are_the_states_of_a_run(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    found = from_trajectory(bundle, bundle.default_program(), samples=2, rows=3, seed=5)
    assert found.rows == (0, 10, 19)
    states = load(tiny_bundle).stream(n=2, seed=5)
    x = {state.step: state.x.copy() for state in states}
    for row, feed in zip(found.rows[1:], found.feeds[1:], strict=True):
        assert feed["row"].tolist() == [row, row]
        np.testing.assert_allclose(feed["x"], x[row], atol=1e-5)


def test_data_are_put_under_the_noise_of_the_rows(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    program = bundle.default_program()
    data = np.random.default_rng(0).uniform(-1, 1, (500, 1, 8, 8)).astype(np.float32)
    found = from_data(bundle, program, data, "numbers", rows=4)
    for row, feed in zip(found.rows, found.feeds, strict=True):
        alpha, sigma = program.targets[row]
        noise = feed["x"] - alpha * data
        assert noise.std() == pytest.approx(sigma, rel=0.02, abs=1e-6)
        assert feed["row"][0] == row
    assert feed["table"][row, Column.COND] == program.table[row, Column.COND]


def test_data_of_another_size_are_refused(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    with pytest.raises(UsageError, match=r"faces has samples \[3, 8, 8\]"):
        from_data(bundle, bundle.default_program(), np.zeros((1, 3, 8, 8), np.float32), "faces")


def test_a_convolution_in_8_bits_is_what_the_definition_says() -> None:
    random = np.random.default_rng(0)
    x = random.uniform(-0.3, 2, (1, 3, 4, 4)).astype(np.float32)
    w = random.normal(size=(5, 3, 1, 1)).astype(np.float32)
    b = random.normal(size=5).astype(np.float32)
    model = _model(
        """(float[1, 3, h, w] x) => (float[1, 5, h, w] y)
        { [conv] v = Conv(x, w, b) y = Identity(v) }""",
        w=w,
        b=b,
    )
    exact = _run(model, {"x": x})
    ranges = find_ranges(model, [{"x": x}])
    assert ranges["x"] == pytest.approx((x.min(), x.max()))
    assert ranges["v"] == pytest.approx((exact.min(), exact.max()))

    scale, zero = _scale(*ranges["x"])
    whole = np.clip(np.round(x / scale) + zero, 0, 255) - zero
    scales = np.abs(w).max((1, 2, 3), keepdims=True) / 127
    sums = np.einsum("nchw,oc->nohw", whole, np.round(w / scales)[:, :, 0, 0])
    y = scale * scales.reshape(1, -1, 1, 1) * sums + b.reshape(1, -1, 1, 1)
    step, zero = _scale(*ranges["v"])
    expected = (np.clip(np.round(y / step) + zero, 0, 255) - zero) * step
    found = _run(in_8_bits(model, ranges, ["conv"]), {"x": x})
    np.testing.assert_allclose(found, expected, atol=1.01 * step)
    assert np.mean(np.abs(found - expected) > 1e-5) < 0.05  # rounding may differ at a tie


def test_joined_inputs_get_a_quantizer_each() -> None:
    """Of two parts, 1000 times apart, the smaller one is not lost in the range of the larger."""
    random = np.random.default_rng(0)
    parts = {
        "p": random.normal(size=(1, 4, 8, 8)).astype(np.float32),
        "q": 1000 * random.normal(size=(1, 4, 8, 8)).astype(np.float32),
    }
    w = random.normal(size=(6, 8, 1, 1)).astype(np.float32)
    w[:, 4:] /= 1000  # both parts matter alike
    model = _model(
        """(float[1, 4, h, w] p, float[1, 4, h, w] q) => (float[1, 6, h, w] y)
        { both = Concat <axis = 1> (p, q) [conv] v = Conv(both, w) y = Identity(v) }""",
        w=w,
    )
    exact = _run(model, parts)
    ranges = find_ranges(model, [parts])
    found = _run(in_8_bits(model, ranges, ["conv"]), parts)
    assert np.sqrt(np.mean((found - exact) ** 2)) < 0.02 * exact.std()

    together = {**parts, "p": np.zeros_like(parts["p"])}  # all that one quantizer leaves of p
    assert np.sqrt(np.mean((_run(model, together) - exact) ** 2)) > 0.5 * exact.std()


def test_a_layer_fails_that_brings_four_times_its_part() -> None:
    even = dict.fromkeys("abcdefgh", 0.06)
    assert sensitivity.failing({**even, "i": 0.52}) == ["i"]  # of 9 layers: more than 4 / 9
    assert sensitivity.failing({**even, "i": 0.40}) == []


def test_a_network_of_two_layers_is_too_small(tmp_path: Path) -> None:
    two = NetworkCall("mlp", {**POINTS_NETWORK.arguments, "layers": 2})
    run = save_model(tmp_path / "run", POINTS_SPEC, two, SamplerCall("ddim", {"steps": 2}))
    bundle = read_bundle(export_model(run, tmp_path / "bundle"))
    with pytest.raises(UsageError, match="has no layer between"):
        quantize(bundle)
    with pytest.raises(UsageError, match="is too small for int8"):
        in_int8(bundle)
    assert read_bundle(bundle.path).manifest == bundle.manifest


def _of_rows(bundle: Bundle, rows: int, only: int | None = None) -> onnx.ModelProto:
    model = onnx.load(bundle.file(STEP))
    feeds = from_trajectory(bundle, bundle.default_program(), rows=rows).feeds
    taken = feeds if only is None else [feeds[only]]
    return in_8_bits(model, find_ranges(model, taken), layers(model))


def _model(text: str, **weights: Array) -> onnx.ModelProto:
    """A graph in ONNX's own notation, of images with sides h and w."""
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 18]> graph {text}')
    model.graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in weights.items())
    return model


def _run(model: onnx.ModelProto, feed: dict[str, Array]) -> Array:
    data, on_cpu = model.SerializeToString(), ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(data, cpu_options(None), providers=on_cpu)
    found: Array = session.run(["y"], feed)[0]
    return found


def _scale(low: float, high: float) -> tuple[float, int]:
    scale = (high - low) / 255
    return scale, round(-low / scale)
