"""The lowerings of the step graph's operators, against PyTorch's own results."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from difftool.compile.lowerings.parity import parity_kernels
from difftool.export.onnx import export_module
from difftool.networks.refinenet import instance_norm_plus
from difftool.networks.unet_layers import SelfAttention


class Function(nn.Module):
    """A function as a module, with modules whose weights it uses."""

    def __init__(self, function: Callable[[Tensor], Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def exported(module: nn.Module, x: Tensor, path: Path) -> tuple[Counter[str], np.ndarray]:
    """A module's operators in its graph, and what ONNX Runtime makes of x."""
    example = torch.zeros(2, *x.shape[1:])  # another batch than that of x: it must be dynamic
    export_module(module.eval(), (example,), {"x": (Dim("batch"),)}, ("y",), path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x.numpy()})
    return Counter(node.op_type for node in model.graph.node), found


def largest_difference(found: np.ndarray, expected: Tensor) -> float:
    return float(np.abs(found - expected.detach().numpy()).max())


def randomized(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


@pytest.mark.parametrize("affine", [True, False])
def test_group_norm_is_an_instance_norm_with_one_affine_map(affine: bool, tmp_path: Path) -> None:
    norm = randomized(nn.GroupNorm(3, 12, eps=1e-3, affine=affine))
    x = torch.randn(3, 12, 5, 4, generator=torch.Generator().manual_seed(1))
    operators, found = exported(norm, x, tmp_path / "norm.onnx")
    assert largest_difference(found, norm(x)) < 1e-5
    expected = Counter(Reshape=2, InstanceNormalization=1, BatchNormalization=int(affine))
    assert operators == +expected


def test_group_norm_keeps_its_digits_if_the_mean_is_large(tmp_path: Path) -> None:
    """In float32 a variance of 1 as E[x^2] - E[x]^2 would have one digit at most here."""
    norm = nn.GroupNorm(2, 4)
    x = 1000 + torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    _, found = exported(norm, x, tmp_path / "norm.onnx")
    exact = F.group_norm(x.double(), 2)
    assert largest_difference(found, exact) < 1e-3


def test_attention_has_no_arithmetic_of_shapes(tmp_path: Path) -> None:
    block = randomized(SelfAttention(8, heads=2, head_channels=None, groups=2, norm_eps=1e-6))
    x = torch.randn(3, 8, 3, 3, generator=torch.Generator().manual_seed(3))
    operators, found = exported(block, x, tmp_path / "attention.onnx")
    assert largest_difference(found, block(x)) < 1e-5
    assert (operators["MatMul"], operators["Softmax"], operators["Split"]) == (2, 1, 1)
    assert operators["Transpose"] == 3  # of query, value and result; that of the keys cancels
    assert operators.keys().isdisjoint({"Shape", "Slice", "Squeeze"})


@pytest.mark.parametrize("function", [F.elu, F.softplus])
def test_activations_at_every_size(function: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    sizes, others = torch.logspace(-30, 30, 61), torch.tensor([-torch.inf, torch.inf, torch.nan])
    x = torch.cat([-sizes, torch.zeros(2), sizes, others])[:, None]
    operators, found = exported(Function(function), x, tmp_path / "activation.onnx")
    assert operators["Elu"] == operators["Softplus"] == 0
    expected = function(x).numpy()
    assert np.isnan(expected).sum() == 1
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_of_a_doubled_image_never_makes_it(bias: bool, tmp_path: Path) -> None:
    conv = randomized(nn.Conv2d(2, 3, 3, padding=1, bias=bias))

    def double(x: Tensor) -> Tensor:
        return conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))

    x = torch.randn(3, 2, 3, 5, generator=torch.Generator().manual_seed(4))  # no square: H and W
    operators, found = exported(Function(double, conv), x, tmp_path / "double.onnx")
    assert found.shape == (3, 3, 6, 10)
    assert largest_difference(found, double(x)) < 1e-5
    assert operators == Counter(Conv=4, Concat=3, Reshape=7)
    graph = onnx.load(tmp_path / "double.onnx").graph
    read = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= read


def test_parity_kernels_sum_what_falls_on_one_pixel() -> None:
    kernel = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    even = parity_kernels(kernel)[0, 0, 0, 0]
    assert even.tolist() == [[0, 1 + 2], [3 + 6, 4 + 5 + 7 + 8]]
    assert parity_kernels(kernel)[1, 1, 0, 0].tolist() == [[0 + 1 + 3 + 4, 2 + 5], [6 + 7, 8]]


def test_other_resizes_and_convolutions_stay(tmp_path: Path) -> None:
    double = nn.Upsample(scale_factor=2.0)
    others = (
        (double, nn.Conv2d(2, 3, 1)),
        (double, nn.Conv2d(2, 3, 3)),
        (double, nn.Conv2d(2, 3, 3, padding=1, stride=2)),
        (double, nn.Conv2d(2, 3, 3, padding=1, dilation=2)),
        (double, nn.Conv2d(2, 4, 3, padding=1, groups=2)),
        (nn.Upsample(scale_factor=3.0), nn.Conv2d(2, 3, 3, padding=1)),
        (nn.Upsample(scale_factor=2.0, mode="bilinear"), nn.Conv2d(2, 3, 3, padding=1)),
    )
    pairs = randomized(nn.ModuleList(nn.Sequential(*pair) for pair in others))

    def all_of_them(x: Tensor) -> Tensor:
        # Each has an image of its own, or the exporter would double x once for all.
        return torch.cat([pair(x + i).flatten(1) for i, pair in enumerate(pairs)], dim=1)

    x = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(5))
    operators, found = exported(Function(all_of_them, pairs), x, tmp_path / "others.onnx")
    assert largest_difference(found, all_of_them(x)) < 1e-5
    assert (operators["Resize"], operators["Conv"]) == (len(others), len(others))


def test_a_doubled_image_that_others_read_stays(tmp_path: Path) -> None:
    conv = randomized(nn.Conv2d(2, 2, 3, padding=1))

    def both(x: Tensor) -> Tensor:
        doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return conv(doubled) + doubled

    x = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(6))
    operators, found = exported(Function(both, conv), x, tmp_path / "both.onnx")
    assert largest_difference(found, both(x)) < 1e-5
    assert operators["Resize"] == 1


def test_instance_norm_plus_is_exact_if_the_noise_is_large(tmp_path: Path) -> None:
    """NCSNv2 starts at sigma 50, and images of it have means of that size, too."""
    affine = randomized(nn.ParameterList(torch.empty(6) for _ in range(3)))

    def norm(x: Tensor) -> Tensor:
        return instance_norm_plus(x, 6, [part.to(x.dtype) for part in affine])

    x = 50 * torch.randn(3, 6, 1, 1) + 50 * torch.randn(3, 6, 8, 8)
    _, found = exported(Function(norm, affine), x, tmp_path / "norm.onnx")
    assert largest_difference(found, norm(x.double())) < 1e-5


def test_a_step_graph_computes_no_shapes(tiny_bundle: Path) -> None:
    operators = {node.op_type for node in onnx.load(tiny_bundle / "step.onnx").graph.node}
    assert operators >= {"BatchNormalization", "Gather", "InstanceNormalization"}
    assert operators.isdisjoint({"Expand", "GatherND", "Shape", "Squeeze"})
