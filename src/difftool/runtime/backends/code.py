"""Files of a bundle that are code: which may run, and their bytes.

TorchScript and AOTInductor packages are opened only if their backend is named, and only if this
user's difftool made them on this machine, which the cache remembers, or the user names their
sha256.
"""

from collections.abc import Collection
from typing import Any, Final

from difftool.bundle import Bundle
from difftool.errors import ArtefactError, MissingDependencyError
from difftool.runtime.engine_cache import EngineCache

# The order of a step module's tensors.
INPUTS: Final = ("x", "history", "row", "noise", "table", "cond_table")
KNOWN: Final = ("known", "mask")
OUTPUTS: Final = ("x_next", "history_next", "row_next", "denoised")


def trusted_code(
    bundle: Bundle, name: str, trusted: Collection[str], *, kind: str, option: str
) -> bytes:
    """Return the bytes of a file of a bundle that may run.

    `kind` is what it is, such as "TorchScript", and `option` the argument of `export` that adds it.

    Raises:
        MissingDependencyError: the bundle has no such file.
        ArtefactError: it is neither this user's nor trusted, or it differs from its digest.
    """
    if name not in bundle.manifest.files:
        raise MissingDependencyError(
            f"{bundle.path} has no {name}", f"export it again with {option}"
        )
    sha256 = bundle.manifest.files[name].sha256
    if sha256 not in trusted and not EngineCache().made(sha256):
        raise ArtefactError(
            f"{bundle.path / name} was made elsewhere; its sha256 is {sha256}",
            f"{kind} is code: if you trust its maker give that sha256 as `trust`, "
            "or choose `backend=onnxruntime-cpu`",
        )
    return bundle.read(name)


def import_torch() -> Any:
    """Import torch; MissingDependencyError if it is not installed."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError.extra("torch", "train") from error
    return torch
