"""The description of a format, and of a model imported from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.spec import ModelSpec
from difftool.importers.settings import Chosen, Settings
from difftool.importers.source import Source


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A model that was read from someone else's files, ready to be written as a checkpoint.

    - `network`: the call that builds the network; `tensors` fit its state
    - `sampler`: the call that makes the default program, as near as possible to the authors' own
    - `weights`: "ema" if the source has a moving average as well, which is then taken; "raw" if
      there is one set of weights
    - `chosen`: the settings that the tensors do not tell
    - `files`: all files that were read
    - `notes`: other facts that a user should know
    - `largest_outputs`: the largest outputs of the network on one batch, at the least and the most
      noise; set by `check`
    """

    spec: ModelSpec
    network: NetworkCall
    tensors: Mapping[str, Tensor]
    sampler: SamplerCall
    weights: str
    chosen: Chosen
    files: tuple[Path, ...]
    step: int = 0
    notes: tuple[str, ...] = ()
    largest_outputs: tuple[float, float] | None = None

    @property
    def parameters(self) -> int:
        """Return the number of elements of all tensors."""
        return sum(tensor.numel() for tensor in self.tensors.values())


@dataclass(frozen=True)
class Format:
    """A public format.

    - `title`: the repositories that write it
    - `sign`: the structure by which it is recognized, in words
    - `recognizes`: tells if a source has it; looks at structure alone, never at file names, and
      raises nothing
    - `read`: reads a source that has it; DifftoolError if it cannot be imported
    """

    title: str
    sign: str
    recognizes: Callable[[Source], bool]
    read: Callable[[Source, Settings], Imported]
