"""The parts of the U-Net: time embedding, residual block, self-attention and resampling.

The functions at the start serve all networks with a time embedding.
"""

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from difftool.errors import UsageError

M = TypeVar("M", bound=nn.Module)


def modules_of_kind(network: nn.Module, kind: type[M]) -> dict[str, M]:
    """Return a network's modules of a class by name, in the order of their registration."""
    return {name: module for name, module in network.named_modules() if isinstance(module, kind)}


def embedding_mlp(size: int, hidden: int, activation: nn.Module) -> nn.Sequential:
    """Make the layers between a time embedding of `size` numbers and the projections."""
    return nn.Sequential(nn.Linear(size, hidden), activation, nn.Linear(hidden, hidden))


@torch.no_grad()
def reset_as_ddpm(
    network: nn.Module, projections: Iterable[Tensor], ends: Iterable[nn.Conv2d]
) -> None:
    """Initialize a network as DDPM does: Glorot uniform, but biases and ends of branches zero.

    Each slice of a larger matrix, `projections` and the three parts of an attention, is initialized
    as the matrix of its own that it is in DDPM. `ends` are the last convolutions of residual
    branches and of the network.
    """
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
    for part in projections:
        nn.init.xavier_uniform_(part)
    for attention in modules_of_kind(network, SelfAttention).values():
        for part in attention.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(part)
        nn.init.zeros_(attention.out.weight)
    for conv in ends:
        nn.init.zeros_(conv.weight)


class SinusoidalEmbedding(nn.Module):
    """Sines and cosines of `cond` at geometrically spaced frequencies: [R] -> [R, size].

    Frequency i is 10000^(-i / (size / 2 - shift)). "sin_cos" is DDPM's order; its shift is 1 by
    default, so that the lowest frequency is exactly 1/10000. "cos_sin" is improved-diffusion's;
    its shift is 0 by default, so that the lowest frequency is one ratio above that.

    Raises:
        UsageError: the shift is not less than size / 2.
    """

    frequencies: Tensor

    def __init__(self, size: int, kind: str, shift: float | None = None) -> None:
        super().__init__()
        self.kind = kind
        half = size // 2
        shift = int(kind == "sin_cos") if shift is None else shift
        if shift >= half:
            raise UsageError(
                f"a frequency_shift of {shift} with {half} frequencies", "choose 0 or 1"
            )
        exponents = torch.arange(half, dtype=torch.float64) / (half - shift)
        self.register_buffer("frequencies", (10000.0**-exponents).float(), persistent=False)

    def forward(self, cond: Tensor) -> Tensor:
        angles = cond[:, None] * self.frequencies
        waves = (angles.sin(), angles.cos())
        return torch.cat(waves if self.kind == "sin_cos" else waves[::-1], dim=1)


class ResidualBlock(nn.Module):
    """Two convolutions after norms, with the time projection between, plus a shortcut.

    The projection is [N, outputs] and added after the first convolution. With `scale_shift`
    (improved-diffusion) it is [N, 2*outputs], the scale and shift of the second norm. `resample`
    changes the resolution of both branches before their first convolution.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        resample: nn.Module | None = None,
        *,
        groups: int,
        norm_eps: float,
        dropout: float,
        scale_shift: bool,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.projection_size = 2 * outputs if scale_shift else outputs
        self.resample = resample or nn.Identity()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=norm_eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, projection: Tensor) -> Tensor:
        projection = projection[:, :, None, None]
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        if self.scale_shift:
            scale, shift = projection.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + projection)
        return self.shortcut(self.resample(x)) + self.conv2(self.dropout(F.silu(h)))


class SelfAttention(nn.Module):
    """Multi-head attention over all pixels, added to its input; it has no norm if groups is 0.

    `qkv` stacks all queries, then all keys, then all values; each is split evenly into heads. Give
    `heads`, their number, or `head_channels`, their width.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        head_channels: int | None,
        groups: int,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.head_channels = head_channels or channels // heads
        if self.head_channels < 1 or channels % self.head_channels:
            raise UsageError(
                f"{channels} channels do not split into equal attention heads",
                "choose heads or head_channels that divides every width with attention",
            )
        self.norm = nn.GroupNorm(groups, channels, eps=norm_eps) if groups else nn.Identity()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        parts = self.qkv(self.norm(x)).flatten(2).chunk(3, dim=1)
        # Each is [N, heads, pixels, head channels]. Each has a transpose of its own, because the
        # one of the keys cancels against the transpose in the product.
        q, k, v = (part.unflatten(1, (-1, self.head_channels)).transpose(2, 3) for part in parts)
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(2, 3).flatten(1, 2).unflatten(2, size))


class ResampleConv(nn.Module):
    """A 3x3 convolution of what `before` makes of a picture."""

    def __init__(
        self, before: nn.Module, inputs: int, outputs: int, *, stride: int = 1, padding: int = 1
    ) -> None:
        super().__init__()
        self.before = before
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.before(x))
