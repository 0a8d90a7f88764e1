"""difftool verify: compare a bundle with its checkpoint, or two ways to run it."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from typer import Argument, Exit, Option

from difftool.cli import options
from difftool.cli.console import progress, report, waiting
from difftool.cli.foreign import As, Sets, as_checkpoint
from difftool.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from difftool.bundle import Bundle
    from difftool.diffusion.program import Program
    from difftool.runtime.comparison import Verification
    from difftool.verify.sides import Side

    Measure = Callable[[Side, Side, Program], dict[str, Any]]

EXAMPLES = """\b
Examples:
  difftool verify digits.bundle runs/digits
  difftool verify ncsn-mnist checkpoints/ncsn-mnist --steps 100 --json
  difftool verify digits.bundle --backend openvino --precision bf16 --store
  difftool verify digits.bundle --precision int8 --against openvino --bisect
  difftool verify mnist.bundle --precision int8 --data mnist/test.parquet
"""

_EXTRACTOR: Final = "mnist"


def verify(
    bundle: Annotated[
        str, Argument(metavar="BUNDLE", help="Folder of a bundle, or name of a shipped model.")
    ],
    checkpoint: Annotated[
        Path | None,
        Argument(
            metavar="CHECKPOINT",
            help="The run or checkpoint that it was exported from, or what difftool import takes.",
            show_default=False,
        ),
    ] = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    n: options.Count = 2,
    seed: options.Seed = 0,
    backend: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="What is verified: a backend, torch, or numpy. The fastest here by default.",
            show_default=False,
        ),
    ] = None,
    precision: options.Precision = "fp32",
    against: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="What it is compared with, likewise; torch by default if there is a "
            "checkpoint, and else onnxruntime-cpu.",
            show_default=False,
        ),
    ] = None,
    against_precision: Annotated[
        str, Option(metavar="NAME", help="The precision of --against.")
    ] = "fp32",
    bisect: Annotated[
        bool,
        Option("--bisect", help="Also name the first node of the graph that is out of bounds."),
    ] = False,
    data: Annotated[
        str | None,
        Option(
            metavar="DATA",
            help="Also measure the Frechet distance of both to this, as difftool eval reads it.",
            show_default=False,
        ),
    ] = None,
    extractor: Annotated[
        str, Option(metavar="NAME|FILE.onnx", help="What sees images for --data.")
    ] = _EXTRACTOR,
    draws: Annotated[
        int, Option(metavar="COUNT", help="How many samples of each are drawn for --data.")
    ] = 1000,
    picture: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Draw the rows' errors; a file ending in .png, .svg or .pdf.",
            show_default=False,
        ),
    ] = None,
    store: Annotated[
        bool, Option("--store", help="Keep the report and its picture in the bundle.")
    ] = False,
    format: As = None,
    sets: Sets = None,
    trust: options.Trust = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Compare a bundle with its checkpoint, or two ways to run it.

    Both get the same noise. Teacher-forced: every step starts from the other side's state, so that
    errors do not add up; the worst step counts. Free-running: two whole runs; their samples are
    compared, in dB of PSNR. Exit code 1 where either is out of bounds, or not finite.
    """
    from difftool.bundle import read_bundle
    from difftool.runtime.model import find_bundle
    from difftool.verify.bundles import verify_sides
    from difftool.verify.report import record_of
    from difftool.verify.report import store as store_report
    from difftool.verify.sides import open_sides

    opened = read_bundle(find_bundle(bundle))
    _check_outputs(opened.path, picture, store, force)
    asked = options.sampler_call(sampler, steps, eta, assignments)
    program = options.choose_program(opened, asked)
    with contextlib.ExitStack() as stack:
        if checkpoint is not None:
            taken = as_checkpoint(checkpoint, format, sets, quiet=json)
            checkpoint = stack.enter_context(taken)
        elif format is not None or sets:
            raise UsageError("--as and --set are of a checkpoint", "name the one to compare with")
        candidate, reference = open_sides(
            opened,
            checkpoint,
            backend=backend,
            precision=precision,
            against=against,
            against_precision=against_precision,
            trusted=trust or (),
        )
        measure = None
        if data is not None:
            measure = _frechet(opened, data, extractor, draws, seed, quiet=json)
        with progress(len(program), quiet=json) as advance:
            result = verify_sides(
                opened, candidate, reference, program, n=n, seed=seed, on_row=lambda *_: advance()
            )
        record = record_of(result, candidate, reference, seed=seed)
        if bisect:
            with waiting("looking for the first node out of bounds", quiet=json):
                record["bisect"] = _bisect(opened, candidate, reference, result, checkpoint, seed)
    if measure is not None:
        record["frechet"] = measure(reference, candidate, program)
    if store:
        drawn = _encoded("png", result, candidate, reference) if _can_draw() else None
        record["stored"] = store_report(opened, candidate, result, record, drawn)
    if picture is not None:
        _draw(picture, result, candidate, reference)
        record["picture"] = str(picture)
    report(record, as_json=json)
    if not result.passed:
        raise Exit(1)


def _check_outputs(bundle: Path, picture: Path | None, store: bool, force: bool) -> None:
    """Refuse, before any work, what could not be written at its end."""
    from difftool.plot import FORMATS
    from difftool.runtime.model import find_bundle, shipped_models

    if picture is not None:
        if picture.suffix.lower().removeprefix(".") not in FORMATS:
            known = ", ".join(f".{known}" for known in FORMATS)
            raise UsageError(f"{picture} names no format of pictures", f"end it in {known}")
        options.require_free(picture, force=force)
    if store and any(find_bundle(name).samefile(bundle) for name in shipped_models()):
        raise UsageError(
            f"{bundle.name} comes with difftool and stays as it is",
            "copy its folder, or use --picture and --json",
        )


def _bisect(
    bundle: "Bundle",
    candidate: "Side",
    reference: "Side",
    result: "Verification",
    checkpoint: Path | None,
    seed: int,
) -> dict[str, Any] | None:
    from dataclasses import asdict

    from difftool.verify.bisect import bisect_sides

    culprit = bisect_sides(bundle, candidate, reference, result, checkpoint, seed=seed)
    if culprit is None:
        return None
    found = asdict(culprit)
    return {**found, "error": culprit.error if math.isfinite(culprit.error) else None}


def _frechet(
    bundle: "Bundle", source: str, extractor: str, n: int, seed: int, *, quiet: bool
) -> "Measure":
    """Read the data, and return what measures the distance of both sides to it."""
    from difftool.cli.sets import read_data
    from difftool.evaluate.extractor import open_extractor
    from difftool.runtime.images import is_image, to_uint8
    from difftool.verify.frechet import frechet_distances

    spec = bundle.spec
    image = is_image(spec)
    shape = (*spec.shape[1:], spec.shape[0]) if image else spec.shape
    record: dict[str, Any] = {"data": Path(source).name, "n": n}  # no path of this machine
    opened = open_extractor(extractor) if image else None
    if opened is not None:
        opened.demand(spec.shape)
        record |= {"extractor": opened.name, "extractor_sha256": opened.sha256}

    def features(samples: "NDArray[np.float32]") -> "NDArray[Any]":  # points are their own
        return samples if opened is None else opened.view(to_uint8(samples, spec)).features

    with waiting("reading the data", quiet=quiet):
        data = read_data(source, shape)
        if data.shape[1:] != shape:
            raise UsageError(
                f"a sample has the shape {shape}, and one of {source} the shape {data.shape[1:]}",
                "compare with the data that the model was trained on",
            )
        known = data if opened is None else opened.view(data).features

    def measure(before: "Side", after: "Side", program: "Program") -> dict[str, Any]:
        with waiting("drawing samples", quiet=quiet):
            sides = before, after
            found = frechet_distances(bundle, sides, program, known, features, n=n, seed=seed)
        return {**record, "before": found[0], "after": found[1]}

    return measure


def _draw(path: Path, result: "Verification", candidate: "Side", reference: "Side") -> None:
    from difftool.files import write_atomic

    format = path.suffix.lower().removeprefix(".")
    write_atomic(path, _encoded(format, result, candidate, reference))


def _encoded(format: str, result: "Verification", candidate: "Side", reference: "Side") -> bytes:
    from difftool.plot import draw_verification, encode

    psnr = "equal samples" if math.isinf(result.psnr) else f"PSNR {result.psnr:.1f} dB"
    title = f"{candidate} against {reference}: {psnr}; {result.program.name}"
    figure = draw_verification(
        result.program, result.errors, result.rms, result.step_tolerance, title
    )
    return encode(figure, format)


def _can_draw() -> bool:
    """Whether matplotlib is installed; a stored report does without a picture if it is not."""
    import importlib.util

    return importlib.util.find_spec("matplotlib") is not None
