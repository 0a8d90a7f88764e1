"""Open a bundle on the backend of a name, or on the first backend that works here."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
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

_NO_GPU = "there is no NVIDIA GPU here, or no driver for it"


def open_backend(
    bundle: Bundle,
    name: str | None,
    *,
    threads: int | None,
    precision: str = "fp32",
    device: int = 0,
    trusted: Collection[str] = (),
) -> Backend:
    """Open a bundle on the backend `name`; "auto" or None takes the first automatic one that works.

    A backend that is named is never replaced by another, and a precision or a device never at all.
    "tensorrt:fp16" names a backend and a precision in one word. `threads` are those of a CPU.
    `device` is the number of the GPU. `trusted` are the sha256 of engines and TorchScript made
    elsewhere that may run.

    Raises:
        MissingDependencyError: something that the backend needs is missing; says how to get it.
        UsageError: there is no backend of that name, it does not compute in that precision or has
            no such device, or `threads` is not in 1 .. 1024.
        ArtefactError: the bundle has no graph of that precision.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"{threads} threads", f"use 1 to {MOST_THREADS}")
    if device < 0:
        raise UsageError(f"device {device}", "devices are numbered from 0")
    kind, precision = split_name(name, precision)
    asked = Asked(name=kind, precision=precision, threads=threads, device=device, trusted=trusted)
    return _first_that_works(bundle, asked) if kind == "auto" else _open(bundle, asked)


def split_name(name: str | None, precision: str) -> tuple[str, str]:
    """Return backend and precision: a name such as "tensorrt:fp16" says both. None is "auto"."""
    kind, colon, named = ("auto" if name is None else name).partition(":")
    return kind, named if colon else precision


def _first_that_works(bundle: Bundle, asked: Asked) -> Backend:
    """Open the first row that is automatic in the precision, has the device, and works here."""
    rows, missing = _automatic(asked), dict[str, MissingDependencyError]()
    for entry in rows:
        if entry.gpu and not cuda_device.has_driver():  # nothing for a GPU need be loaded
            _log.info("not %s: %s", entry.name, _NO_GPU)
            continue
        try:
            opened = _open(bundle, replace(asked, name=entry.name))
        except MissingDependencyError as error:
            _log.info("not %s: %s", entry.name, error)
            missing[entry.name] = error
        else:
            _log.info("%s is the first backend that works in %s", entry.name, asked.precision)
            return opened
    # If the CPU was the last to try, how to get that is all there is to say.
    raise _no_gpu_works(asked, missing) if rows[-1].gpu else missing[rows[-1].name]


def _automatic(asked: Asked) -> list[BackendEntry]:
    """Return the rows to try, in order."""
    precision = asked.precision
    rows = [row for row in BACKENDS if precision in row.automatic]
    if not rows:
        known = dict.fromkeys(known for row in BACKENDS for known in row.precisions)
        raise UsageError(f"unknown precision {precision!r}", f"one of: {', '.join(known)}")
    found = [row for row in rows if row.numbered or asked.device == 0]
    if not found:
        raise UsageError(
            f"{precision} runs on the CPU, which is no device {asked.device}",
            "leave `device` out, or name a `backend` of GPUs",
        )
    return found


def _no_gpu_works(
    asked: Asked, missing: Mapping[str, MissingDependencyError]
) -> MissingDependencyError:
    """Return one error of all that the backends for GPUs miss; nobody asked for the CPU."""
    on_cpu = [row.name for row in BACKENDS if asked.precision in row.precisions and not row.gpu]
    if asked.device:
        otherwise = "for the first GPU, or the CPU, leave `device` out"
    elif on_cpu:
        otherwise = f"for the CPU name `backend={on_cpu[0]}`"
    else:
        otherwise = "choose `precision=fp32`"
    reasons = "; ".join(f"{name}: {error.message}" for name, error in missing.items()) or _NO_GPU
    hints = dict.fromkeys(error.hint for error in missing.values() if error.hint)
    return MissingDependencyError(
        f"no GPU runs {asked.precision}: {reasons}", "; or ".join([*hints, otherwise])
    )


def _open(bundle: Bundle, asked: Asked) -> Backend:
    entry, precision = find_backend(asked.name), asked.precision
    if precision not in entry.precisions:
        others = [row.name for row in BACKENDS if precision in row.precisions]
        whose = f"; {precision} is of {', '.join(others)}" if others else ""
        raise UsageError(
            f"{entry.name} has no {precision}",
            f"it computes in {', '.join(entry.precisions)}{whose}",
        )
    if asked.device and not entry.numbered:
        raise UsageError(
            f"{entry.name} has no device {asked.device}", "leave `device` out, or name a GPU's"
        )
    module, _, function = entry.opener.partition(":")
    opener: Callable[[Bundle, Asked], Backend] = getattr(import_module(module), function)
    return opener(bundle, asked)
