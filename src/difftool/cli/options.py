"""Options that several commands share, and what they mean."""

import json
import re
from collections.abc import Iterable
from enum import StrEnum
from itertools import chain, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from difftool.diffusion.calls import SamplerCall
from difftool.errors import UsageError
from difftool.outputs import require_free as require_free
from difftool.outputs import require_no_bundle as require_no_bundle
from difftool.outputs import require_place as require_place

if TYPE_CHECKING:
    from difftool.bundle import Bundle
    from difftool.diffusion.program import Program
    from difftool.diffusion.spec import ModelSpec

DEFAULT_MODEL = "ddpm-mnist"
MAX_WORK = 10**12  # that of difftool.runtime.model, which is not imported for --help


class Format(StrEnum):
    """What a file of samples holds."""

    PNG = "png"
    NPY = "npy"
    NPZ = "npz"
    GIF = "gif"


Model = Annotated[
    str, Argument(metavar="MODEL", help="Folder of a bundle, or name of a shipped model.")
]
Sampler = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="Such as ddim; the model's own by default. See: difftool samplers",
        show_default=False,
    ),
]
Steps = Annotated[
    int | None,
    Option(
        metavar="COUNT",
        help="Network evaluations for each sample; the sampler's or the model's own by default.",
        show_default=False,
    ),
]
Eta = Annotated[
    float | None,
    Option(
        metavar="0..1",
        help="How much fresh noise a step of ddim, or another sampler with eta, adds; 0 is none.",
        show_default=False,
    ),
]
Assignments = Annotated[
    list[str] | None,
    Option(
        "--arg",
        metavar="NAME=VALUE",
        help="Any argument of the sampler, such as clip=false or variance=large; repeatable. "
        "See: difftool samplers",
        show_default=False,
    ),
]
Count = Annotated[int, Option("-n", "--n", metavar="COUNT", help="How many samples.")]
Seed = Annotated[
    int, Option(metavar="SEED", help="0 to 2^64-1; equal seeds give equal samples, whatever n.")
]
Backend = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="What runs the model, such as onnxruntime-cpu or tensorrt; the fastest that "
        "works here by default. See: difftool doctor",
        show_default=False,
    ),
]
Trust = Annotated[
    list[str] | None,
    Option(
        metavar="SHA256",
        help="Run an engine or TorchScript of the bundle that was made elsewhere, which is code; "
        "repeatable.",
        show_default=False,
    ),
]
Precision = Annotated[
    str,
    Option(
        metavar="NAME",
        help="What the network computes in, such as fp32 or int8; difftool doctor shows what each "
        "backend has.",
    ),
]
Force = Annotated[bool, Option("--force", help="Replace the output if it exists.")]
Json = Annotated[
    bool, Option("--json", help="Print exactly one JSON document on stdout, and no progress.")
]


def sampler_call(
    sampler: str | None,
    steps: int | None,
    eta: float | None,
    assignments: Iterable[str] | None,
) -> SamplerCall:
    """Return what the options ask for, without a name if they name no sampler.

    Values of arguments are JSON, or else plain words.
    """
    if sampler == "":
        raise UsageError("--sampler names no sampler", "see: difftool samplers")
    arguments: dict[str, Any] = {}
    for assignment in assignments or ():
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise UsageError(f"--arg {assignment!r} assigns nothing", "write --arg name=value")
        arguments[name] = _value_of(text)
    if steps is not None:
        arguments["steps"] = steps
    if eta is not None:
        arguments["eta"] = eta
    return SamplerCall(sampler or "", arguments)


def picture_format(path: Path, *, force: bool) -> str:
    """Return the format that a picture's name ends in; refuse, before any work, one without."""
    from difftool.plot import FORMATS

    format = path.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        known = ", ".join(f".{known}" for known in FORMATS)
        raise UsageError(f"{path} names no format of pictures", f"end it in {known}")
    require_free(path, force=force)
    return format


def gibibytes(count: float) -> int:
    """So many GiB in bytes."""
    if not 0 < count < 1 << 30:
        raise UsageError(f"a limit of {count} GiB", "give a positive number")
    return int(count * (1 << 30))


def class_labels(text: str | None, n: int, spec: "ModelSpec") -> list[int] | None:
    """The labels of n samples, dealt out in turn: "3", "0,1,2", "0-9", "none" or a mixture."""
    if text is None:
        return None
    parts = [_labels_of(part.strip(), text, spec) for part in text.split(",")]
    return list(islice(cycle(chain.from_iterable(parts)), max(n, 0)))


def choose_program(bundle: "Bundle", asked: SamplerCall, strength: float = 1.0) -> "Program":
    """Compile the bundle's default program with its arguments changed, or another sampler's.

    With a `strength` below 1 it is for that share of the noise levels; the default program then
    has that share of its steps.
    """
    from difftool.diffusion.samplers import compile_program

    default, spec = bundle.manifest.program.call, bundle.spec.up_to(strength)
    steps = default.arguments.get("steps")
    if isinstance(steps, int):
        kept = steps * len(spec.schedule) / len(bundle.spec.schedule)
        default = default.changed_by(SamplerCall(arguments={"steps": max(1, round(kept))}))
    return compile_program(spec, default.changed_by(asked))


def _labels_of(part: str, text: str, spec: "ModelSpec") -> range:
    if part == "none":
        return range(spec.classes, spec.classes + 1)
    found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
    if found is None:
        raise UsageError(f"--labels {text!r} names no labels", "write 3, or 0,1,2, or 0-9, or none")
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise UsageError(f"--labels {text!r} counts down", f"write {last}-{first}")
    return range(first, last + 1)


def _value_of(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
