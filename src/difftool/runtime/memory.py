"""Memory that runs out, in whatever words a library says it, as one error with a way out."""

import math
from collections.abc import Sequence
from typing import Final

from difftool.errors import ArtefactError, DifftoolError, ResourceError, is_out_of_memory

# What fits into the cache: so many numbers, and so many samples, since a network is wider than its
# points.
_BATCH_ELEMENTS: Final = 1 << 14
_BATCH_SAMPLES: Final = 1 << 10


def no_memory(size: int) -> ResourceError:
    """Return the error of a batch of `size` that finds too little memory."""
    if size == 1:
        return ResourceError("no memory for a batch of 1", "free memory, or use a smaller model")
    return ResourceError(f"no memory for a batch of {size}", f"try max_batch {size // 2}")


def no_memory_for_samples(n: int) -> ResourceError:
    """Return the error of a result of `n` samples that finds too little memory."""
    return ResourceError(f"no memory for {n} samples", f"draw {max(1, n // 2)} at a time")


def no_memory_for_model(name: object) -> ResourceError:
    """Return the error of a model that finds too little memory before there is a batch."""
    return ResourceError(f"no memory to open {name}", "free memory, or use a smaller model")


def cached_batch(shape: Sequence[int]) -> int:
    """Return how many samples of a shape stay in a CPU's cache as they run."""
    return min(max(1, _BATCH_ELEMENTS // math.prod(shape)), _BATCH_SAMPLES)


def library_error(
    error: Exception, memory: ResourceError, otherwise: ArtefactError
) -> DifftoolError:
    """Return our error for one of a library: `memory` if memory ran out, or else `otherwise`."""
    return memory if is_out_of_memory(error) else otherwise
