"""Open a bundle on the backend of a name, or on the first backend that works here."""

from collections.abc import Callable, Collection
from importlib import import_module
from typing import Final

from difftool.bundle import Bundle
from difftool.errors import MissingDependencyError, UsageError
from difftool.log import logger
from difftool.runtime.backends.table import BACKENDS, Asked, BackendEntry, find_backend
from difftool.runtime.cuda import cuda_device
from difftool.runtime.protocols import Backend

MOST_THREADS: Final = 1024  # ONNX Runtime starts them all, and takes minutes for many thousands
_log = logger(__name__)


def open_backend(
    bundle: Bundle,
    name: str | None,
    *,
    threads: int | None,
    precision: str = "fp32",
    trusted: Collection[str] = (),
) -> Backend:
    """Open a bundle on the backend `name`; "auto" or None takes the first automatic one that works.

    A backend that is named is never replaced by another. "tensorrt:fp16" names a backend and a
    precision in one word. `threads` are those of a CPU. `trusted` are the sha256 of engines and
    TorchScript made elsewhere that may run.

    Raises:
        MissingDependencyError: something that the backend needs is missing; says how to get it.
        UsageError: there is no backend of that name, it does not compute in that precision, or
            `threads` is not in 1 .. 1024.
        ArtefactError: the bundle has no graph of that precision.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"{threads} threads", f"use 1 to {MOST_THREADS}")
    kind, colon, named = ("auto" if name is None else name).partition(":")
    precision = named if colon else precision
    *others, last = _automatic(precision) if kind == "auto" else [find_backend(kind)]
    for entry in others:
        if entry.gpu and not cuda_device.has_driver():  # nothing for a GPU need be loaded
            continue
        try:
            return _open(bundle, entry, precision, threads, trusted)
        except MissingDependencyError as error:
            _log.info("not %s: %s", entry.name, error)
    return _open(bundle, last, precision, threads, trusted)


def _automatic(precision: str) -> list[BackendEntry]:
    """Return the rows to try, in order.

    Below float32 backends round differently, so that only the last is taken unasked: it needs the
    least.
    """
    rows = [row for row in BACKENDS if row.automatic and precision in row.precisions]
    if not rows:
        known = dict.fromkeys(known for row in BACKENDS for known in row.precisions)
        raise UsageError(f"unknown precision {precision!r}", f"one of: {', '.join(known)}")
    return rows if precision == "fp32" else rows[-1:]


def _open(
    bundle: Bundle,
    entry: BackendEntry,
    precision: str,
    threads: int | None,
    trusted: Collection[str],
) -> Backend:
    if precision not in entry.precisions:
        others = [row.name for row in BACKENDS if precision in row.precisions]
        whose = f"; {precision} is of {', '.join(others)}" if others else ""
        raise UsageError(
            f"{entry.name} has no {precision}",
            f"it computes in {', '.join(entry.precisions)}{whose}",
        )
    module, _, function = entry.opener.partition(":")
    opener: Callable[[Bundle, Asked], Backend] = getattr(import_module(module), function)
    asked = Asked(name=entry.name, precision=precision, threads=threads, trusted=trusted)
    return opener(bundle, asked)
