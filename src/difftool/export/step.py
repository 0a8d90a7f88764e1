"""The step graph: a network and the fused row around it, written once for every target."""

import torch
from torch import Tensor, nn

from difftool.diffusion.columns import Column


class StepModule(nn.Module):
    """One row of a program, for a batch whose samples may stand at different rows.

    See `difftool.diffusion.program` for the arithmetic. The table is an input, so one graph serves
    every sampler and every number of steps.

    in:  x [N, *S], history [K, N, *S], row int64 [N], noise [N, *S], table [R, Column.HISTORY + K],
         cond_table [U, C], the conditioner's output for a program's distinct conds
    out: x_next [N, *S], history_next [K, N, *S], row_next int64 [N], denoised [N, *S]
    """

    INPUTS = ("x", "history", "row", "noise", "table", "cond_table")
    OUTPUTS = ("x_next", "history_next", "row_next", "denoised")

    def __init__(self, network: nn.Module, *, dimensions: int, learned_variance: bool) -> None:
        super().__init__()
        self.network = network
        self._ones = (1,) * (dimensions - 1)
        self._spread = (..., *[None] * dimensions)  # [K, N] -> [K, N, 1, ...]
        self._learned_variance = learned_variance

    def forward(
        self,
        x: Tensor,
        history: Tensor,
        row: Tensor,
        noise: Tensor,
        table: Tensor,
        cond_table: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = table[row]
        fixed = values[:, : Column.HISTORY].reshape(-1, int(Column.HISTORY), *self._ones)
        column = torch.split(fixed, 1, dim=1)
        cond = cond_table[values[:, Column.COND].to(torch.int64)]

        network = self.network(column[Column.C_IN] * x, cond)
        spread = column[Column.D]
        if self._learned_variance:
            network, fraction = torch.chunk(network, 2, dim=1)
            low, high = column[Column.LOGVAR_MIN], column[Column.LOGVAR_MAX]
            spread = spread * torch.exp(0.5 * (low + (fraction + 1) / 2 * (high - low)))
        denoised = column[Column.C_SKIP] * x + column[Column.C_OUT] * network
        denoised = torch.clamp(denoised, column[Column.CLIP_LOW], column[Column.CLIP_HIGH])

        weights = values[:, Column.HISTORY :].transpose(0, 1)[self._spread]
        x_next = (
            column[Column.A] * x
            + column[Column.B] * denoised
            + column[Column.G] * network
            + (weights * history).sum(0)
            + spread * noise
        )
        pushed = column[Column.E] * x + column[Column.F] * denoised
        history_next = torch.cat([pushed.unsqueeze(0), history[:-1]])
        return x_next, history_next, row + 1, denoised


class Conditioner(nn.Module):
    """What of a network depends on the noise level alone: cond [U] -> cond_table [U, C]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, cond: Tensor) -> Tensor:
        table: Tensor = self.network.condition(cond)  # type: ignore[operator]
        return table
