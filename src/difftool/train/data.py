"""Training data as tensors: choose and prepare the items of a step."""

import re
from dataclasses import dataclass
from typing import Final

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from difftool import data
from difftool.data import Items
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.train import draws
from difftool.train.config import DataConfig, TrainConfig

# The arguments of `difftool.data.load`, as errors name them; here they are settings.
_ARGUMENT: Final = re.compile(r"`(column|labels|mode|size|split)(?=[`=])")


@dataclass(frozen=True)
class Data:
    """The data of a training, and the preparation of its batches.

    `items` are uint8 [N, C, H, W] or float32 [N, D], as they are stored; `labels` are int64 [N] in
    0 .. `classes` - 1, or None; `names` and `sha256` are those of `difftool.data.Items`.
    """

    items: Tensor
    flip: bool = False
    dequantize: bool = False
    labels: Tensor | None = None
    classes: int = 0
    sha256: str = ""
    names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Return one sample's shape [*S]."""
        return tuple(self.items.shape[1:])

    def batch(
        self, spec: ModelSpec, seed: int, step: int, batch: int, slots: draws.Indices
    ) -> tuple[Tensor, Tensor | None]:
        """Return the clean samples x0 of a step, and their labels int64 [slots] or None.

        x0 is float32 [slots, *S], scaled to the spec's data range.
        """
        indices = torch.from_numpy(data.batch_indices(seed, step, batch, slots, len(self.items)))
        x = self.items[indices]
        if self.flip:
            mirrored = draws.flips(seed, step, slots).view(-1, 1, 1, 1)
            x = torch.where(mirrored, x.flip(-1), x)
        dither = None
        if self.dequantize and x.dtype == torch.uint8:
            dither = draws.dither(seed, step, slots, self.shape).numpy()
        x0 = torch.from_numpy(data.prepared(x.numpy(), spec.data_range, dither))
        return x0, None if self.labels is None else self.labels[indices]


def load_data(config: DataConfig, seed: int) -> Data:
    """Load the data that `config` names; it raises as `difftool.data.load` does."""
    try:
        items = data.load(**config.model_dump(exclude={"flip", "dequantize"}), seed=seed)
    except UsageError as error:
        message, hint = (_ARGUMENT.sub(r"`data.\1", text) for text in (error.message, error.hint))
        raise UsageError(message, hint) from error
    return _as_data(config, items)


def given_data(config: TrainConfig, given: ArrayLike | Items) -> tuple[TrainConfig, Data]:
    """Take an array, or what `difftool.data.from_array` made, in place of `config.data.source`.

    Return the configuration that says so, and the data. It raises as `from_array` does, and if
    the configuration asks for labels and there are none.
    """
    items = given if isinstance(given, Items) else data.from_array(given)
    if config.data.labels is not None and items.labels is None:
        raise UsageError(
            f"`data.labels={config.data.labels}`, and the array has no labels",
            "give difftool.data.from_array(values, labels=...) as `data`",
        )
    labels = None if items.labels is None else config.data.labels or "label"
    said = DataConfig(
        source=data.ARRAY,
        labels=labels,
        flip=config.data.flip,
        dequantize=config.data.dequantize,
    )
    return config.model_copy(update={"data": said}), _as_data(said, items)


def _as_data(config: DataConfig, items: Items) -> Data:
    images = items.values.ndim == 4
    return Data(
        torch.from_numpy(items.values),
        config.flip and images,
        config.dequantize and images,
        None if items.labels is None else torch.from_numpy(items.labels),
        items.classes,
        items.sha256,
        items.names,
    )
