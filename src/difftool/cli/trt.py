"""The options that the commands about TensorRT engines share."""

from typing import Annotated

from typer import Option

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
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--profile {text!r} is not three numbers", "write it like 1,8,64")
    least, expected, most = (int(part) for part in parts)
    return least, expected, most
