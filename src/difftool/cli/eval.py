"""difftool eval: compare samples with data."""

import math
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from typer import Argument, Option

from difftool.cli import options
from difftool.cli.console import progress, report, waiting, warn
from difftool.diffusion import SamplerCall
from difftool.errors import UsageError

if TYPE_CHECKING:
    from difftool.evaluate import Samples

EXAMPLES = """\b
Examples:
  difftool eval ddpm-mnist --against mnist/test.parquet --sampler unipc --steps 20
  difftool eval --samples samples.npz --against photos/ --extractor mine.onnx
  difftool eval cats.bundle --against cats/ --extractor dinov2.onnx --preprocess dinov2
  difftool eval runs/toy/bundle --against gaussians -n 5000 --json
"""

_COUNT: Final = 1000

# Samples to read or draw: the shape of one, [H, W, C] or [2], report entries, and how to get them.
_Source = tuple[tuple[int, ...], dict[str, Any], Callable[[], "Samples"]]


def evaluate(
    against: Annotated[
        str,
        Option(
            metavar="DATA", help=f"Data to compare with: an npz file of samples, {options.SOURCES}."
        ),
    ],
    model: Annotated[
        str | None,
        Argument(
            metavar="MODEL",
            help="Folder of a bundle, or name of a shipped model; ddpm-mnist by default.",
        ),
    ] = None,
    samples: Annotated[
        Path | None,
        Option(
            metavar="FILE.npz|FOLDER",
            help="Samples that difftool sample wrote, to use instead of MODEL.",
        ),
    ] = None,
    extractor: options.Extractor = "mnist",
    preprocess: options.Preprocess = None,
    inception: Annotated[
        Path | None,
        Option(
            metavar="WEIGHTS",
            help="Also compute FID and Inception Score, with torch-fidelity and these weights.",
        ),
    ] = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    n: Annotated[
        int | None,
        Option(
            "-n",
            "--n",
            metavar="COUNT",
            help="Number of samples; by default 1000, or all of --samples.",
        ),
    ] = None,
    seed: Annotated[
        int | None, Option(metavar="SEED", help="Seed of all noise, 0 to 2^64-1; 0 by default.")
    ] = None,
    backend: options.Backend = None,
    device: options.Device = 0,
    json: options.Json = False,
) -> None:
    """Measure how good samples are.

    For images: Frechet and kernel distance, precision, recall, density and coverage in an
    extractor's features, and confidence and balance of its classes, if it has classes. For points
    in the plane: sliced Wasserstein distance and MMD. docs/evaluation.md explains them.
    """
    from difftool.evaluate import Evaluator

    if samples is not None:
        given = {
            "MODEL": model,
            "--sampler": sampler,
            "--steps": steps,
            "--eta": eta,
            "--arg": assignments,
            "--seed": seed,
            "--backend": backend,
            "--device": device or None,
        }
        for name, value in given.items():
            if value is not None:
                raise UsageError(
                    f"{name} and --samples are both given", "either draw samples or read a file"
                )
        shape, record, draw = _file(samples, n)
    else:
        asked = options.sampler_call(sampler, steps, eta, assignments)
        n = _COUNT if n is None else n
        name = model or options.DEFAULT_MODEL
        shape, record, draw = _model(name, asked, n, seed or 0, backend, device, quiet=json)
    with waiting("reading the data", quiet=json):
        judge = Evaluator(
            shape, against, extractor=extractor, preprocess=preprocess, inception=inception
        )
    found = judge.evaluate(draw())
    record |= {"against": against, "against_n": found.against_n}
    report({**record, **found.to_dict()}, as_json=json)


def _model(
    name: str,
    asked: SamplerCall,
    n: int,
    seed: int,
    backend: str | None,
    device: int,
    *,
    quiet: bool,
) -> _Source:
    """Return samples that a model will draw when the data is known to fit."""
    from difftool.data import finite
    from difftool.diffusion import caveats
    from difftool.runtime import State, is_image, load, to_uint8

    opened = load(name, backend=backend, device=device)
    program = options.choose_program(opened.bundle, asked)
    warnings = caveats(program, opened.spec, opened.default_program())
    unsaid = [] if quiet else list(warnings)
    image = is_image(opened.spec)
    shape = opened.spec.shape

    def draw() -> "Samples":
        done, total = count(1), len(program) * math.ceil(n / opened.max_batch)
        with progress(quiet=quiet) as tell:

            def on_step(_: State) -> None:
                warn(unsaid)  # at the first step: before it, a request may still be refused
                unsaid.clear()
                tell(next(done), total)

            drawn = opened.sample(program, n=n, seed=seed, on_step=on_step)
        finite(drawn, f"a sample of {program.name}")
        return to_uint8(drawn, opened.spec) if image else drawn.astype("float64")

    record = {
        "model": name,
        "weights_sha256": opened.bundle.manifest.provenance.weights_sha256,
        "sampler": program.call.name,
        "steps": program.nfe,
        "program": program.name,
        "n": n,
        "seed": seed,
        "backend": opened.backend.name,
        **({"warnings": warnings} if quiet else {}),
    }
    return (*shape[1:], shape[0]) if image else shape, record, draw


def _file(path: Path, n: int | None) -> _Source:
    """Return samples from a file or a folder, without a word on how they were drawn."""
    from difftool.data import read_samples
    from difftool.files import file_sha256
    from difftool.scale import read_manifest

    values = read_samples(path)
    if n is not None and not 1 <= n <= len(values):
        raise UsageError(
            f"{path} holds {len(values)} samples, not {n}", f"give -n 1 to {len(values)}"
        )
    record = {
        "samples": str(path),
        "samples_sha256": read_manifest(path).samples_sha256
        if path.is_dir()
        else file_sha256(path),
        "sampler": None,
        "steps": None,
        "n": len(values) if n is None else n,
        "seed": None,
    }
    return values.shape[1:], record, lambda: values[:n]
