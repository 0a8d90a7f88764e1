"""NCSN++ and DDPM++ (Song et al. 2021, appendix H): the networks of score-based SDEs."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from difftool.networks.checks import (
    MOST_LAYERS,
    check_at_least,
    check_at_most,
    check_choice,
    check_levels,
)
from difftool.networks.ncsnpp_layers import (
    RESCALE,
    FourierEmbedding,
    OutputHead,
    Parts,
    ResidualBlock,
)
from difftool.networks.unet_layers import (
    SelfAttention,
    SinusoidalEmbedding,
    embedding_mlp,
    modules_of_kind,
    reset_as_ddpm,
)

EMBEDDINGS = ("fourier", "positional")
RESAMPLINGS = ("block", "conv")
INPUTS = ("none", "input_skip", "residual")
OUTPUTS = ("none", "output_skip", "residual")
COMBINATIONS = ("sum", "cat")


class DownLevel(nn.Module):
    """A resolution on the way down; its parts are registered in the order in which they run."""

    def __init__(
        self, rows: nn.ModuleList, change: nn.Module | None = None, pyramid: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.rows, self.change, self.pyramid = rows, change, pyramid


class UpLevel(nn.Module):
    """A resolution on the way up; its parts are registered in the order in which they run."""

    def __init__(self, rows: nn.ModuleList, pyramid: nn.Module, change: nn.Module | None) -> None:
        super().__init__()
        self.rows, self.pyramid, self.change = rows, pyramid, change


class NCSNpp(nn.Module):
    """NCSN++ or DDPM++: x [N, in_channels, H, W] -> [N, in_channels, H, W].

    H and W must be divisible by 2**(len(multipliers) - 1). The published score networks divide
    their output by sigma; here the parameterization "scaled_score" does that. The defaults are
    NCSN++ for 32 pixels.

    Args:
        channels: width of the first level; level i has `channels * multipliers[i]`.
        blocks: residual blocks per level on the way down; there is one more on the way up.
        attention: levels with self-attention, 0 being full resolution: after every block on the
            way down, and after the last on the way up. The middle always has it.
        head_channels: width of an attention head; one head by default.
        resample: the change between levels, a residual "block" (BigGAN's) or a "conv" (DDPM's).
        fir: resample with the filter (1, 3, 3, 1); otherwise with means of 2x2 pixels and nearest
            neighbours.
        rescale: divide sums of two branches by sqrt(2).
        input_pyramid: the input's way into every level: "none", "input_skip" or "residual".
        combine: "sum" adds an input skip to the features, "cat" concatenates it.
        output_pyramid: every level's way into the output: "none", "output_skip" or "residual".
        embedding: "fourier", if cond is log(sigma) / 4, or "positional" (DDPM's), if it is a
            timestep or a level.
        centered: x is symmetric around 0 already; otherwise it is in [0, 1] and the network centers
            it.

    Raises:
        UsageError: the arguments do not fit each other.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 4,
        attention: Sequence[int] = (1,),
        head_channels: int | None = None,
        resample: str = "block",
        fir: bool = True,
        rescale: bool = True,
        input_pyramid: str = "residual",
        combine: str = "sum",
        output_pyramid: str = "none",
        embedding: str = "fourier",
        centered: bool = False,
    ) -> None:
        super().__init__()
        check_choice("resample", resample, RESAMPLINGS)
        check_choice("input_pyramid", input_pyramid, INPUTS)
        check_choice("combine", combine, COMBINATIONS)
        check_choice("output_pyramid", output_pyramid, OUTPUTS)
        check_choice("embedding", embedding, EMBEDDINGS)
        check_at_least(1, "in_channels", in_channels)
        check_at_least(1, "blocks", blocks)
        check_at_most(MOST_LAYERS, "blocks", blocks)
        check_levels(multipliers, "attention", attention)
        for multiplier in multipliers:
            check_at_least(1, "a multiplier", multiplier)

        parts = Parts(
            in_channels=in_channels,
            head_channels=head_channels,
            resample=resample,
            fir=fir,
            rescale=rescale,
            input_pyramid=input_pyramid,
            combine=combine,
            output_pyramid=output_pyramid,
        )
        widths = [channels * multiplier for multiplier in multipliers]
        hidden = 4 * channels
        fourier = embedding == "fourier"
        self.centered = centered
        self.scale = RESCALE if rescale else 1.0
        self.embedding = (
            FourierEmbedding(channels) if fourier else SinusoidalEmbedding(channels, "sin_cos")
        )
        self.embedding_mlp = embedding_mlp(2 * channels if fourier else channels, hidden, nn.SiLU())
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.down, skips = _down_levels(parts, channels, widths, blocks, attention)
        bottom = skips[-1]
        self.middle = parts.row(bottom, bottom, attention=True)
        self.middle.extend(parts.row(bottom, bottom, attention=False))
        self.up = _up_levels(parts, skips, widths, blocks, attention)
        skips_only = output_pyramid == "output_skip"
        self.out = None if skips_only else OutputHead(widths[0], in_channels)
        self.projection_sizes = [b.projection_size for b in self.residual_blocks().values()]
        self.projections = nn.Linear(hidden, sum(self.projection_sizes))
        self.reset_parameters()

    def residual_blocks(self) -> dict[str, ResidualBlock]:
        """Return the residual blocks by name, in the order of running and of the projections."""
        return modules_of_kind(self, ResidualBlock)

    def reset_parameters(self) -> None:
        """Initialize all parameters as DDPM does."""
        ends = [block.conv2 for block in self.residual_blocks().values()]
        ends += [head.conv for head in modules_of_kind(self, OutputHead).values()]
        reset_as_ddpm(self, self.projections.weight.split(self.projection_sizes), ends)

    def condition(self, cond: Tensor) -> Tensor:
        """Map cond [R] to the projections of all residual blocks, [R, C]."""
        return self.projections(F.silu(self.embedding_mlp(self.embedding(cond))))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        projections = iter(c.split(self.projection_sizes, dim=1))
        x = x if self.centered else 2 * x - 1
        h = self.conv_in(x)
        skips, pyramid = [h], x
        for level in self.down:
            assert isinstance(level, DownLevel)
            for row in level.rows:
                h = self._run(row.children(), h, projections)
                skips.append(h)
            if level.change is not None and level.pyramid is not None:
                h = self._run([level.change], h, projections)
                pyramid, h = level.pyramid(pyramid, h)
                skips.append(h)
        h = self._run(self.middle.children(), h, projections)
        output: Tensor | None = None
        for level in self.up:
            assert isinstance(level, UpLevel)
            for row in level.rows:
                h = torch.cat((h, skips.pop()), dim=1)
                h = self._run(row.children(), h, projections)
            output, h = level.pyramid(output, h)
            if level.change is not None:
                h = self._run([level.change], h, projections)
        if self.out is not None:
            output = self.out(h)
        assert output is not None
        return output

    def _run(
        self, modules: Iterable[nn.Module], h: Tensor, projections: Iterator[Tensor]
    ) -> Tensor:
        for module in modules:
            if isinstance(module, ResidualBlock):
                h = module(h, next(projections))
            elif isinstance(module, SelfAttention):
                h = module(h) * self.scale
            else:
                h = module(h)
        return h


def _down_levels(
    parts: Parts, inputs: int, widths: Sequence[int], blocks: int, attention: Sequence[int]
) -> tuple[nn.ModuleList, list[int]]:
    """Make the levels on the way down; also return the widths of the skips to the way up."""
    levels, skips, pyramid = nn.ModuleList(), [inputs], parts.in_channels
    for level, width in enumerate(widths):
        rows = nn.ModuleList()
        for _ in range(blocks):
            rows.append(parts.row(skips[-1], width, attention=level in attention))
            skips.append(width)
        if level == len(widths) - 1:
            levels.append(DownLevel(rows))
            continue
        levels.append(DownLevel(rows, parts.down(width), parts.enter(pyramid, width)))
        joined = parts.input_pyramid == "input_skip" and parts.combine == "cat"
        skips.append(2 * width if joined else width)
        if parts.input_pyramid == "residual":
            pyramid = width
    return levels, skips


def _up_levels(
    parts: Parts, skips: Sequence[int], widths: Sequence[int], blocks: int, attention: Sequence[int]
) -> nn.ModuleList:
    levels, skips, inputs, below = nn.ModuleList(), list(skips), skips[-1], None
    for level, width in reversed(list(enumerate(widths))):
        rows = nn.ModuleList()
        for index in range(blocks + 1):
            last = index == blocks
            rows.append(
                parts.row(inputs + skips.pop(), width, attention=last and level in attention)
            )
            inputs = width
        change = parts.up(width) if level > 0 else None
        levels.append(UpLevel(rows, parts.leave(below, width), change))
        below = width
    return levels
