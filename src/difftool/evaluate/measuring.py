"""Measure what programs of a model reach, so that one can be chosen by the quality it gives."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from difftool.bundle import Bundle, Measured, MeasuredProgram
from difftool.bundle.amend import with_files
from difftool.data import finite
from difftool.diffusion import Program, SamplerCall, caveats, compile_program
from difftool.errors import CheckFailed, UsageError
from difftool.evaluate.comparison import ImageFigures
from difftool.evaluate.evaluation import EXTRACTOR, Evaluator
from difftool.evaluate.sets import Samples
from difftool.evaluate.views import Extractor
from difftool.log import logger
from difftool.runtime import Model, is_image, require_own, to_uint8

EVALUATIONS: Final = (10, 20, 50)
_FEW: Final = (1, 2, 4)  # of a model that was distilled
# Those that do well with few evaluations, and how they space them.
_VARIANCE_PRESERVING: Final = ("dpmpp_2m_sde", "dpmpp_2m", "unipc", "ddim"), "trailing"
_VARIANCE_EXPLODING: Final = (
    ("dpmpp_2m_sde", "euler_ancestral", "dpmpp_2m", "unipc", "ddim"),
    "karras",
)

_log = logger(__name__)


def candidates(
    bundle: Bundle, evaluations: Sequence[int] = EVALUATIONS, *, samplers: Sequence[str] = ()
) -> list[Program]:
    """Return the programs that are worth measuring: few evaluations first, and the model's own.

    Args:
        bundle: the model.
        evaluations: of the network, for each sample.
        samplers: their names; by default some that do well with few evaluations. A distilled
            model has `consistency` instead, with as many evaluations as suit it.

    Raises:
        UsageError: there is no such sampler, or it does not take `steps`.
    """
    spec, own = bundle.spec, bundle.default_program()
    vp = spec.schedule.variance_preserving
    names, spacing = _VARIANCE_PRESERVING if vp else _VARIANCE_EXPLODING
    made_for_few = bundle.manifest.distilled is not None and not samplers
    if made_for_few:
        calls = [SamplerCall("consistency", {"steps": steps}) for steps in _FEW]
    else:
        calls = [
            SamplerCall(name, {"steps": steps, **({} if samplers else {"spacing": spacing})})
            for steps in evaluations
            for name in samplers or names
        ]
    found = [compile_program(spec, call) for call in calls]
    if not made_for_few and not samplers:
        found = [program for program in found if not caveats(program, spec, own)]
    return [*sorted(found, key=lambda each: each.nfe), own]


def measure(
    model: Model,
    *,
    against: str | Samples,
    programs: Sequence[Program] | None = None,
    extractor: Extractor | Path | str = EXTRACTOR,
    preprocess: str | None = None,
    n: int = 500,
    seed: int = 0,
    on_program: Callable[[Program, float], None] = lambda program, distance: None,
) -> Measured:
    """Measure how far the samples of each program are from data; see `keep_measured`.

    The distance is the Frechet distance for images, and the sliced Wasserstein distance for points.
    A program whose samples are not finite is left out.

    Args:
        model: the model, as `difftool.load` opens it.
        against: as `Evaluator` takes it.
        programs: the programs; by default `candidates` and the model's own one.
        extractor: as `Evaluator` takes it.
        preprocess: how images are prepared for an ONNX file; see `open_extractor`.
        n: samples of each program. A distance depends on it, so compare those of one n.
        seed: of all noise.
        on_program: is called with each program and its distance.

    Raises:
        UsageError: data, model and extractor do not fit, or there are too few samples.
        CheckFailed: no program has finite samples.

    Examples:
        >>> model = difftool.load("ddpm-mnist")
        >>> data = difftool.to_uint8(model.sample(n=8, seed=1, program=program), model.spec)
        >>> found = difftool.evaluate.measure(model, against=data, programs=[program], n=8)
        >>> found.pick("draft").call == program.call
        True
    """
    spec, image = model.spec, is_image(model.spec)
    shape = (*spec.shape[1:], spec.shape[0]) if image else spec.shape
    judge = Evaluator(shape, against, extractor=extractor, preprocess=preprocess)
    chosen = candidates(model.bundle) if programs is None else list(programs)
    if not chosen:
        raise UsageError("there is no program to measure", "leave `programs` out, or give one")
    measured: list[MeasuredProgram] = []
    sha256: str | None = None
    for program in chosen:
        try:
            drawn = finite(model.sample(program, n=n, seed=seed), f"a sample of {program.name}")
        except CheckFailed as error:
            _log.warning("%s is left out: %s", program.name, error)
            continue
        found = judge.evaluate(to_uint8(drawn, spec) if image else drawn.astype("float64"))
        figures, sha256 = found.figures, found.extractor_sha256
        distance = (
            figures.frechet_distance
            if isinstance(figures, ImageFigures)
            else figures.sliced_wasserstein
        )
        on_program(program, distance)
        measured.append(
            MeasuredProgram(
                sampler=program.call.name,
                arguments=dict(program.call.arguments),
                evaluations=program.nfe,
                distance=distance,
            )
        )
    if not measured:
        raise CheckFailed("no program has finite samples", "check the model: difftool verify")
    return Measured(
        figure="frechet_distance" if image else "sliced_wasserstein",
        extractor_sha256=sha256,
        n=n,
        seed=seed,
        programs=tuple(measured),
    )


def keep_measured(bundle: Bundle, measured: Measured) -> Bundle:
    """Write what was measured into a bundle, in place of what it had.

    `Model.program_of` chooses by it, and so does `difftool sample --quality`.

    Raises:
        UsageError: it is a shipped model, which stays as it is.
        ResourceError: the bundle's folder cannot be replaced.
    """
    require_own(bundle)
    return with_files(bundle, {}, measured=measured)
