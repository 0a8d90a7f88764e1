"""Open the two sides that verification compares: two ways to run a bundle, by their names."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from difftool.bundle import Bounds, Bundle
from difftool.errors import ArtefactError, UsageError
from difftool.files import file_sha256
from difftool.runtime.backends.table import backend_names, find_backend
from difftool.runtime.comparison import BOUNDS
from difftool.runtime.opening import open_backend, split_name
from difftool.runtime.protocols import Backend

if TYPE_CHECKING:
    from difftool.networks.trained import Checkpoint

TORCH: Final = "torch"
"""The side that is the checkpoint's own network, in PyTorch."""
NUMPY: Final = "numpy"
EXACT: Final = "onnxruntime-cpu"
"""The side that is the reference if there is no checkpoint."""


@dataclass(frozen=True)
class Side:
    """An opened backend, and the precision that it computes in."""

    backend: Backend
    precision: str

    def __str__(self) -> str:
        name = self.backend.name
        return name if self.precision in name else f"{name} {self.precision}"


def open_sides(
    bundle: Bundle,
    checkpoint: Path | str | None = None,
    *,
    backend: str | None = None,
    precision: str = "fp32",
    against: str | None = None,
    against_precision: str = "fp32",
    device: int = 0,
    trusted: Collection[str] = (),
) -> tuple[Side, Side]:
    """Open the candidate, `backend`, and the reference, `against`.

    Each is a backend of the runtime, or "numpy", which runs the ONNX graph node by node, or
    "torch", which runs the checkpoint. `against` is by default torch if there is a checkpoint,
    and else step.onnx on ONNX Runtime. `device` is the number of the GPU, and the reference's too
    if that has devices. `trusted` are the sha256 of engines and TorchScript made elsewhere that may
    run.

    Raises:
        UsageError: both are the same, or the checkpoint is missing or not used by any side.
        ArtefactError: the bundle was exported from other weights.
    """
    against = against or (TORCH if checkpoint is not None else EXACT)
    if checkpoint is not None and TORCH not in (backend, against):
        raise UsageError(
            f"neither {backend} nor {against} runs the checkpoint",
            "leave the checkpoint out, or choose torch",
        )
    candidate = _open(bundle, checkpoint, backend, precision, device, trusted)
    if (candidate.backend.name, candidate.precision) == (against, against_precision):
        raise UsageError(
            f"nothing to compare: both sides are {candidate}",
            "give the checkpoint, or another `backend` or `precision`",
        )
    beside = device_beside(against, device)
    reference = _open(bundle, checkpoint, against, against_precision, beside, trusted)
    return candidate, reference


def device_beside(name: str, device: int) -> int:
    """Return the device for a side that another on `device` is compared with; 0 if it has none."""
    kind, _ = split_name(name, "")
    has = kind == "auto" or (kind in backend_names() and find_backend(kind).numbered)
    return device if has else 0


def widest_bounds(bundle: Bundle, *sides: Side) -> Bounds:
    """Return the bounds of the sides' coarsest precision: the bundle's own, or else the usual."""
    own = bundle.manifest.bounds
    found = [own.get(side.precision, BOUNDS[side.precision]) for side in sides]
    return max(found, key=lambda bounds: bounds.step_error)


def load_origin(bundle: Bundle, checkpoint: Path | str) -> "Checkpoint":
    """Load the checkpoint of a bundle; ArtefactError if it has other weights."""
    from difftool.checkpoint import EMA, MODEL
    from difftool.networks.trained import load_checkpoint

    provenance = bundle.manifest.provenance
    loaded = load_checkpoint(checkpoint, ema=provenance.weights == "ema")
    weights = loaded.path / (EMA if loaded.weights == "ema" else MODEL)
    if file_sha256(weights) != provenance.weights_sha256:
        raise ArtefactError(
            f"{bundle.path} was exported from other weights than {weights}",
            "give the checkpoint that it came from, or export it again",
        )
    return loaded


def _open(
    bundle: Bundle,
    checkpoint: Path | str | None,
    name: str | None,
    precision: str,
    device: int,
    trusted: Collection[str],
) -> Side:
    if precision not in BOUNDS:
        raise UsageError(f"unknown precision {precision!r}", f"one of: {', '.join(BOUNDS)}")
    if device and name in (TORCH, NUMPY):
        raise UsageError(f"{name} has no device {device}", "leave `device` out")
    if name == TORCH:
        if checkpoint is None:
            raise UsageError("torch needs the checkpoint", "give it after the bundle")
        if precision != "fp32":
            raise UsageError(
                f"torch runs the checkpoint in fp32, not {precision}", "leave the precision out"
            )
        from difftool.verify.eager import Eager

        loaded = load_origin(bundle, checkpoint)
        return Side(Eager(loaded.network, loaded.spec, bundle.features), precision)
    if name == NUMPY:
        from difftool.verify.numpy_graph import NumpyGraph

        return Side(NumpyGraph(bundle, precision), precision)
    known = backend_names()
    if split_name(name, "")[0] not in ("auto", *known):
        raise UsageError(
            f"unknown backend {name!r}", f"one of: {TORCH}, {NUMPY}, {', '.join(known)}"
        )
    opened = open_backend(
        bundle, name, threads=None, precision=precision, device=device, trusted=trusted
    )
    return Side(opened, split_name(name, precision)[1])
