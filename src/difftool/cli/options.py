"""The options that several commands share, and functions that read them."""

import json
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import chain, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from difftool.cli import completing
from difftool.cli.grouped import DATA, MACHINE, OUTPUT, PROGRAM, SAMPLES
from difftool.diffusion import SamplerCall
from difftool.errors import UsageError
from difftool.outputs import require_free

if TYPE_CHECKING:
    from difftool.bundle import Bundle
    from difftool.diffusion import ModelSpec, Program

DEFAULT_MODEL = "ddpm-mnist"
MAX_WORK = 10**12  # as in difftool.runtime.model, which --help must not import
SOURCES = "a folder of images, a parquet file, hf:NAME of the hub, digits, or a 2-D toy"
_NUMBER = re.compile(r"\d{1,10}")
NEW_FOLDER = "Folder to make, complete or not at all."  # the help of --out


class Format(StrEnum):
    """The formats of a file of samples."""

    PNG = "png"
    NPY = "npy"
    NPZ = "npz"
    GIF = "gif"
    WEBP = "webp"
    PARQUET = "parquet"


_MODEL_HELP = "Folder of a bundle, or name of a shipped model."
Model = Annotated[
    str, Argument(metavar="MODEL", help=_MODEL_HELP, autocompletion=completing.models)
]
BundleName = Annotated[
    str, Argument(metavar="BUNDLE", help=_MODEL_HELP, autocompletion=completing.models)
]
Sampler = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="Sampler, such as ddim; the model's own by default. See: difftool samplers",
        autocompletion=completing.samplers,
        rich_help_panel=PROGRAM,
    ),
]
Steps = Annotated[
    int | None,
    Option(
        metavar="COUNT",
        help="Network evaluations for each sample; the sampler's or the model's own by default.",
        rich_help_panel=PROGRAM,
    ),
]
Eta = Annotated[
    float | None,
    Option(
        metavar="0..1",
        help="Share of fresh noise in each step of ddim and other samplers with eta; 0 is none.",
        rich_help_panel=PROGRAM,
    ),
]
Assignments = Annotated[
    list[str] | None,
    Option(
        "--arg",
        metavar="NAME=VALUE",
        help="Set an argument of the sampler, such as clip=false or variance=large; repeatable. "
        "See: difftool samplers",
        rich_help_panel=PROGRAM,
    ),
]
Count = Annotated[
    int, Option("-n", "--n", metavar="COUNT", help="Number of samples.", rich_help_panel=SAMPLES)
]
Seed = Annotated[
    int,
    Option(
        metavar="SEED",
        help="Seed of all noise, 0 to 2^64-1; a sample depends on its seed and index only.",
        rich_help_panel=SAMPLES,
    ),
]
Backend = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="Backend that runs the model, such as onnxruntime-cpu or tensorrt; by default the "
        "fastest that works here. See: difftool doctor",
        autocompletion=completing.backends,
        rich_help_panel=MACHINE,
    ),
]
Trust = Annotated[
    list[str] | None,
    Option(
        metavar="SHA256",
        help="Sha256 of an engine, TorchScript or package made elsewhere that may run, though it "
        "is code; repeatable.",
        rich_help_panel=MACHINE,
    ),
]
Precision = Annotated[
    str,
    Option(
        metavar="NAME",
        help="Precision of the network, such as fp32 or int8; difftool doctor lists those of each "
        "backend.",
        rich_help_panel=MACHINE,
    ),
]
Device = Annotated[
    int,
    Option(
        metavar="NUMBER",
        min=0,
        help="Number of the GPU to run on, if there are several.",
        rich_help_panel=MACHINE,
    ),
]
Threads = Annotated[
    int | None,
    Option(metavar="COUNT", help="CPU threads; all cores by default.", rich_help_panel=MACHINE),
]
Extractor = Annotated[
    str,
    Option(
        metavar="NAME|FILE.onnx",
        help="Network that turns images into features: mnist, inception, or an ONNX file, such as "
        "difftool extractor writes.",
        rich_help_panel=DATA,
    ),
]
Preprocess = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="How images are prepared for an ONNX file: dinov2, clip, imagenet or none; by "
        "default what the file itself names.",
        rich_help_panel=DATA,
    ),
]
Raw = Annotated[bool, Option("--raw", help="Use the last weights instead of their moving average.")]
Force = Annotated[
    bool, Option("--force", help="Replace the output if it exists.", rich_help_panel=OUTPUT)
]
Json = Annotated[
    bool,
    Option(
        "--json", help="Print one JSON document on stdout, and no progress.", rich_help_panel=OUTPUT
    ),
]


def out(metavar: str, help: str) -> Any:
    """Return the option --out."""
    return Option("--out", "-o", metavar=metavar, help=help, rich_help_panel=OUTPUT)


def assigned(words: Iterable[str] | None, option: str) -> dict[str, str]:
    """Return the values by name that words such as "name=value" of a repeatable option assign."""
    values = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {word!r} is no name=value", f"write {option} name=value")
        values[name] = value
    return values


def numbers(text: str) -> list[int]:
    """Return the numbers of "1,8,64"; none if one of them is not whole, or has over 10 digits."""
    parts = [part.strip() for part in text.split(",")]
    return [int(part) for part in parts] if all(map(_NUMBER.fullmatch, parts)) else []


def sampler_call(
    sampler: str | None, steps: int | None, eta: float | None, assignments: Iterable[str] | None
) -> SamplerCall:
    """Return the call that the options ask for; its name is empty if they name no sampler.

    The value of an argument is read as JSON, or else taken as a plain word.
    """
    if sampler == "":
        raise UsageError("--sampler is empty", "see: difftool samplers")
    arguments = {name: _read_value(text) for name, text in assigned(assignments, "--arg").items()}
    if steps is not None:
        arguments["steps"] = steps
    if eta is not None:
        arguments["eta"] = eta
    return SamplerCall(sampler or "", arguments)


def picture_format(path: Path, *, force: bool) -> str:
    """Return the format that a picture's name ends in. UsageError if it has none, or exists."""
    from difftool.plot import FORMATS

    format = path.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        known = ", ".join(f".{known}" for known in FORMATS)
        raise UsageError(f"{path} does not end in a picture format", f"end it in {known}")
    require_free(path, force=force)
    return format


def gibibytes(count: float) -> int:
    """Return `count` GiB in bytes."""
    if not 0 < count < 1 << 30:
        raise UsageError(f"a limit of {count} GiB is out of range", "give a positive number")
    return int(count * (1 << 30))


def class_labels(text: str | None, n: int, spec: "ModelSpec") -> list[int] | None:
    """Return the labels of n samples, which take those of `text` in turn.

    `text` is such as "3", "0,1,2", "0-9", "cat", "none", or a mixture of them.
    """
    return None if text is None else list(islice(cycle(label_turns(text, n, spec)), max(n, 0)))


def label_turns(text: str, n: int, spec: "ModelSpec") -> list[int]:
    """Return the labels of a text, once for each mention; at most n, for it may say billions."""
    parts = [_read_labels(part, text, spec) for part in _label_words(text, spec)]
    return list(islice(chain.from_iterable(parts), max(n, 0)))


def choose_program(
    bundle: "Bundle", asked: SamplerCall, strength: float = 1.0, quality: str | None = None
) -> "Program":
    """Compile the program that is asked for: another sampler's, or the default with changes.

    A `strength` below 1 keeps that share of the noise levels, and that share of the default
    program's steps. A `quality` has a program of its own, by what was measured of the bundle.
    """
    from difftool.diffusion import compile_program

    default, spec = bundle.manifest.program.call, bundle.spec.up_to(strength)
    if quality is not None:
        if asked != SamplerCall():
            raise UsageError(
                "--quality chooses the sampler and its arguments, and some are given",
                "leave out one or the other",
            )
        default = bundle.program_of(quality).call
    own = default.shortened(len(spec.schedule), len(bundle.spec.schedule))
    return compile_program(spec, own.changed_by(asked))


def open_program(
    model: str,
    sampler: str | None,
    steps: int | None,
    eta: float | None,
    assignments: Iterable[str] | None,
) -> "tuple[Bundle, Program]":
    """Open a bundle, and compile the program that the options ask for."""
    from difftool.runtime import open_bundle

    bundle = open_bundle(model)
    return bundle, choose_program(bundle, sampler_call(sampler, steps, eta, assignments))


def _label_words(text: str, spec: "ModelSpec") -> Iterator[str]:
    """Split a text at its commas, but for those in the names of classes."""
    words = text.split(",")
    most = 1 + max((name.count(",") for name in spec.class_names), default=0)
    while words:
        sizes = range(min(most, len(words)), 0, -1)
        tried = (size for size in sizes if ",".join(words[:size]).strip() in spec.class_names)
        size = next(tried, 1)
        yield ",".join(words[:size]).strip()
        del words[:size]


def _read_labels(part: str, text: str, spec: "ModelSpec") -> Iterable[int]:
    """Return the indices of a name, a number or a range; of a range maybe billions."""
    from difftool.diffusion import class_index

    found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part, re.ASCII)
    if part in spec.class_names or part == "none" or (found and not found[2]):
        return [class_index(spec, part)]
    if found is None and (spec.class_names or not spec.classes):
        return [class_index(spec, part)]  # which says what names there are, or that none are
    if found is None:
        raise UsageError(
            f"--labels {text!r} is not a list of labels",
            "write 3, or 0,1,2, or 0-9, or none; the classes have no names",
        )
    first, last = int(found[1]), int(found[2])
    if last < first:
        raise UsageError(f"--labels {text!r} counts down", f"write {last}-{first}")
    # Each is looked up: the classes may have numbers for names.
    return (class_index(spec, str(index)) for index in range(first, last + 1))


def _read_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (RecursionError, ValueError):
        return text
