"""Compare a bundle with the checkpoint it came from, or two ways to run it."""

import itertools
import math
from collections.abc import Callable, Collection
from pathlib import Path

from difftool.bundle import Bundle
from difftool.diffusion.program import Program
from difftool.errors import UsageError
from difftool.runtime.comparison import OnRow, Verification, compare
from difftool.runtime.model import Model
from difftool.runtime.shipped import open_bundle
from difftool.verify.bisect import bisect_sides
from difftool.verify.frechet import FrechetData
from difftool.verify.report import Report
from difftool.verify.sides import Side, open_sides, widest_bounds
from difftool.verify.taught import Teacher


def verify(
    bundle: Bundle | Path | str,
    checkpoint: Path | str | None = None,
    *,
    program: Program | None = None,
    n: int = 2,
    seed: int = 0,
    backend: str | None = None,
    precision: str = "fp32",
    against: str | None = None,
    against_precision: str = "fp32",
    device: int = 0,
    bisect: bool = False,
    data: str | None = None,
    extractor: Path | str = "mnist",
    preprocess: str | None = None,
    draws: int = 1000,
    teacher: Bundle | Path | str | None = None,
    trusted: Collection[str] = (),
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Compare a bundle with its checkpoint, or two ways to run it, on the same noise.

    The step error: every row starts from the reference's state, so that errors do not add up, and
    the worst row counts. The PSNR: both run the whole program, and their samples are compared.

    Args:
        bundle: a bundle, its folder, or the name of a shipped model.
        checkpoint: the run or checkpoint that it was exported from.
        program: the program that both run; by default the bundle's own.
        n: the number of samples; `seed` fixes their noise.
        backend: the candidate: a backend of the runtime, "torch" or "numpy"; by default the fastest
            that works here.
        precision: the candidate's precision.
        against: the reference: a backend of the runtime, "torch" or "numpy"; by default torch if
            there is a checkpoint, and else onnxruntime-cpu.
        against_precision: the reference's precision.
        device: the number of the GPU, from 0, for the sides that run on one.
        bisect: also find the first node of the graph whose output is out of bounds.
        data: also measure the Frechet distance of both sides' samples to this data, with `draws`
            samples of each, in the features of `extractor`, which prepares images by
            `preprocess`; see `difftool.evaluate.open_extractor`.
        teacher: the bundle that a distilled model learned from: also compare the samples of both,
            from the same start noise. No bound belongs to that.
        trusted: sha256 of engines, TorchScript and packages made elsewhere that may run.
        on_step: called with the number of steps done and the total.

    Raises:
        UsageError: both sides are the same, the checkpoint is missing or not used by any side,
            there is a `preprocess` without `data`, or the bundle has another teacher.
        ArtefactError: the bundle was exported from other weights, or is damaged.

    Examples:
        >>> report = difftool.verify.verify("digits.bundle", "runs/digits")
        >>> report.passed
        True
    """
    if preprocess is not None and data is None:
        raise UsageError("`preprocess` says how data are prepared", "give `data`, too")
    opened = open_bundle(bundle)
    program = program or opened.default_program()
    candidate, reference = open_sides(
        opened,
        checkpoint,
        backend=backend,
        precision=precision,
        against=against,
        against_precision=against_precision,
        device=device,
        trusted=trusted,
    )
    taught = None if teacher is None else Teacher(opened, teacher)
    known = None if data is None else FrechetData(opened.spec, data, extractor, preprocess)
    models = [Model(opened, side.backend) for side in (reference, candidate)] if known else []
    drawn = sum(math.ceil(draws / model.max_batch) for model in models)
    total, count = len(program) * (1 + drawn), itertools.count(1)

    def step(*_: int) -> None:
        on_step(next(count), total)

    result = verify_sides(opened, candidate, reference, program, n=n, seed=seed, on_row=step)
    culprit = bisect_sides(opened, candidate, reference, result, seed=seed) if bisect else None
    frechet = None
    if known is not None:
        frechet = known.compare(models, program, n=draws, seed=seed, on_step=step)
    beside = None
    if taught is not None:
        beside = taught.compare(Model(opened, candidate.backend), n=n, seed=seed)
    return Report(opened, candidate, reference, result, seed, bisect, culprit, frechet, beside)


def verify_sides(
    bundle: Bundle,
    candidate: Side,
    reference: Side,
    program: Program | None = None,
    *,
    n: int = 2,
    seed: int = 0,
    on_row: OnRow | None = None,
) -> Verification:
    """Compare two open sides of a bundle, within the bounds of their precisions."""
    return compare(
        candidate.backend,
        reference.backend,
        program or bundle.default_program(),
        bundle.spec,
        n,
        seed,
        on_row,
        bounds=widest_bounds(bundle, candidate, reference),
    )
