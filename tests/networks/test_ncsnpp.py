"""NCSN++: its filters against closed forms, alone and as ONNX."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from difftool.export.onnx import export_module
from difftool.networks.ncsnpp_layers import double, double_conv, halve, halve_conv

LINE = torch.tensor([1.0, 3, 3, 1])


def point(size: int = 6) -> Tensor:
    """A single bright pixel at (2, 2) of the second of two channels."""
    x = torch.zeros(1, 2, size, size)
    x[0, 1, 2, 2] = 1
    return x


def test_doubling_spreads_a_pixel_by_1_3_3_1() -> None:
    expected = torch.zeros(2, 12, 12)
    expected[1, 3:7, 3:7] = torch.outer(LINE, LINE) / 16  # around rows and columns 4 and 5
    assert torch.allclose(double(2, fir=True)(point())[0], expected)


def test_halving_weighs_windows_by_1_3_3_1() -> None:
    x = torch.randn(1, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    halved = halve(2, fir=True)(x)
    assert halved.shape == (1, 2, 3, 4)
    window = x[0, 1, 1:5, 3:7]  # of the pixel (1, 2), whose own four are its middle
    assert halved[0, 1, 1, 2] == pytest.approx(float(LINE @ window @ LINE) / 64, rel=1e-5)


def test_without_the_filter_pixels_are_repeated_and_averaged() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(double(1, fir=False)(x)[0, 0, ::2, 1::2], x[0, 0])
    assert halve(1, fir=False)(x)[0, 0, 0, 0] == (0 + 1 + 4 + 5) / 4


@torch.no_grad()
def test_a_convolution_sees_what_the_filter_spills_over_the_edge() -> None:
    """As if the picture lay in an infinite plane of zeros."""
    layer = double_conv(2, 3, fir=True)
    x = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    plane = double(2, fir=True)(F.pad(x, (3, 3, 3, 3)))
    whole = F.conv2d(plane, layer.conv.weight, layer.conv.bias, padding=1)
    assert torch.allclose(layer(x), whole[..., 6:-6, 6:-6], atol=1e-6)


@pytest.mark.parametrize("layer", [halve_conv(2, 3, fir=True), double_conv(2, 3, fir=True)])
def test_the_exported_filters_are_the_same(layer: nn.Module, tmp_path: Path) -> None:
    x = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    axes = {"x": (Dim("batch"),)}
    export_module(layer.eval(), (x[:2],), axes, ("y",), tmp_path / "layer.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "layer.onnx")
    [actual] = session.run(None, {"x": x.numpy()})
    with torch.no_grad():
        assert np.allclose(actual, layer(x).numpy(), atol=1e-5)
