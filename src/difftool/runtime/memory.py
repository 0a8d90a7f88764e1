"""Out of memory, in whatever words a library puts it, as one error that says what to try."""

from difftool.errors import ResourceError
from difftool.errors import is_out_of_memory as is_out_of_memory


def no_memory(size: int) -> ResourceError:
    """The error of a batch of `size` for which memory is short."""
    if size == 1:
        return ResourceError("no memory for a batch of 1", "free memory, or use a smaller model")
    return ResourceError(f"no memory for a batch of {size}", f"try max_batch {size // 2}")


def no_memory_for_model(name: object) -> ResourceError:
    """The error of a model for which memory is short before there is a batch."""
    return ResourceError(f"no memory to open {name}", "free memory, or use a smaller model")
