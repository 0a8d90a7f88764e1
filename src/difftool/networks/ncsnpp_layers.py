"""The parts of NCSN++: filtered resampling, its residual block, and the two pyramids.

A pyramid is a small picture that goes with the features. On the way down it carries the input to
every resolution. On the way up it carries the output, to which every resolution adds its part.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from difftool.errors import UsageError
from difftool.networks.unet_layers import ResampleConv

FIR = (1.0, 3.0, 3.0, 1.0)
RESCALE = math.sqrt(0.5)  # so that a sum of two has the variance of one


class FourierEmbedding(nn.Module):
    """Sines and cosines of log(sigma) at random, fixed frequencies: [R] -> [R, 2 * size].

    cond is log(sigma) / 4. The frequencies are saved with the weights.
    """

    frequencies: Tensor

    def __init__(self, size: int, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(size))

    def forward(self, cond: Tensor) -> Tensor:
        angles = 4 * cond[:, None] * self.frequencies * 2 * math.pi
        return torch.cat((angles.sin(), angles.cos()), dim=1)


class Filter(nn.Module):
    """A separable filter of sum 1 on each of `channels` channels, as a depthwise convolution."""

    kernel: Tensor

    def __init__(
        self, channels: int, taps: tuple[float, ...], *, stride: int = 1, padding: int
    ) -> None:
        super().__init__()
        self.channels, self.stride, self.padding = channels, stride, padding
        line = torch.tensor(taps) / sum(taps)
        kernel = torch.outer(line, line).expand(channels, 1, -1, -1)
        self.register_buffer("kernel", kernel.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(
            x, self.kernel, stride=self.stride, padding=self.padding, groups=self.channels
        )


def halve(channels: int, *, fir: bool) -> nn.Module:
    """Halve the resolution: every second pixel of the filtered picture, or means of 2x2."""
    return Filter(channels, FIR, stride=2, padding=1) if fir else nn.AvgPool2d(2)


def double(channels: int, *, fir: bool, margin: int = 0) -> nn.Module:
    """Double the resolution: filter zeros between the pixels, or repeat every pixel four times.

    The filter (1, 3, 3, 1) is (1, 1) convolved with (1, 2, 1). So filtering is repeating, followed
    by (1, 2, 1). The result has a border of `margin` more pixels.
    """
    nearest = nn.Upsample(scale_factor=2.0)
    if not fir:
        return nearest
    return nn.Sequential(nearest, Filter(channels, (1.0, 2.0, 1.0), padding=1 + margin))


def halve_conv(inputs: int, outputs: int, *, fir: bool) -> ResampleConv:
    """Halve the resolution by a 3x3 convolution; without the filter, pad right and bottom."""
    # Either way the picture grows by one pixel, and the convolution takes every second one.
    before = Filter(inputs, FIR, padding=2) if fir else nn.ZeroPad2d((0, 1, 0, 1))
    return ResampleConv(before, inputs, outputs, stride=2, padding=0)


def double_conv(inputs: int, outputs: int, *, fir: bool) -> ResampleConv:
    """Double the resolution before a 3x3 convolution, which sees what the filter spills over."""
    before = double(inputs, fir=fir, margin=1)
    return ResampleConv(before, inputs, outputs, padding=0 if fir else 1)


class ResidualBlock(nn.Module):
    """Two convolutions after norms, with the projection [N, outputs] between, plus a shortcut.

    `resample` changes the resolution of both branches before their first convolution (BigGAN).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        resample: nn.Module | None = None,
        *,
        scale: float,
    ) -> None:
        super().__init__()
        self.projection_size = outputs
        self.scale = scale
        self.resample = resample or nn.Identity()
        self.norm1 = group_norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = group_norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        same = inputs == outputs and resample is None
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, projection: Tensor) -> Tensor:
        h = self.conv1(self.resample(F.silu(self.norm1(x)))) + projection[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.shortcut(self.resample(x)) + h) * self.scale


class InputSkip(nn.Module):
    """An input pyramid that joins the features: the halved input after a 1x1 convolution."""

    def __init__(self, channels: int, width: int, *, fir: bool, combine: str) -> None:
        super().__init__()
        self.cat = combine == "cat"
        self.resize = halve(channels, fir=fir)
        self.conv = nn.Conv2d(channels, width, 1)

    def forward(self, pyramid: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        pyramid = self.resize(pyramid)
        part = self.conv(pyramid)
        return pyramid, torch.cat((part, h), dim=1) if self.cat else part + h


class ResidualPyramid(nn.Module):
    """A pyramid of features: after `change`, pyramid and features both become their sum."""

    def __init__(self, change: nn.Module, scale: float) -> None:
        super().__init__()
        self.change, self.scale = change, scale

    def forward(self, pyramid: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = (self.change(pyramid) + h) * self.scale
        return h, h


class OutputHead(nn.Module):
    """A norm, SiLU and a 3x3 convolution: [N, width, H, W] -> [N, outputs, H, W]."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm = group_norm(width)
        self.conv = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(F.silu(self.norm(h)))


class OutputSkip(nn.Module):
    """An output pyramid that adds each resolution's output to the doubled one from below."""

    def __init__(self, width: int, channels: int, *, fir: bool) -> None:
        super().__init__()
        self.resize = double(channels, fir=fir)
        self.head = OutputHead(width, channels)

    def forward(self, pyramid: Tensor | None, h: Tensor) -> tuple[Tensor, Tensor]:
        part = self.head(h)
        return part if pyramid is None else self.resize(pyramid) + part, h


class OutputStart(nn.Module):
    """The start of a residual output pyramid; the features stay as they are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = OutputHead(width, width)

    def forward(self, pyramid: Tensor | None, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(h), h


class NoPyramid(nn.Module):
    """A stand-in for a pyramid, in a network that has none."""

    def forward(self, pyramid: Tensor | None, h: Tensor) -> tuple[Tensor | None, Tensor]:
        return pyramid, h


def group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(group_count(width), width, eps=1e-6)


def group_count(width: int) -> int:
    """Return the groups of a norm, of at least four channels, and no more than 32.

    UsageError if they do not divide the width.
    """
    groups = min(width // 4, 32)
    if groups < 1 or width % groups:
        raise UsageError(
            f"a norm over {width} channels has {groups} groups of equal size in NCSN++",
            "choose widths of 4 channels and more, and multiples of 32 from 128 on",
        )
    return groups
