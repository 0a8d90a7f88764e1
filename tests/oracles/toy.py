"""A closed-form network, in PyTorch and in numpy, which takes labels and may learn variances."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn


class Toy(nn.Module):
    """The network for a step module; `wide` adds variance channels."""

    def __init__(self, *, wide: bool = False) -> None:
        super().__init__()
        self.wide = wide

    def condition(self, cond: Tensor, label: Tensor | None = None) -> Tensor:
        label = torch.zeros_like(cond) if label is None else label.to(cond.dtype)
        return torch.stack([cond / 20, label], dim=1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        cond, label = c.split(1, dim=1)
        noise = torch.tanh(x) + cond - 0.1 * label
        return torch.cat([noise, torch.sin(x + label)], dim=1) if self.wide else noise


def in_numpy(
    x: np.ndarray, cond: np.ndarray, label: np.ndarray | None = None, *, wide: bool = False
) -> np.ndarray:
    """The same as a function of x and the conds and labels of its samples."""
    cond = cond[:, None] / 20
    label = np.zeros_like(cond) if label is None else label[:, None]
    noise = np.tanh(x) + cond - 0.1 * label
    return np.concatenate([noise, np.sin(x + label)], axis=1) if wide else noise


wide_in_numpy = partial(in_numpy, wide=True)
