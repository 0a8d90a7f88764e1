"""The options that the commands about TensorRT engines share."""

from typing import Annotated

from typer import Option

from difftool.cli.options import numbers
from difftool.errors import UsageError

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
    sizes = numbers(text)
    if len(sizes) != 3:
        raise UsageError(f"--profile {text!r} is not three numbers", "write it like 1,8,64")
    return sizes[0], sizes[1], sizes[2]
