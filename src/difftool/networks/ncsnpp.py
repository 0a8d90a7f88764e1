"""NCSN++ and DDPM++ (Song et al. 2021, appendix H): the networks of score-based SDEs."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

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
    InputSkip,
    NoPyramid,
    OutputHead,
    OutputSkip,
    OutputStart,
    ResidualBlock,
    ResidualPyramid,
    double,
    double_conv,
    group_count,
    halve,
    halve_conv,
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

        self.centered = centered
        self.scale = RESCALE if rescale else 1.0  # of sums of two branches
        block = partial(ResidualBlock, scale=self.scale)

        def row(inputs: int, width: int, *, attention: bool) -> nn.ModuleList:
            attend = partial(SelfAttention, heads=1, head_channels=head_channels, norm_eps=1e-6)
            attentions = [attend(width, groups=group_count(width))] if attention else []
            return nn.ModuleList([block(inputs, width), *attentions])

        def shrink(width: int) -> nn.Module:
            if resample == "block":
                return block(width, width, halve(width, fir=fir))
            return halve_conv(width, width, fir=fir)

        def grow(width: int) -> nn.Module:
            if resample == "block":
                return block(width, width, double(width, fir=fir))
            return double_conv(width, width, fir=fir)

        def enter(pyramid: int, width: int) -> nn.Module:
            """Make the part where an input pyramid of so many channels meets the features."""
            if input_pyramid == "input_skip":
                return InputSkip(pyramid, width, fir=fir, combine=combine)
            if input_pyramid == "residual":
                return ResidualPyramid(halve_conv(pyramid, width, fir=fir), self.scale)
            return NoPyramid()

        def leave(below: int | None, width: int) -> nn.Module:
            """Make the part where features enter the output pyramid, so far of width `below`."""
            if output_pyramid == "output_skip":
                return OutputSkip(width, in_channels, fir=fir)
            if output_pyramid == "residual" and below is not None:
                return ResidualPyramid(double_conv(below, width, fir=fir), self.scale)
            if output_pyramid == "residual":
                return OutputStart(width)
            return NoPyramid()

        widths = [channels * multiplier for multiplier in multipliers]
        hidden = 4 * channels
        fourier = embedding == "fourier"
        self.embedding = (
            FourierEmbedding(channels) if fourier else SinusoidalEmbedding(channels, "sin_cos")
        )
        self.embedding_mlp = embedding_mlp(2 * channels if fourier else channels, hidden, nn.SiLU())
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)

        # The parts of a level are registered in the order in which they run.
        self.down, skips, pyramid = nn.ModuleList(), [channels], in_channels
        joined = input_pyramid == "input_skip" and combine == "cat"
        for level, width in enumerate(widths):
            rows = nn.ModuleList()
            for _ in range(blocks):
                rows.append(row(skips[-1], width, attention=level in attention))
                skips.append(width)
            modules: dict[str, nn.Module] = {"rows": rows}
            if level < len(widths) - 1:
                modules |= {"change": shrink(width), "pyramid": enter(pyramid, width)}
                skips.append(2 * width if joined else width)
                pyramid = width if input_pyramid == "residual" else in_channels
            self.down.append(nn.ModuleDict(modules))
        bottom = inputs = skips[-1]
        self.middle = row(bottom, bottom, attention=True)
        self.middle.extend(row(bottom, bottom, attention=False))
        self.up = nn.ModuleList()
        below: int | None = None
        for level, width in reversed(list(enumerate(widths))):
            rows = nn.ModuleList()
            for index in range(blocks + 1):
                attend = index == blocks and level in attention
                rows.append(row(inputs + skips.pop(), width, attention=attend))
                inputs = width
            change = {"change": grow(width)} if level > 0 else {}
            pyramid_end = leave(below, width)
            self.up.append(nn.ModuleDict({"rows": rows, "pyramid": pyramid_end, **change}))
            below = width
        self.out = None if output_pyramid == "output_skip" else OutputHead(widths[0], in_channels)
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
            assert isinstance(level, nn.ModuleDict)
            for row in level["rows"].children():
                h = self._run(row.children(), h, projections)
                skips.append(h)
            if "change" in level:
                h = self._run([level["change"]], h, projections)
                pyramid, h = level["pyramid"](pyramid, h)
                skips.append(h)
        h = self._run(self.middle.children(), h, projections)
        output: Tensor | None = None
        for level in self.up:
            assert isinstance(level, nn.ModuleDict)
            for row in level["rows"].children():
                h = torch.cat((h, skips.pop()), dim=1)
                h = self._run(row.children(), h, projections)
            output, h = level["pyramid"](output, h)
            if "change" in level:
                h = self._run([level["change"]], h, projections)
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
