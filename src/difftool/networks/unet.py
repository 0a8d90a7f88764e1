"""The U-Net of DDPM (Ho et al. 2020, appendix B), with the options of its public descendants.

The time projections of all blocks are slices of a single linear layer. So `UNet.condition` computes
all of them at once, before the sampling loop, and the loop needs no time embedding.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from difftool.errors import UsageError
from difftool.networks.checks import (
    MOST_LAYERS,
    check_at_least,
    check_at_most,
    check_choice,
    check_embedding,
    check_groups,
    check_levels,
)
from difftool.networks.labels import add_label, label_table
from difftool.networks.unet_layers import (
    ResampleConv,
    ResidualBlock,
    SelfAttention,
    SinusoidalEmbedding,
    embedding_mlp,
    modules_of_kind,
    reset_as_ddpm,
)

EMBEDDINGS = ("sin_cos", "cos_sin")
PADDINGS = ("asymmetric", "symmetric")
RESAMPLINGS = ("conv", "block")
_WHOLE: Final = 1e-9  # the relative distance of a width from a whole number, due to rounding


class UNet(nn.Module):
    """DDPM's U-Net: x [N, in_channels, H, W] -> [N, out_channels, H, W].

    H and W must be divisible by 2**(len(multipliers) - 1). The defaults are the CIFAR-10 network of
    the paper (35.7 M parameters).

    `down`, `middle` and `up` are rows of modules in the order in which they run. Each row of `down`
    leaves a skip for a row of `up`; the last skip is taken first.

    Args:
        channels: width of the first level; level i has `channels * multipliers[i]`, which must be
            whole.
        blocks: residual blocks per level on the way down; there is one more on the way up.
        attention: levels with self-attention, 0 being full resolution; the middle always has it.
        up_attention: the same on the way up, if it differs.
        heads: attention heads; or give `head_channels`, the width of one head, instead.
        groups: groups of every GroupNorm; must divide every width.
        middle_groups: groups of the norm before the middle's attention, if they differ; 0 leaves
            that norm out.
        embedding: "sin_cos" (DDPM) or "cos_sin" (improved-diffusion).
        frequency_shift: see `SinusoidalEmbedding`.
        scale_shift: time enters as scale and shift of the second norm instead of as a bias.
        resample: the change between levels, a "conv" (DDPM) or a residual "block"
            (guided-diffusion).
        downsample_padding: "asymmetric" (DDPM) or "symmetric" (improved-diffusion) padding of the
            conv that halves the resolution.
        classes, null_label: labels 0 .. `classes` - 1, and with `null_label` the label `classes`.
            Each has a learned vector, which is added to the time embedding (improved- and
            guided-diffusion).
        embedding_channels: width of the sinusoidal embedding; `channels` by default. The layers
            after it have four times that (guided-diffusion at 512 pixels has a narrower first
            level).

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
        check_levels(multipliers, "attention", {*attention, *up_attention})
        check_embedding(embedding_channels)
        widths = _widths(channels, multipliers)
        check_groups(groups, (channels, *widths))
        if middle_groups:
            check_groups(middle_groups, widths[-1:])
        check_at_least(1, "heads", heads)
        if head_channels is not None:
            check_at_least(1, "head_channels", head_channels)
            if heads != 1:
                raise UsageError("heads and head_channels are both given", "give one of them")

        block = partial(
            ResidualBlock,
            groups=groups,
            norm_eps=norm_eps,
            dropout=dropout,
            scale_shift=scale_shift,
        )
        attend = partial(SelfAttention, heads=heads, head_channels=head_channels, norm_eps=norm_eps)

        def row(inputs: int, level: int, attention: Sequence[int]) -> nn.ModuleList:
            attentions = [attend(widths[level], groups=groups)] if level in attention else []
            return nn.ModuleList([block(inputs, widths[level]), *attentions])

        def halve(width: int) -> nn.Module:
            if resample == "block":
                return block(width, width, nn.AvgPool2d(2))
            if downsample_padding == "symmetric":
                return ResampleConv(nn.Identity(), width, width, stride=2)
            padding = nn.ZeroPad2d((0, 1, 0, 1))  # right and bottom only, as TensorFlow's SAME
            return ResampleConv(padding, width, width, stride=2, padding=0)

        def double(width: int) -> nn.Module:
            nearest = nn.Upsample(scale_factor=2.0)
            if resample == "block":
                return block(width, width, nearest)
            return ResampleConv(nearest, width, width)

        hidden = 4 * embedding_channels
        self.embedding = SinusoidalEmbedding(embedding_channels, embedding, frequency_shift)
        self.embedding_mlp = embedding_mlp(embedding_channels, hidden, nn.SiLU())
        self.label_embedding = label_table(classes, null_label, hidden)
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)

        self.down, skips = nn.ModuleList(), [channels]
        for level, width in enumerate(widths):
            for _ in range(blocks):
                self.down.append(row(skips[-1], level, attention))
                skips.append(width)
            if level < len(widths) - 1:
                self.down.append(nn.ModuleList([halve(width)]))
                skips.append(width)
        bottom = inputs = widths[-1]
        middle = [block(bottom, bottom), attend(bottom, groups=middle_groups)]
        self.middle = nn.ModuleList([*middle, block(bottom, bottom)])
        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                layers = row(inputs + skips.pop(), level, up_attention)
                self.up.append(layers)
                inputs = width
            if level > 0:
                layers.append(double(width))
        self.norm_out = nn.GroupNorm(groups, widths[0], eps=norm_eps)
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)
        # One layer for the projections of all blocks, so that `condition` runs outside the loop.
        self.projection_sizes = [b.projection_size for b in self.residual_blocks().values()]
        self.projections = nn.Linear(hidden, sum(self.projection_sizes))
        self.reset_parameters()

    def residual_blocks(self) -> dict[str, ResidualBlock]:
        """Return the residual blocks by name, in the order of running and of the projections."""
        return modules_of_kind(self, ResidualBlock)

    def reset_parameters(self) -> None:
        """Initialize all parameters as DDPM does, and labels by a standard normal."""
        ends = [*(block.conv2 for block in self.residual_blocks().values()), self.conv_out]
        reset_as_ddpm(self, self.projections.weight.split(self.projection_sizes), ends)
        if self.label_embedding is not None:
            nn.init.normal_(self.label_embedding.weight)

    def condition(self, cond: Tensor, label: Tensor | None = None) -> Tensor:
        """Map cond [R], timesteps, to the projections of all residual blocks, [R, C].

        Only a network with classes takes label, int64 [R].
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


def _run(row: nn.Module, h: Tensor, projections: Iterator[Tensor]) -> Tensor:
    for module in row.children():
        h = module(h, next(projections)) if isinstance(module, ResidualBlock) else module(h)
    return h


def _widths(channels: int, multipliers: Sequence[float]) -> list[int]:
    """Return the width of each level; UsageError if one is not whole, except for rounding."""
    widths = [round(channels * multiplier) for multiplier in multipliers]
    for width, multiplier in zip(widths, multipliers, strict=True):
        if abs(width - channels * multiplier) > _WHOLE * width:
            raise UsageError(
                f"multiplier {multiplier} makes {channels * multiplier:g} channels of {channels}",
                "choose one that makes a whole number",
            )
    return widths
