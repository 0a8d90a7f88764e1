"""The step module: a network with the row around it. Every exported target is made from it."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from difftool.diffusion.columns import Column
from difftool.diffusion.features import Feature
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError, quoted


class StepModule(nn.Module):
    """One row of a program, for a batch whose samples may stand at different rows; for inference.

    See `difftool.diffusion.program` for the arithmetic. The table is an input, so one graph serves
    every sampler and every number of steps. `features` are computations that the graph adds to the
    plain row; the graph has no other extras. Without Feature.GUIDANCE, row may be int64 [1] if all
    samples stand at the same row. The shape of `row` in an ONNX file tells if it takes that.

    in:  x [N, *S], history [K, N, *S], row int64 [N], noise [N, *S], table [R, Column.HISTORY + K],
         cond_table [U, C], the conditioner's output for a program's distinct conds;
         with Feature.KNOWN also known [N, *S] and mask [N, *S], 1 where known replaces D
    out: x_next [N, *S], history_next [K, N, *S], row_next int64 [N], denoised [N, *S]
    """

    OUTPUTS = ("x_next", "history_next", "row_next", "denoised")

    def __init__(
        self, network: nn.Module, spec: ModelSpec, features: Collection[Feature | str] = ()
    ) -> None:
        super().__init__()
        self.network, self.spec = network, spec
        self.features = known_features(features)
        self._ones = (1,) * (len(spec.shape) - 1)
        self._spread = (..., *[None] * len(spec.shape))  # [K, N] -> [K, N, 1, ...]
        self.eval()

    def forward(
        self,
        x: Tensor,
        history: Tensor,
        row: Tensor,
        noise: Tensor,
        table: Tensor,
        cond_table: Tensor,
        known: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = table.index_select(0, row)
        fixed = values[:, : Column.HISTORY].reshape(-1, int(Column.HISTORY), *self._ones)
        column = torch.split(fixed, 1, dim=1)

        network = self._evaluate(column[Column.C_IN] * x, values, cond_table, column)
        spread = column[Column.D]
        if self.spec.learned_variance:
            network, fraction = torch.chunk(network, 2, dim=1)
            low, high = column[Column.LOGVAR_MIN], column[Column.LOGVAR_MAX]
            spread = spread * torch.exp(0.5 * (low + (fraction + 1) / 2 * (high - low)))
        denoised = column[Column.C_SKIP] * x + column[Column.C_OUT] * network
        denoised = torch.clamp(denoised, column[Column.CLIP_LOW], column[Column.CLIP_HIGH])
        if known is not None and mask is not None:
            denoised = mask * known + (1 - mask) * denoised

        weights = values[:, Column.HISTORY :].transpose(0, 1)[self._spread]
        drifted = (
            column[Column.A] * x
            + column[Column.B] * denoised
            + column[Column.G] * network
            + (weights * history).sum(0)
        )
        fresh = spread * noise
        x_next = drifted + fresh
        if Feature.NORMS in self.features:
            own, shared = column[Column.SNR], column[Column.BATCH_SNR]
            adapted = _adaptive(x, drifted - x, fresh, own, shared)
            x_next = torch.where(own + shared > 0, adapted, x_next)
        pushed = column[Column.E] * x + column[Column.F] * denoised
        history_next = torch.cat([pushed.unsqueeze(0), history[:-1]])
        return x_next, history_next, row + 1, denoised

    def _evaluate(
        self, x: Tensor, values: Tensor, cond_table: Tensor, column: tuple[Tensor, ...]
    ) -> Tensor:
        """Return F; with Feature.GUIDANCE, run both conds at once, as a doubled batch."""
        cond = values[:, Column.COND].to(torch.int64)
        if Feature.GUIDANCE not in self.features:
            return self.network(x, cond_table.index_select(0, cond))
        null = values[:, Column.NULL_COND].to(torch.int64)
        both = self.network(torch.cat([x, x]), cond_table.index_select(0, torch.cat([cond, null])))
        # torch.chunk would fix the batch to that of the example inputs.
        wanted, unconditional = both.unflatten(0, (2, -1)).unbind()
        guided = unconditional + column[Column.GUIDANCE] * (wanted - unconditional)
        if not self.spec.learned_variance:
            return guided
        return torch.cat(
            [torch.chunk(guided, 2, dim=1)[0], torch.chunk(wanted, 2, dim=1)[1]], dim=1
        )


def known_features(names: Collection[Feature | str]) -> frozenset[Feature]:
    """Return features by their names; UsageError for an unknown name."""
    for name in names:
        if name not in list(Feature):
            raise UsageError(f"unknown feature {quoted(name)}", f"one of: {', '.join(Feature)}")
    return frozenset(Feature(name) for name in names)


class Conditioner(nn.Module):
    """The part of a network that depends only on the noise level and the label.

    cond [U], and int64 label [U] of a network with classes -> cond_table [U, C].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, cond: Tensor, label: Tensor | None = None) -> Tensor:
        inputs = (cond,) if label is None else (cond, label)
        table: Tensor = self.network.condition(*inputs)  # type: ignore[operator]
        return table


def _adaptive(x: Tensor, drift: Tensor, fresh: Tensor, own: Tensor, shared: Tensor) -> Tensor:
    """Return x + r^2 * drift + r * fresh; r is the snr times the ratio of the norms."""
    axes = tuple(range(1, x.ndim))
    drifts = torch.linalg.vector_norm(drift, dim=axes, keepdim=True)
    noises = torch.linalg.vector_norm(fresh, dim=axes, keepdim=True)
    tiny = torch.finfo(x.dtype).tiny  # keeps the step finite if the drift is zero
    ratio = own * noises / drifts.clamp_min(tiny)
    ratio = ratio + shared * noises.mean(0, keepdim=True) / drifts.mean(0, keepdim=True).clamp_min(
        tiny
    )
    return x + ratio**2 * drift + ratio * fresh
