"""What the commands about TensorRT engines share: options, progress and what is reported."""

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
        help="In what the network computes: fp32, fp16, bf16, int8 or fp8; the rows stay fp32.",
    ),
]
Gpu = Annotated[
    str,
    Option(
        metavar="NAMES",
        help="For which GPUs: compute capabilities such as sm89,sm120, or the current one.",
    ),
]
Profile = Annotated[
    str,
    Option(metavar="MIN,OPT,MAX", help="Samples in a batch: fewest, expected, most."),
]

PRECISION = "fp32"
GPU = "current"
PROFILE = "1,8,64"


def profile_from(text: str) -> tuple[int, int, int]:
    """Return the sizes of "min,opt,max"; UsageError if they are not three numbers."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--profile {text!r} is not three numbers", "write it like 1,8,64")
    least, expected, most = (int(part) for part in parts)
    return least, expected, most


@contextlib.contextmanager
def building(what: str, *, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yield what to tell of a build's progress; a terminal shows `what`, then phase and step."""
    if quiet or not is_terminal():
        yield lambda phase, done, total: None
        return
    from rich.console import Console

    with Console(stderr=True).status(what) as status:
        yield lambda phase, done, total: status.update(f"{phase}: {done} of {total}")


def described(compiled: "CompiledEngine") -> dict[str, Any]:
    """What a command reports of an engine."""
    record = compiled.record
    return {
        "name": record.name,
        "sha256": record.sha256,
        "bytes": record.size,
        "seconds": record.seconds,
        "built": compiled.built,
        "key": record.key.model_dump(mode="json"),
    }
