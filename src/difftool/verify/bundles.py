"""A bundle against the checkpoint it came from, or one way to run it against another."""

from pathlib import Path

from difftool.bundle import Bundle, read_bundle
from difftool.diffusion.program import Program
from difftool.runtime.comparison import OnRow, Verification, compare
from difftool.verify.sides import Side, bounds_of, open_sides


def verify_bundle(
    bundle: Path | str,
    checkpoint: Path | str | None = None,
    *,
    program: Program | None = None,
    n: int = 2,
    seed: int = 0,
    backend: str | None = None,
    precision: str = "fp32",
    against: str | None = None,
    against_precision: str = "fp32",
    on_row: OnRow | None = None,
) -> Verification:
    """Compare a bundle with its checkpoint on `n` samples of a program, its default one by default.

    Without a checkpoint it is compared with its own step.onnx on ONNX Runtime. Both sides can be
    chosen; see `difftool.verify.sides.open_sides`, which says what it raises. `on_row(done, total)`
    is told of progress.
    """
    opened = read_bundle(bundle)
    candidate, reference = open_sides(
        opened,
        checkpoint,
        backend=backend,
        precision=precision,
        against=against,
        against_precision=against_precision,
    )
    return verify_sides(opened, candidate, reference, program, n=n, seed=seed, on_row=on_row)


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
    """Compare two sides of a bundle that are open; the bounds are those of their precisions."""
    return compare(
        candidate.backend,
        reference.backend,
        program or bundle.default_program(),
        bundle.spec,
        n,
        seed,
        on_row,
        bounds=bounds_of(bundle, candidate, reference),
    )
