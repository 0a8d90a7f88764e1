"""Out of memory, in whatever words a library puts it, as one error that says what to try."""

from typing import Final

from difftool.errors import ResourceError

# Parts of what C++, ONNX Runtime, OpenVINO, oneDNN, PyTorch, CUDA and its libraries say of it.
_SIGNS: Final = (
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "out_of_memory",
    "outofmemory",
    "failed to allocate",
    "can't allocate",
    "cannot allocate",
    "could not allocate",
    "alloc_failed",
    "memory_allocation",
    "memoryallocation",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; libraries have no class for it in common."""
    said = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(sign in said for sign in _SIGNS)


def no_memory(size: int) -> ResourceError:
    """The error of a batch of `size` for which memory is short."""
    if size == 1:
        return ResourceError("no memory for a batch of 1", "free memory, or use a smaller model")
    return ResourceError(f"no memory for a batch of {size}", f"try max_batch {size // 2}")


def no_memory_for_model(name: object) -> ResourceError:
    """The error of a model for which memory is short before there is a batch."""
    return ResourceError(f"no memory to open {name}", "free memory, or use a smaller model")
