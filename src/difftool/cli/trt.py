"""The options that the commands about TensorRT engines share."""

from typing import Annotated

from typer import Option

from difftool.cli.options import numbers
from difftool.errors import UsageError

Precision = Annotated[
    str,
    Option(
        metavar="NAME",
        help="Precision of the network: fp32, tf32, fp16, bf16, int8 or fp8; the rows stay in "
        "fp32.",
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
    str | None,
    Option(
        metavar="MIN,OPT,MAX",
        help="Samples in a batch: fewest, expected, most; by default 1 to 64, tuned for 1, 16 and "
        "64.",
    ),
]

PRECISION = "fp32"
GPU = "current"


def profile_from(text: str | None) -> tuple[int, int, int] | None:
    """Read the three sizes of "min,opt,max"; UsageError if they are not three numbers."""
    if text is None:
        return None
    sizes = numbers(text)
    if len(sizes) != 3:
        raise UsageError(f"--profile {text!r} is not three numbers", "write it like 1,8,64")
    return sizes[0], sizes[1], sizes[2]
