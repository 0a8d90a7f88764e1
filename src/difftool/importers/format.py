"""What a format is, and what importing from it gives."""

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

    - `network`: what `build_network` builds; `tensors` fit its state
    - `sampler`: makes the default program, as near to the authors' own as there is
    - `weights`: "ema" if the source keeps a moving average apart, which is then what is taken;
      "raw" if there is one set of weights
    - `chosen`: what the tensors do not tell, and how it was settled
    - `files`: all files that were read
    - `notes`: what else a user should know
    - `largest_outputs`: of the network on one batch, at the least and the most noise; set by the
      check that everything goes through
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
        """How many numbers the tensors hold."""
        return sum(tensor.numel() for tensor in self.tensors.values())


@dataclass(frozen=True)
class Format:
    """A public format: where it comes from, what it is recognized by, and how to read it.

    `recognizes` looks at structure alone, never at names of files, and raises nothing. `read`
    raises DifftoolError if a file is of the format and still cannot be imported.
    """

    title: str
    sign: str
    recognizes: Callable[[Source], bool]
    read: Callable[[Source, Settings], Imported]
