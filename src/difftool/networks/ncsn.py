"""The noise-conditional score networks: NCSN (Song & Ermon 2019) and NCSNv2 (Song & Ermon 2020)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from difftool.errors import UsageError
from difftool.networks.checks import MOST_LEVELS, check_at_least, check_at_most
from difftool.networks.refinenet import (
    ConditionalInstanceNormPlus,
    InstanceNormPlus,
    NoNorm,
    RefineNet,
)

NCSN_MULTIPLIERS = (1, 2, 2, 2)


class NCSN(nn.Module):
    """NCSN's conditional RefineNet: x [N, in_channels, H, W] -> the score, same shape.

    H and W must be even.

    Args:
        levels: number of noise levels; cond is an index below it.
        channels: width of the first stage; the others have twice that.
        centered: x is symmetric around 0 already; otherwise it is in [0, 1] and the network centers
            it.
    """

    def __init__(
        self, *, in_channels: int, levels: int, channels: int = 128, centered: bool = False
    ) -> None:
        super().__init__()
        check_at_least(1, "in_channels", in_channels)
        check_at_least(1, "levels", levels)
        check_at_least(2, "channels", channels)  # InstanceNorm++ compares channels
        self.centered = centered
        self.sizes: list[int] = []  # of the parts of c, three for each norm

        def norm(channels: int) -> ConditionalInstanceNormPlus:
            first = len(self.sizes)
            self.sizes += [channels] * 3
            return ConditionalInstanceNormPlus(channels, first)

        self.net = RefineNet(
            in_channels,
            channels,
            NCSN_MULTIPLIERS,
            norm=norm,
            inner_norm=norm,
            pool=nn.AvgPool2d(5, stride=1, padding=2),
        )
        self.norms = nn.Embedding(levels, sum(self.sizes))
        self.reset_norms()

    @torch.no_grad()
    def reset_norms(self) -> None:
        """Set gamma and alpha near 1 and beta to 0, as published."""
        self.norms.weight.normal_(1, 0.02)
        for beta in self.norms.weight.split(self.sizes, dim=1)[2::3]:
            beta.zero_()

    def condition(self, cond: Tensor) -> Tensor:
        """Map cond [R], level indices, to all norms' (gamma, alpha, beta), concatenated, [R, C]."""
        return self.norms(cond.long())

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.net(x if self.centered else 2 * x - 1, c.split(self.sizes, dim=1))


class NCSNv2(nn.Module):
    """NCSNv2's unconditional RefineNet: x [N, in_channels, H, W] -> sigma * score, same shape.

    It never sees the noise level. The parameterization "scaled_score" divides by sigma. H and W
    must be divisible by 2**(len(multipliers) - 3).

    Args:
        channels: width of the first stage.
        multipliers: widths of the stages, relative to `channels`. The default is the published
            network for 32 pixels; (1, 2, 2, 4, 4) is "Deeper", and (1, 2, 2, 2, 4, 4) "Deepest".
        centered: x is symmetric around 0 already; otherwise it is in [0, 1] and the network centers
            it.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int = 128,
        multipliers: Sequence[int] = NCSN_MULTIPLIERS,
        centered: bool = False,
    ) -> None:
        super().__init__()
        check_at_least(1, "in_channels", in_channels)
        check_at_least(2, "channels", channels)  # InstanceNorm++ compares channels
        if len(multipliers) < 3 or multipliers[0] != 1 or min(multipliers) < 1:
            raise UsageError(
                f"multipliers is {list(multipliers)}", "give at least three, the first being 1"
            )
        check_at_most(MOST_LEVELS, "the number of multipliers", len(multipliers))
        self.centered = centered
        self.net = RefineNet(
            in_channels,
            channels,
            multipliers,
            norm=InstanceNormPlus,
            inner_norm=NoNorm,
            pool=nn.MaxPool2d(5, stride=1, padding=2),
        )

    def condition(self, cond: Tensor) -> Tensor:
        """Map cond [R] to nothing, [R, 0]."""
        return cond.new_zeros(cond.shape[0], 0)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.net(x if self.centered else 2 * x - 1, ())
