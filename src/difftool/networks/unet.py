"""The U-Net of DDPM (Ho et al. 2020, appendix B), with the switches its public descendants need.

Every per-block time projection is one slice of a single linear layer, so `UNet.condition` can be
evaluated once per step of a program and leaves nothing of the time embedding in the sampling loop.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from difftool.errors import UsageError
from difftool.networks.checks import (
    MOST_LAYERS,
    MOST_LEVELS,
    check_at_least,
    check_at_most,
    check_choice,
)
from difftool.networks.labels import add_label, label_table
from difftool.networks.unet_layers import (
    Downsample,
    ResidualBlock,
    SelfAttention,
    SinusoidalEmbedding,
    Upsample,
)

EMBEDDINGS = ("sin_cos", "cos_sin")
PADDINGS = ("asymmetric", "symmetric")
RESAMPLINGS = ("conv", "block")
_WHOLE: Final = 1e-9  # how far, in itself, a width may be from a whole number

RowFactory = Callable[[int, int], nn.ModuleList]  # of input width and level


class UNet(nn.Module):
    """DDPM's U-Net: x [N, in_channels, H, W] -> [N, out_channels, H, W].

    H and W must be divisible by 2**(len(multipliers) - 1). The defaults are the CIFAR-10 network of
    the paper (35.7 M parameters).

    `down`, `middle` and `up` are rows of modules in the order in which they run. Each row of `down`
    leaves its output for a row of `up`, which takes them last in, first out.

    Args:
        channels: width of the first level; level i has `channels * multipliers[i]`, which must be
            whole.
        blocks: residual blocks per level on the way down; there is one more on the way up.
        attention: levels with self-attention, 0 being full resolution; the middle always has it.
        up_attention: the same on the way up, if it differs.
        heads: attention heads; or give `head_channels`, the width of one head, instead.
        groups: groups of every GroupNorm; must divide every width.
        middle_groups: groups of the one before the middle's attention, if they differ; 0 leaves
            it out.
        embedding: "sin_cos" (DDPM) or "cos_sin" (improved-diffusion).
        frequency_shift: see `SinusoidalEmbedding`.
        scale_shift: time enters as scale and shift of the second norm instead of as a bias.
        resample: between levels, a "conv" (DDPM) or a residual "block" (guided-diffusion).
        downsample_padding: of that conv, "asymmetric" (DDPM) or "symmetric" (improved-diffusion).
        classes, null_label: labels 0 .. `classes` - 1, and the label `classes` for none; a learned
            vector of each is added to the time embedding (improved- and guided-diffusion).
        embedding_channels: width of the sinusoidal embedding; `channels` by default. What follows
            it has four times that (guided-diffusion at 512 pixels, whose first level is narrower).

    Raises:
        UsageError: the arguments do not fit each other.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        channels: int = 128,
        multipliers: Sequence[float] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (1,),
        up_attention: Sequence[int] | None = None,
        heads: int = 1,
        head_channels: int | None = None,
        dropout: float = 0.0,
        groups: int = 32,
        middle_groups: int | None = None,
        norm_eps: float = 1e-6,
        embedding: str = "sin_cos",
        frequency_shift: float | None = None,
        scale_shift: bool = False,
        resample: str = "conv",
        downsample_padding: str = "asymmetric",
        classes: int = 0,
        null_label: bool = False,
        embedding_channels: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("embedding", embedding, EMBEDDINGS)
        check_choice("resample", resample, RESAMPLINGS)
        check_choice("downsample_padding", downsample_padding, PADDINGS)
        check_at_least(1, "in_channels", in_channels)
        check_at_least(1, "out_channels", out_channels)
        check_at_least(1, "blocks", blocks)
        check_at_most(MOST_LAYERS, "blocks", blocks)
        embedding_channels = channels if embedding_channels is None else embedding_channels
        up_attention = attention if up_attention is None else up_attention
        middle_groups = groups if middle_groups is None else middle_groups
        _check_levels(multipliers, {*attention, *up_attention})
        _check_embedding(embedding_channels)
        widths = _widths(channels, multipliers)
        _check_groups(groups, (channels, *widths))
        if middle_groups:
            _check_groups(middle_groups, widths[-1:])
        _check_heads(heads, head_channels)

        block = partial(
            ResidualBlock,
            groups=groups,
            norm_eps=norm_eps,
            dropout=dropout,
            scale_shift=scale_shift,
        )
        attend = partial(
            SelfAttention,
            heads=heads,
            head_channels=head_channels,
            norm_eps=norm_eps,
        )

        def row(inputs: int, level: int, attention: Sequence[int]) -> nn.ModuleList:
            attentions = [attend(widths[level], groups=groups)] if level in attention else []
            return nn.ModuleList([block(inputs, widths[level]), *attentions])

        def downsample(width: int) -> nn.Module:
            if resample == "block":
                return block(width, width, nn.AvgPool2d(2))
            return Downsample(width, downsample_padding)

        def upsample(width: int) -> nn.Module:
            if resample == "block":
                return block(width, width, nn.Upsample(scale_factor=2.0))
            return Upsample(width)

        hidden = 4 * embedding_channels
        self.embedding = SinusoidalEmbedding(embedding_channels, embedding, frequency_shift)
        self.embedding_mlp = nn.Sequential(
            nn.Linear(embedding_channels, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
        )
        self.label_embedding = label_table(classes, null_label, hidden)
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)

        down_row = partial(row, attention=attention)
        self.down, skips = _down_rows(down_row, downsample, channels, widths, blocks)
        bottom = widths[-1]
        middle = [block(bottom, bottom), attend(bottom, groups=middle_groups)]
        self.middle = nn.ModuleList([*middle, block(bottom, bottom)])
        up_row = partial(row, attention=up_attention)
        self.up = _up_rows(up_row, upsample, skips, widths, blocks)
        self.norm_out = nn.GroupNorm(groups, widths[0], eps=norm_eps)
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)
        self.projection_sizes = [b.projection_size for b in self.residual_blocks().values()]
        self.projections = nn.Linear(hidden, sum(self.projection_sizes))
        self.reset_parameters()

    def residual_blocks(self) -> dict[str, ResidualBlock]:
        """Name -> residual block, in running order, which is that of the time projections."""
        modules = self.named_modules()
        return {name: module for name, module in modules if isinstance(module, ResidualBlock)}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """DDPM's initialization: Glorot uniform, and zero for what ends a residual branch."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        for part in self.projections.weight.split(self.projection_sizes):
            nn.init.xavier_uniform_(part)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.conv2.weight)
            elif isinstance(module, SelfAttention):
                for part in module.qkv.weight.chunk(3):
                    nn.init.xavier_uniform_(part)
                nn.init.zeros_(module.out.weight)
        nn.init.zeros_(self.conv_out.weight)
        if self.label_embedding is not None:
            nn.init.normal_(self.label_embedding.weight)

    def condition(self, cond: Tensor, label: Tensor | None = None) -> Tensor:
        """cond [R] (timesteps), label int64 [R] -> the projections of all residual blocks [R, C].

        The label is given to a network with classes, and to no other.
        """
        embedded = self.embedding_mlp(self.embedding(cond))
        return self.projections(F.silu(add_label(embedded, self.label_embedding, label)))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        projections = iter(c.split(self.projection_sizes, dim=1))
        h = self.conv_in(x)
        skips = [h]
        for row in self.down:
            h = _run(row, h, projections)
            skips.append(h)
        h = _run(self.middle, h, projections)
        for row in self.up:
            h = _run(row, torch.cat((h, skips.pop()), dim=1), projections)
        return self.conv_out(F.silu(self.norm_out(h)))


def _down_rows(
    row: RowFactory,
    downsample: Callable[[int], nn.Module],
    channels: int,
    widths: Sequence[int],
    blocks: int,
) -> tuple[nn.ModuleList, list[int]]:
    """The rows on the way down, and the widths of what they leave for the way up."""
    rows, skips = nn.ModuleList(), [channels]
    for level, width in enumerate(widths):
        for _ in range(blocks):
            rows.append(row(skips[-1], level))
            skips.append(width)
        if level < len(widths) - 1:
            rows.append(nn.ModuleList([downsample(width)]))
            skips.append(width)
    return rows, skips


def _up_rows(
    row: RowFactory,
    upsample: Callable[[int], nn.Module],
    skips: Sequence[int],
    widths: Sequence[int],
    blocks: int,
) -> nn.ModuleList:
    rows, skips, inputs = nn.ModuleList(), list(skips), widths[-1]
    for level in reversed(range(len(widths))):
        for index in range(blocks + 1):
            layers = row(inputs + skips.pop(), level)
            inputs = widths[level]
            if level > 0 and index == blocks:
                layers.append(upsample(inputs))
            rows.append(layers)
    return rows


def _run(row: nn.Module, h: Tensor, projections: Iterator[Tensor]) -> Tensor:
    for module in row.children():
        h = module(h, next(projections)) if isinstance(module, ResidualBlock) else module(h)
    return h


def _check_levels(multipliers: Sequence[float], attention: Collection[int]) -> None:
    if not multipliers:
        raise UsageError("multipliers is empty", "give one per resolution, such as [1, 2, 2]")
    check_at_most(MOST_LEVELS, "the number of multipliers", len(multipliers))
    for level in attention:
        if level not in range(len(multipliers)):
            raise UsageError(
                f"attention names level {level}",
                f"levels are 0 (full resolution) to {len(multipliers) - 1}",
            )


def _check_embedding(channels: int) -> None:
    check_at_least(4, "channels", channels)
    if channels % 2:
        raise UsageError(f"channels is {channels}", "the time embedding needs an even number")


def _widths(channels: int, multipliers: Sequence[float]) -> list[int]:
    """The width of each level; UsageError if one is not whole, but for rounding."""
    widths = [round(channels * multiplier) for multiplier in multipliers]
    for width, multiplier in zip(widths, multipliers, strict=True):
        if abs(width - channels * multiplier) > _WHOLE * width:
            raise UsageError(
                f"multiplier {multiplier} makes {channels * multiplier:g} channels of {channels}",
                "choose one that makes a whole number",
            )
    return widths


def _check_groups(groups: int, widths: Sequence[int]) -> None:
    check_at_least(1, "groups", groups)
    for width in widths:
        if width < 1 or width % groups:
            raise UsageError(
                f"groups={groups} does not divide a width of {width} channels",
                "choose groups that divides channels",
            )


def _check_heads(heads: int, head_channels: int | None) -> None:
    if head_channels is not None and heads != 1:
        raise UsageError("heads and head_channels are both given", "give one of them")
    check_at_least(1, "heads", heads)
    if head_channels is not None:
        check_at_least(1, "head_channels", head_channels)
