"""difftool measure: find out which programs of a model give which quality, and keep that."""

from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from difftool.cli import options
from difftool.cli.console import narrate, report, waiting
from difftool.cli.grouped import DATA
from difftool.errors import UsageError

if TYPE_CHECKING:
    from difftool.diffusion import Program

EXAMPLES = """\b
Examples:
  difftool measure runs/toy/bundle --against gaussians
  difftool measure photos.bundle --against photos/ --extractor mine.onnx -n 1000
  difftool measure photos.bundle --against photos/ --sampler unipc --sampler heun --steps 6,12,24
"""


def measure(
    bundle: options.BundleName,
    against: Annotated[
        str,
        Option(
            metavar="DATA", help=f"Data to compare with: an npz file of samples, {options.SOURCES}."
        ),
    ],
    samplers: Annotated[
        list[str] | None,
        Option(
            "--sampler",
            metavar="NAME",
            help="Sampler to measure; may be repeated. By default four that suit the model's noise "
            "levels, or consistency for a distilled model.",
        ),
    ] = None,
    steps: Annotated[
        str,
        Option(metavar="COUNT,COUNT,...", help="Steps that each sampler takes."),
    ] = "10,20,50",
    extractor: options.Extractor = "mnist",
    preprocess: options.Preprocess = None,
    n: Annotated[
        int,
        Option("-n", "--n", metavar="COUNT", help="Samples of each program.", rich_help_panel=DATA),
    ] = 500,
    seed: options.Seed = 0,
    backend: options.Backend = None,
    device: options.Device = 0,
    json: options.Json = False,
) -> None:
    """Measure how near programs come to data, and write it into the bundle.

    Each program draws samples; their distance from the data is the Frechet distance in the
    extractor's features, or the sliced Wasserstein distance of points. The model's own program is
    always among them. difftool sample --quality then takes the cheapest program for "draft",
    "good" or "best": at most 2, 1.2 or 1 times the least distance.
    """
    from difftool.bundle import QUALITIES
    from difftool.evaluate import candidates, keep_measured
    from difftool.evaluate import measure as find
    from difftool.runtime import load, require_own

    counts = options.numbers(steps)
    if not counts or 0 in counts:
        raise UsageError(f"--steps {steps!r} names no steps", "write them like 10,20,50")
    opened = load(bundle, backend=backend, device=device)
    require_own(opened.bundle)
    programs = candidates(opened.bundle, counts, samplers=samplers or ())
    with waiting("reading the data", quiet=json):
        found = find(
            opened,
            against=against,
            programs=programs,
            extractor=extractor,
            preprocess=preprocess,
            n=n,
            seed=seed,
            on_program=_silent if json else _tell,
        )
    keep_measured(opened.bundle, found)
    picked = {quality: found.pick(quality) for quality in QUALITIES}
    record: dict[str, Any] = {
        "bundle": str(opened.bundle.path),
        **found.model_dump(mode="json"),
        "qualities": {
            quality: {
                "program": str(each.call),
                "evaluations": each.evaluations,
                "distance": each.distance,
            }
            for quality, each in picked.items()
        },
    }
    if not json:
        record["programs"] = f"{len(found.programs)}, of which {len(found.front)} are on the front"
    report(record, as_json=json)


def _tell(program: "Program", distance: float) -> None:
    narrate(f"{distance:.4g}  {program.name}")


def _silent(program: "Program", distance: float) -> None:
    pass
