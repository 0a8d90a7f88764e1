"""The loss of data that is not trained on."""

from dataclasses import replace
from typing import Final

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from difftool.data import ARRAY
from difftool.diffusion import noise
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.train import draws
from difftool.train.config import TrainConfig
from difftool.train.data import Data, load_data
from difftool.train.objective import Conditioned, Objective

_DIFFERENTIATED: Final = ("implicit", "sliced")  # losses that need gradients by x


def divided(config: TrainConfig, data: Data) -> tuple[Data, Data | None]:
    """Return the data to train on and the data to validate with, if that is wanted.

    UsageError if one of the two is empty, or a split is not of the data's kind.
    """
    wanted, seed = config.validation, config.run.seed
    if wanted.split is not None and config.data.source == ARRAY:
        raise UsageError(f"an array has no split {wanted.split}", "set validation.share instead")
    if wanted.split is not None:
        held = load_data(config.data.model_copy(update={"split": wanted.split}), seed)
        if held.sha256 == data.sha256:
            raise UsageError(
                f"validation.split {wanted.split} is the data to train on",
                "name another split of the data set, or set validation.share",
            )
        if held.shape != data.shape or held.classes > data.classes:
            raise UsageError(
                f"validation.split {wanted.split} has samples {list(held.shape)} of "
                f"{held.classes} classes, not {list(data.shape)} of {data.classes}",
                "name a split of the same kind, or set validation.share",
            )
        return data, replace(held, flip=False)
    if not wanted.share:
        return data, None
    size = len(data.items)
    count = round(wanted.share * size)
    if not 0 < count < size:
        raise UsageError(
            f"validation.share {wanted.share} of {size} samples is {count}",
            "hold out at least one sample, and leave one to train on",
        )
    drawn = noise.words(seed, noise.TRAIN_HELD_OUT, 0, np.arange(size), 1)[:, 0]
    order = np.argsort(drawn, kind="stable")
    kept, held_out = np.sort(order[count:]), np.sort(order[:count])
    return _part(data, kept), replace(_part(data, held_out), flip=False)


def _part(data: Data, indices: draws.Indices) -> Data:
    chosen = torch.from_numpy(indices)
    labels = None if data.labels is None else data.labels[chosen]
    return replace(data, items=data.items[chosen], labels=labels)


class Validation:
    """The mean loss of the same held-out samples at the same levels with the same noise each time.

    The network is the trained one and not its average, without dropout. Each process computes a
    part of the samples.
    """

    def __init__(
        self, config: TrainConfig, held: Data, spec: ModelSpec, accelerator: Accelerator
    ) -> None:
        self._config, self._held, self._spec = config, held, spec
        self._accelerator, self.every = accelerator, config.validation.every
        self._objective = Objective(config, spec, accelerator.device)
        self._count = min(config.validation.samples, len(held.items))

    def loss(self, network: nn.Module) -> float:
        """Return the loss; the network stays as it is."""
        run, accelerator = self._config.run, self._accelerator
        evaluate = Conditioned(network, run.precision)
        most = max(1, run.batch // (accelerator.num_processes * self._config.optimizer.accumulate))
        slots = np.arange(self._count)[accelerator.process_index :: accelerator.num_processes]
        training, total = network.training, 0.0
        network.eval()
        with torch.set_grad_enabled(self._config.loss.kind in _DIFFERENTIATED):
            for first in range(0, len(slots), most):
                part = slots[first : first + most]
                x0, labels = self._held.batch(self._spec, run.seed, 0, self._count, part)
                x0 = x0.to(accelerator.device)
                losses = self._objective(evaluate, x0, labels, 0, part)
                total += losses.detach().double().sum().item()
        network.train(training)
        summed = torch.tensor(total, dtype=torch.float64, device=accelerator.device)
        return float(accelerator.reduce(summed, reduction="sum").item()) / self._count
