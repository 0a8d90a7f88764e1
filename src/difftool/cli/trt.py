"""Options, progress and report entries that the commands about TensorRT engines share."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from difftool.cli.console import is_terminal
from difftool.errors import UsageError

if TYPE_CHECKING:
    from difftool.compile import CompiledEngine

Precision = Annotated[
    str,
    Option(
        metavar="NAME",
        help="Precision of the network: fp32, fp16, bf16, int8 or fp8; the rows stay in fp32.",
    ),
]
Gpu = Annotated[
    str,
    Option(
        metavar="NAMES",
        help="GPUs to build for: compute capabilities such as sm89,sm120, or current for the one "
        "of this machine.",
    ),
]
Profile = Annotated[
    str, Option(metavar="MIN,OPT,MAX", help="Samples in a batch: fewest, expected, most.")
]

PRECISION = "fp32"
GPU = "current"
PROFILE = "1,8,64"


def profile_from(text: str) -> tuple[int, int, int]:
    """Read the three sizes of "min,opt,max"; UsageError if they are not three numbers."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--profile {text!r} is not three numbers", "write it like 1,8,64")
    least, expected, most = (int(part) for part in parts)
    return least, expected, most


@contextlib.contextmanager
def building(what: str, *, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function to call with a build's phase, step and steps; a terminal shows them.

    Before the first call the terminal shows `what`.
    """
    if quiet or not is_terminal():
        yield lambda phase, done, total: None
        return
    from rich.console import Console

    with Console(stderr=True).status(what) as status:
        yield lambda phase, done, total: status.update(f"{phase}: {done} of {total}")


def described(compiled: "CompiledEngine") -> dict[str, Any]:
    """Return what a command reports about an engine."""
    record = compiled.record
    return {
        "name": record.name,
        "sha256": record.sha256,
        "bytes": record.size,
        "seconds": record.seconds,
        "built": compiled.built,
        "key": record.key.model_dump(mode="json"),
    }
