"""PyTorch in eager mode, the oracle that every other backend is verified against.

It can also run a compiled step module, as a peer in benchmarks.
"""

from collections.abc import Callable, Collection

import torch
from torch import nn

from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels, lay_out_rows
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.export.step import StepModule
from difftool.runtime.backends.prepare import Prepared, require_features
from difftool.runtime.backends.torchscript import Step, TorchBatch


class Eager:
    """A backend that runs the step module in PyTorch.

    `compiled` turns the module into the function that runs instead; see `difftool.verify.compiled`.
    The weights move to `device`.
    """

    name = "torch"

    def __init__(
        self,
        network: nn.Module,
        spec: ModelSpec,
        features: Collection[Feature] = (),
        *,
        device: str = "cpu",
        compiled: Callable[[StepModule], Step] | None = None,
    ) -> None:
        self.module = StepModule(network, spec, features).to(device)
        self.features = self.module.features
        self._step: Step = self.module if compiled is None else compiled(self.module)
        self._device = device

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> TorchBatch:
        """Return room for `size` samples of a program."""
        require_features(self.features, program, labels)
        rows = lay_out_rows(program, self.module.spec, size, labels)
        inputs = [torch.from_numpy(rows.conds).float().to(self._device)]
        if rows.labels is not None:
            inputs.append(torch.from_numpy(rows.labels).to(self._device))
        with torch.inference_mode():
            table = self.module.network.condition(*inputs).cpu().numpy()  # type: ignore[operator]
        begin = Prepared(rows, table, (size, *self.module.spec.shape))
        return TorchBatch(self._step, begin, self._device)
