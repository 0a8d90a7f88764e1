"""Every value of every graph that difftool writes has the type and sizes that were foreseen.

Each network that is imported and exported in tests/importers is looked at there.
"""

from pathlib import Path
from typing import Final

import onnx
import pytest

import difftool
from difftool.bundle import STEP, Bundle, read_bundle
from difftool.compile.precision import in_half
from difftool.compile.quantization.calibration import find_ranges, from_trajectory
from difftool.compile.quantization.fp8 import in_fp8
from difftool.compile.quantization.graph import in_8_bits, layers
from difftool.compile.quantization.symmetric import in_int8
from difftool.runtime.shipped import find_bundle, shipped_models
from tests.oracles.foreseen import (
    foreseen,
    foreseen_shapes,
    inferred,
    require_all_foreseen,
    require_foreseen,
)

EXTRACTORS: Final = Path(difftool.__file__).parent / "extractors"


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("name", ["tiny", "featured", "classes", "points"])
def test_bundles(name: str, slots: int, request: pytest.FixtureRequest) -> None:
    require_all_foreseen(request.getfixturevalue(f"{name}_bundle"), slots)


@pytest.mark.parametrize(
    "folder", [*map(find_bundle, shipped_models()), EXTRACTORS], ids=lambda p: p.name
)
def test_what_is_shipped(folder: Path) -> None:
    require_all_foreseen(folder)


def quantized_step(bundle: Bundle) -> onnx.ModelProto:
    """The step graph as `difftool quantize` writes it, with all its layers in int8."""
    model = onnx.load(bundle.file(STEP))
    feeds = from_trajectory(bundle, bundle.default_program(), samples=1).feeds
    return in_8_bits(model, find_ranges(model, feeds), layers(model))


@pytest.mark.parametrize("precision", ["fp16", "int8", "symmetric", "fp8"])
def test_precisions(precision: str, tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    model = {
        "fp16": lambda: in_half(onnx.load(bundle.file(STEP)), "fp16"),
        "int8": lambda: quantized_step(bundle),
        "symmetric": lambda: in_int8(bundle),
        "fp8": lambda: in_fp8(bundle),
    }[precision]()
    require_foreseen(model)


def test_bfloat16(tiny_bundle: Path) -> None:
    """No runtime for CPUs has it in ONNX, but the onnx package knows sizes of it."""
    model = in_half(onnx.load(tiny_bundle / STEP), "bf16")
    shapes = foreseen_shapes(model)
    found, known = foreseen(model, shapes), inferred(model, shapes)
    assert len(known) > len(found) / 2
    assert {name: found[name] for name in known} == known
    assert onnx.TensorProto.BFLOAT16 in {kind for kind, _ in found.values()}
