"""difftool doctor: show what is installed, and check that it works."""

import os
import platform
import time
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final

from typer import Argument, Exit

from difftool.cli import options
from difftool.cli.checkup import checkup
from difftool.cli.console import is_verbose, report
from difftool.cli.versions import MAKING, RUNTIME, needed_by, versions
from difftool.errors import (
    CheckFailed,
    DifftoolError,
    MissingDependencyError,
    first_line,
    install_hint,
)

if TYPE_CHECKING:
    from difftool.bundle import Bundle
    from difftool.runtime import BackendEntry

EXAMPLES = """\b
Examples:
  difftool doctor
  difftool doctor runs/mnist/bundle --json
"""

_TIMED_STEPS: Final = 3


def doctor(
    model: Annotated[
        str, Argument(metavar="MODEL", help="Bundle or shipped model to run a step of.")
    ] = options.DEFAULT_MODEL,
    device: options.Device = 0,
    json: options.Json = False,
) -> None:
    """Check the installation, with a real step on every backend.

    Shows for each backend its version and the time of a step, or why it cannot be used and what to
    do about that; and if PyTorch works, which trains and exports. With --verbose or --json also
    precisions, threads, all versions and digests: `automatic` are the precisions in which a backend
    may run if none is named, and `chosen` is the one that then runs fp32. Exit code 1 if something
    that is installed does not work; a missing package does not count.
    """
    from difftool.runtime import too_old_driver

    problems: list[str] = []
    rows = _rows(problems)
    affinity = getattr(os, "sched_getaffinity", None)  # only Linux tells what this process may use
    machine = {
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "usable_cores": len(affinity(0)) if affinity else os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        **({"nvidia_driver": old} if (old := too_old_driver()) else {}),
    }
    record = {
        "versions": versions([*RUNTIME, *MAKING, *needed_by(rows.values())]),
        "machine": machine,
        "onnxruntime_providers": _providers(),
        "models": _models(problems),
        **_backends(model, rows, device, problems),
        "torch": _torch(problems),
        "problems": problems,
    }
    if json or is_verbose():
        report(record, as_json=json)
    else:
        print("\n".join(checkup(record, rows)))
    if problems:
        raise Exit(1)


def _rows(problems: list[str]) -> "dict[str, BackendEntry]":
    """Return the table of backends by name, without those whose package fails to load."""
    from difftool.runtime import backend_names, find_backend

    rows = {}
    for name in backend_names():
        try:
            rows[name] = find_backend(name)
        except MissingDependencyError as error:
            problems.append(str(error))
    return rows


def _providers() -> list[str]:
    from difftool.alone import onnx_runtime

    try:
        return list(onnx_runtime().get_available_providers())
    except MissingDependencyError:
        return []


def _models(problems: list[str]) -> dict[str, Any]:
    """Return each shipped model's size, and the digest of its manifest, which lists all others."""
    from difftool.bundle import MANIFEST
    from difftool.files import file_sha256
    from difftool.runtime import open_bundle, shipped_models

    models: dict[str, Any] = {}
    for name in shipped_models():
        try:
            bundle = open_bundle(name)
        except DifftoolError as error:
            problems.append(f"model {name}: {error}")
            continue
        size = sum(entry.size for entry in bundle.manifest.files.values())
        models[name] = {"bytes": size, "sha256": file_sha256(bundle.path / MANIFEST)}
    if not models:
        problems.append("every shipped model is damaged or missing: install difftool again")
    return models


def _backends(
    model: str, rows: "Mapping[str, BackendEntry]", device: int, problems: list[str]
) -> dict[str, Any]:
    """Return the state of each backend, and the one chosen by default: the first that works."""
    from difftool.runtime import open_bundle

    try:
        bundle = open_bundle(model)
    except DifftoolError as error:
        if model != options.DEFAULT_MODEL:
            raise  # the name is wrong, and not the installation
        problems.append(f"no backend was tried: {error}")
        return {"backends": {}, "chosen": None}
    backends: dict[str, Any] = {}
    for name, row in rows.items():
        state = f"only by name, since it {row.untried}: --backend {name}"
        found: dict[str, Any] = {"step_ms": None}
        try:
            if not row.untried:
                found = _step(bundle, name, device if row.numbered else 0)
                state = "works"
        except MissingDependencyError as error:
            state = str(error)
            if reason := _broken_import(error, row):
                state = "broken"
                problems.append(f"backend {name}: {reason}")
        except Exception as error:  # a backend can fail in any way, and the doctor reports it
            state = "broken"
            problems.append(f"backend {name}: {error}")
        backends[name] = {
            "state": state,
            **found,
            "automatic": list(row.automatic),
            "precisions": list(row.precisions),
        }
    working = [row for name, row in rows.items() if backends[name]["state"] == "works"]
    able = (row for row in working if row.numbered or device == 0)
    chosen = next((row.name for row in able if "fp32" in row.automatic), None)
    if chosen is None:
        here = f"on GPU {device}" if device else f"by default; {install_hint('cpu')}"
        problems.append(f"no backend works {here}")
    return {"backends": backends, "chosen": chosen}


def _torch(problems: list[str]) -> dict[str, Any]:
    """Return if PyTorch, with which models are trained and exported, computes a gradient here."""
    try:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        x = torch.ones(2, 2, device=device, requires_grad=True)
        (x @ x).sum().backward()
        if x.grad is None or x.grad.flatten().tolist() != [4.0] * 4:
            raise CheckFailed("the gradient of a product is wrong")
    except Exception as error:  # a broken installation can fail in any way
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            return {"state": f"not installed: {install_hint('train')}"}
        problems.append(f"torch: {first_line(error)} (install it again)")
        return {"state": "broken"}
    return {"state": "works", "version": torch.__version__, "device": device}


def _broken_import(error: MissingDependencyError, row: "BackendEntry") -> str:
    """Return why an installed package cannot be imported; "" if it is just not installed."""
    cause = error.__cause__
    if not isinstance(cause, ImportError):
        return ""
    # "onnxruntime-gpu" is imported as onnxruntime, and "cuda-core" as cuda.core.
    ours = {word for package in row.packages for word in (package.split("-")[0], package)}
    missing = str(cause.name).partition(".")[0]
    if isinstance(cause, ModuleNotFoundError) and missing.replace("_", "-") in ours:
        return ""
    return f"it is installed, and cannot be imported: {first_line(cause)} (install it again)"


def _step(bundle: "Bundle", backend: str, device: int) -> dict[str, Any]:
    """Return the milliseconds of the fastest of a few steps, and the GPU that ran them.

    CheckFailed if the sample is not finite.
    """
    import numpy as np

    from difftool.runtime import load, on_device

    seconds = []
    model = load(bundle.path, backend=backend, device=device)
    begin = time.perf_counter()
    for state in islice(model.stream(n=1), _TIMED_STEPS):
        seconds.append(time.perf_counter() - begin)
        if not np.isfinite(state.x).all():
            raise CheckFailed(
                f"step {state.step} gives numbers that are not finite", "run: difftool verify"
            )
        begin = time.perf_counter()
    return {"step_ms": 1000 * min(seconds), **on_device(model.backend)}
