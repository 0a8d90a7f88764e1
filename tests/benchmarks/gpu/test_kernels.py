"""The kernels that an engine of TensorRT for RTX lists."""

from pathlib import Path

import onnx
import pytest
from gpu.kernels import kernels

from difftool.bundle import STEP

LISTED = b"""\x00\xff descriptors {
}
main {
 label bb1:
  shape_call={ name="shape" stream=0 }
  function={ name=__myl_Add fqn=__myl_Add_0x9 args={ "row.1" name="not a kernel" } }
  signal={ name="signal" stream=0 }
  corrltn={ name="node_conv2d" output={"x" } }
  wait={ name="wait" stream=1 }
}
main {
  inorm={ name="inside a kernel" }
}
"""


def test_kernels_are_counted_and_waits_are_not() -> None:
    assert kernels(LISTED) == ["__myl_Add", "node_conv2d"]


def test_an_engine_without_a_list_is_refused() -> None:
    with pytest.raises(ValueError, match="does not list its kernels"):
        kernels(b"vtrt")


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_an_engine_lists_its_kernels(points_bundle: Path, tmp_path: Path, precision: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    from gpu_kernels import PRECISIONS, counted

    assert precision in PRECISIONS
    step = onnx.load(points_bundle / STEP)
    assert 1 < counted(step, precision, (), tmp_path) < len(step.graph.node)
    assert counted(step, precision, (), tmp_path) == int(next(tmp_path.iterdir()).read_text())
