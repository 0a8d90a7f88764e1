"""The U-Net of DDPM (Ho et al. 2020, appendix B), with the switches its public descendants need.

Every per-block time projection is one slice of a single linear layer, so `UNet.condition` can be
evaluated once per step of a program and leaves nothing of the time embedding in the sampling loop.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from difftool.errors import UsageError

EMBEDDINGS = ("sin_cos", "cos_sin")
PADDINGS = ("asymmetric", "symmetric")


class SinusoidalEmbedding(nn.Module):
    """[R] -> [R, size]: sines and cosines of `cond` at geometrically spaced frequencies.

    "sin_cos" is DDPM's order, whose lowest frequency is exactly 1/10000; "cos_sin" is that of
    improved-diffusion, whose lowest frequency is one ratio above it.
    """

    frequencies: Tensor

    def __init__(self, size: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        half = size // 2
        spacing = half - 1 if kind == "sin_cos" else half
        exponents = torch.arange(half, dtype=torch.float64) / spacing
        self.register_buffer("frequencies", (10000.0**-exponents).float(), persistent=False)

    def forward(self, cond: Tensor) -> Tensor:
        angles = cond[:, None] * self.frequencies
        waves = (angles.sin(), angles.cos())
        return torch.cat(waves if self.kind == "sin_cos" else waves[::-1], dim=1)


class ResidualBlock(nn.Module):
    """Two normalized convolutions around the time projection, plus a shortcut.

    The projection is [N, outputs], added between the convolutions, or [N, 2*outputs], the (scale,
    shift) of the second norm (`scale_shift`, improved-diffusion).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        groups: int,
        norm_eps: float,
        dropout: float,
        scale_shift: bool,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.projection_size = 2 * outputs if scale_shift else outputs
        self.norm1 = nn.GroupNorm(groups, inputs, eps=norm_eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, projection: Tensor) -> Tensor:
        projection = projection[:, :, None, None]
        h = self.conv1(F.silu(self.norm1(x)))
        if self.scale_shift:
            scale, shift = projection.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + projection)
        return self.shortcut(x) + self.conv2(self.dropout(F.silu(h)))


class SelfAttention(nn.Module):
    """Multi-head attention over all pixels, added to its input.

    `qkv` stacks all queries, then all keys, then all values; each is split evenly into heads.
    """

    def __init__(self, channels: int, heads: int, *, groups: int, norm_eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels, eps=norm_eps)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).flatten(2)
        qkv = qkv.unflatten(1, (3, self.heads, channels // self.heads)).transpose(3, 4)
        q, k, v = qkv.unbind(1)  # each [N, heads, pixels, head channels]
        h = F.scaled_dot_product_attention(q, k, v)
        h = h.transpose(2, 3).flatten(1, 2).unflatten(2, (height, width))
        return x + self.out(h)


class Downsample(nn.Module):
    """Halves the resolution; "asymmetric" pads on the right and bottom, as TensorFlow's SAME."""

    def __init__(self, channels: int, padding: str) -> None:
        super().__init__()
        self.asymmetric = padding == "asymmetric"
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if self.asymmetric else 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)


class Upsample(nn.Module):
    """Doubles the resolution: nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Stage(nn.Module):
    """The residual blocks of one resolution, each followed by its attention or by nothing."""

    def __init__(
        self,
        blocks: Sequence[ResidualBlock],
        attentions: Sequence[nn.Module],
        resample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(attentions)
        self.resample = resample

    def layers(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        return zip(self.blocks, self.attentions, strict=True)


class UNet(nn.Module):
    """DDPM's U-Net: x [N, in_channels, H, W] -> [N, out_channels, H, W].

    H and W must be divisible by 2**(len(multipliers) - 1). The defaults are the CIFAR-10 network of
    the paper (35.7 M parameters).

    Args:
        channels: width of the first level; level i has `channels * multipliers[i]`.
        blocks: residual blocks per level on the way down; there is one more on the way up.
        attention: levels with self-attention, 0 being the full resolution. The middle always has it.
        heads: attention heads; or give `head_channels`, the width of one head, instead.
        groups: groups of every GroupNorm; must divide every width.
        embedding: "sin_cos" (DDPM) or "cos_sin" (improved-diffusion).
        scale_shift: time enters as scale and shift of the second norm instead of as a bias.
        downsample_padding: "asymmetric" (DDPM) or "symmetric" (improved-diffusion).

    Raises:
        UsageError: the arguments do not fit each other.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (1,),
        heads: int = 1,
        head_channels: int | None = None,
        dropout: float = 0.0,
        groups: int = 32,
        norm_eps: float = 1e-6,
        embedding: str = "sin_cos",
        scale_shift: bool = False,
        downsample_padding: str = "asymmetric",
    ) -> None:
        super().__init__()
        _check_choice("embedding", embedding, EMBEDDINGS)
        _check_choice("downsample_padding", downsample_padding, PADDINGS)
        _check_levels(multipliers, blocks, attention)
        _check_widths(channels, multipliers, groups)
        if head_channels is not None and heads != 1:
            raise UsageError("heads and head_channels are both given", "give only one of them")

        def block(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(
                inputs,
                outputs,
                groups=groups,
                norm_eps=norm_eps,
                dropout=dropout,
                scale_shift=scale_shift,
            )

        def attend(width: int) -> SelfAttention:
            count = _head_count(width, heads, head_channels)
            return SelfAttention(width, count, groups=groups, norm_eps=norm_eps)

        def attentions(level: int, count: int) -> list[nn.Module]:
            here = level in attention
            return [attend(widths[level]) if here else nn.Identity() for _ in range(count)]

        widths = [channels * multiplier for multiplier in multipliers]
        last = len(widths) - 1
        self.embedding = SinusoidalEmbedding(channels, embedding)
        self.embedding_mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, 4 * channels)
        )
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)

        width, skips = channels, [channels]
        self.down = nn.ModuleList()
        for level, outputs in enumerate(widths):
            inputs = [width] + [outputs] * (blocks - 1)
            resample = Downsample(outputs, downsample_padding) if level < last else None
            stage = Stage(
                [block(i, outputs) for i in inputs], attentions(level, blocks), resample
            )
            self.down.append(stage)
            skips += [outputs] * (blocks + (level < last))
            width = outputs

        self.middle = Stage(
            [block(width, width), block(width, width)], [attend(width), nn.Identity()]
        )

        self.up = nn.ModuleList()  # lowest resolution first, as it runs
        for level, outputs in reversed(list(enumerate(widths))):
            inputs = [width] + [outputs] * blocks
            resample = Upsample(outputs) if level > 0 else None
            stage = Stage(
                [block(i + skips.pop(), outputs) for i in inputs],
                attentions(level, blocks + 1),
                resample,
            )
            self.up.append(stage)
            width = outputs

        self.norm_out = nn.GroupNorm(groups, channels * multipliers[0], eps=norm_eps)
        self.conv_out = nn.Conv2d(channels * multipliers[0], out_channels, 3, padding=1)
        self.projection_sizes = [
            module.projection_size for module in self.modules() if isinstance(module, ResidualBlock)
        ]
        self.projections = nn.Linear(4 * channels, sum(self.projection_sizes))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """DDPM's initialization: Glorot uniform, and zero for what ends a residual branch."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.conv2.weight)
            elif isinstance(module, SelfAttention):
                for part in module.qkv.weight.chunk(3):
                    nn.init.xavier_uniform_(part)
                nn.init.zeros_(module.out.weight)
        for part in self.projections.weight.split(self.projection_sizes):
            nn.init.xavier_uniform_(part)
        nn.init.zeros_(self.conv_out.weight)

    def condition(self, cond: Tensor) -> Tensor:
        """cond [R] (timesteps) -> the time projections of all blocks, in running order, [R, C]."""
        return self.projections(F.silu(self.embedding_mlp(self.embedding(cond))))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        projections = iter(c.split(self.projection_sizes, dim=1))
        h = self.conv_in(x)
        skips = [h]
        for stage in self.down:
            for block, attention in stage.layers():
                h = attention(block(h, next(projections)))
                skips.append(h)
            if stage.resample is not None:
                h = stage.resample(h)
                skips.append(h)
        for block, attention in self.middle.layers():
            h = attention(block(h, next(projections)))
        for stage in self.up:
            for block, attention in stage.layers():
                h = attention(block(torch.cat((h, skips.pop()), dim=1), next(projections)))
            if stage.resample is not None:
                h = stage.resample(h)
        return self.conv_out(F.silu(self.norm_out(h)))


def _head_count(width: int, heads: int, head_channels: int | None) -> int:
    count = heads if head_channels is None else width // head_channels
    if count < 1 or width % count or (head_channels and width % head_channels):
        raise UsageError(
            f"{width} channels do not split into equal attention heads",
            "choose heads or head_channels that divides every width with attention",
        )
    return count


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{name} is {value!r}", f"choose one of {', '.join(choices)}")


def _check_levels(multipliers: Sequence[int], blocks: int, attention: Sequence[int]) -> None:
    if not multipliers or blocks < 1:
        raise UsageError("the network has no blocks", "give at least one multiplier and one block")
    outside = [level for level in attention if level not in range(len(multipliers))]
    if outside:
        raise UsageError(
            f"attention names level {outside[0]}",
            f"levels are 0 (full resolution) to {len(multipliers) - 1}",
        )


def _check_widths(channels: int, multipliers: Sequence[int], groups: int) -> None:
    if channels < 4 or channels % 2:
        raise UsageError(f"channels is {channels}", "the time embedding needs an even number >= 4")
    for width in (channels, *(channels * multiplier for multiplier in multipliers)):
        if width < 1 or groups < 1 or width % groups:
            raise UsageError(
                f"groups={groups} does not divide a width of {width} channels",
                "choose groups that divides channels",
            )
