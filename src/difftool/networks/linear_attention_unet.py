"""The U-Net of the denoising-diffusion-pytorch library: attention at every resolution.

At high resolutions it is linear attention (Shen et al. 2021). Its cost grows with the number of
pixels, not with the square of it. All attention also sees a few learned keys and values.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from difftool.errors import UsageError
from difftool.networks.checks import check_at_least, check_embedding, check_groups, check_levels
from difftool.networks.unet_layers import SinusoidalEmbedding, embedding_mlp, modules_of_kind

NormFactory = Callable[[int], nn.Module]


class LinearAttentionUNet(nn.Module):
    """A U-Net: x [N, in_channels, H, W] -> [N, out_channels, H, W].

    H and W must be divisible by 2**(len(multipliers) - 1). A level is two residual blocks,
    attention and a change of resolution. The defaults are the library's.

    Args:
        channels: unit of the widths; level i ends with `channels * multipliers[i]`.
        first_channels: width of the first level's start; `channels` by default.
        full: levels with ordinary instead of linear attention; by default the last. The middle
            always has ordinary attention.
        heads, head_channels: number and width of the attention heads; one number for all levels,
            or one for each. The middle has those of the last level.
        memory: number of learned keys and values of each head.
        groups: groups of the GroupNorms in the residual blocks (versions 1 of the library); None
            gives RMS norms over channels (versions 2).

    Raises:
        UsageError: the arguments do not fit each other.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        channels: int = 64,
        first_channels: int | None = None,
        multipliers: Sequence[int] = (1, 2, 4, 8),
        full: Sequence[int] | None = None,
        heads: int | Sequence[int] = 4,
        head_channels: int | Sequence[int] = 32,
        memory: int = 4,
        groups: int | None = None,
    ) -> None:
        super().__init__()
        levels = len(multipliers)
        first_channels = channels if first_channels is None else first_channels
        full = (levels - 1,) if full is None else full
        heads = _for_each(heads, levels, "heads")
        head_channels = _for_each(head_channels, levels, "head_channels")
        widths = [first_channels, *(channels * multiplier for multiplier in multipliers)]
        check_at_least(1, "in_channels", in_channels)
        check_at_least(1, "out_channels", out_channels)
        check_at_least(0, "memory", memory)
        check_embedding(channels)
        check_levels(multipliers, "full", full)
        for width in widths:
            check_at_least(1, "a width", width)
        if groups is not None:
            check_groups(groups, widths)
        norm: NormFactory = RMSNorm if groups is None else partial(nn.GroupNorm, groups)
        block = partial(ResidualBlock, norm=norm)

        def attend(level: int, width: int) -> nn.Module:
            kind = FullAttention if level in full else LinearAttention
            return kind(width, heads[level], head_channels[level], memory)

        def row(inputs: int, width: int, level: int, change: nn.Module) -> nn.ModuleList:
            blocks = block(inputs, width), block(inputs, width)
            return nn.ModuleList([*blocks, attend(level, width), change])

        hidden, bottom = 4 * channels, widths[-1]
        steps = list(enumerate(pairwise(widths)))
        self.embedding = SinusoidalEmbedding(channels, "sin_cos")
        self.embedding_mlp = embedding_mlp(channels, hidden, nn.GELU())
        self.conv_in = nn.Conv2d(in_channels, first_channels, 7, padding=3)
        self.down = nn.ModuleList()
        for level, (width, wider) in steps:
            change = _conv3x3(width, wider) if level == levels - 1 else _halve(width, wider)
            self.down.append(row(width, width, level, change))
        attention = FullAttention(bottom, heads[-1], head_channels[-1], memory)
        self.middle = nn.ModuleList([block(bottom, bottom), attention, block(bottom, bottom)])
        self.up = nn.ModuleList()
        for level, (width, wider) in reversed(steps):
            change = _conv3x3(wider, width) if level == 0 else _double(wider, width)
            self.up.append(row(width + wider, wider, level, change))
        self.last = block(2 * first_channels, first_channels)
        self.conv_out = nn.Conv2d(first_channels, out_channels, 1)
        self.projection_sizes = [b.projection_size for b in self.residual_blocks().values()]
        self.projections = nn.Linear(hidden, sum(self.projection_sizes))

    def residual_blocks(self) -> dict[str, "ResidualBlock"]:
        """Return the residual blocks by name, in the order of running and of the projections."""
        return modules_of_kind(self, ResidualBlock)

    def condition(self, cond: Tensor) -> Tensor:
        """Map cond [R], timesteps, to scale and shift of all residual blocks, [R, C]."""
        return self.projections(F.silu(self.embedding_mlp(self.embedding(cond))))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        projections = iter(c.split(self.projection_sizes, dim=1))

        def run(block: nn.Module, *h: Tensor) -> Tensor:
            return block(torch.cat(h, dim=1), next(projections))

        start = h = self.conv_in(x)
        skips = []
        for row in self.down:
            first, second, attend, change = row.children()
            skips.append(h := run(first, h))
            skips.append(h := attend(run(second, h)))
            h = change(h)
        first, attend, second = self.middle
        h = run(second, attend(run(first, h)))
        for row in self.up:
            first, second, attend, change = row.children()
            h = run(first, h, skips.pop())
            h = change(attend(run(second, h, skips.pop())))
        return self.conv_out(run(self.last, h, start))


class ResidualBlock(nn.Module):
    """Two convolutions, each followed by a norm and an activation, plus a shortcut.

    projection [N, 2 * outputs] is the scale and shift of the first norm.
    """

    def __init__(self, inputs: int, outputs: int, *, norm: NormFactory) -> None:
        super().__init__()
        self.projection_size = 2 * outputs
        self.conv1 = _conv3x3(inputs, outputs)
        self.norm1 = norm(outputs)
        self.conv2 = _conv3x3(outputs, outputs)
        self.norm2 = norm(outputs)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, projection: Tensor) -> Tensor:
        scale, shift = projection[:, :, None, None].chunk(2, dim=1)
        h = F.silu(self.norm1(self.conv1(x)) * (1 + scale) + shift)
        return F.silu(self.norm2(self.conv2(h))) + self.shortcut(x)


class RMSNorm(nn.Module):
    """A norm that scales each pixel's channels to a root mean square of 1, times a learned gain."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.root = channels**0.5
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(1e-12)
        return x * (self.root / norm) * self.gain


class Attention(nn.Module):
    """The base of both kinds of attention over pixels, which are added to their input.

    `qkv` stacks all queries, then all keys, then all values, each split evenly into heads.
    """

    def __init__(self, channels: int, heads: int, head_channels: int, memory: tuple[int, int]):
        super().__init__()
        self.heads = heads
        self.norm = RMSNorm(channels)
        self.memory = nn.Parameter(torch.randn(2, heads, *memory))
        self.qkv = nn.Conv2d(channels, 3 * heads * head_channels, 1, bias=False)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k and v of a picture, [N, heads, head channels, pixels] each."""
        parts = self.qkv(self.norm(x)).flatten(2).chunk(3, dim=1)
        q, k, v = (part.unflatten(1, (self.heads, -1)) for part in parts)
        return q, k, v

    def remembered(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the learned keys and values, once for each sample."""
        keys, values = self.memory[:, None].expand(-1, like.shape[0], -1, -1, -1)
        return keys, values


class FullAttention(Attention):
    """Attention of every pixel to every pixel and to the memory; x is [N, channels, H, W]."""

    def __init__(self, channels: int, heads: int, head_channels: int, memory: int) -> None:
        super().__init__(channels, heads, head_channels, (memory, head_channels))
        self.out = nn.Conv2d(heads * head_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.transpose(2, 3) for part in self.split(x))
        keys, values = self.remembered(x)
        k, v = torch.cat((keys, k), dim=2), torch.cat((values, v), dim=2)
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[2:]))


class LinearAttention(Attention):
    """Attention to a summary of keys and values (Shen et al. 2021); x is [N, channels, H, W]."""

    def __init__(self, channels: int, heads: int, head_channels: int, memory: int) -> None:
        super().__init__(channels, heads, head_channels, (head_channels, memory))
        self.scale = head_channels**-0.5
        self.out = nn.Sequential(nn.Conv2d(heads * head_channels, channels, 1), RMSNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        keys, values = self.remembered(x)
        k, v = torch.cat((keys, k), dim=3), torch.cat((values, v), dim=3)
        # Keys and values are summed up first, so no matrix of pixels by pixels is ever made.
        summary = v @ k.softmax(dim=3).transpose(2, 3)  # [N, heads, of v, of k]
        h = summary @ (q.softmax(dim=2) * self.scale)
        return x + self.out(h.flatten(1, 2).unflatten(2, x.shape[2:]))


def _conv3x3(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _halve(inputs: int, outputs: int) -> nn.Module:
    """Halve the resolution; this equals the library's pixel unshuffling and 1x1 convolution."""
    return nn.Conv2d(inputs, outputs, 2, stride=2)


def _double(inputs: int, outputs: int) -> nn.Module:
    """Double the resolution by nearest neighbours and a convolution."""
    return nn.Sequential(nn.Upsample(scale_factor=2.0), _conv3x3(inputs, outputs))


def _for_each(value: int | Sequence[int], levels: int, name: str) -> list[int]:
    values = [value] * levels if isinstance(value, int) else list(value)
    if len(values) != levels:
        raise UsageError(f"{name} is {values} for {levels} levels", "give one number, or one each")
    for each in values:
        check_at_least(1, name, each)
    return values
