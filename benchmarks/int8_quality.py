"""What int8 does to the samples of the shipped DDPM: their Frechet distance, next to fp32's.

    python benchmarks/int8_quality.py --out benchmarks/results

The bundle is made int8 by `difftool quantize`. Both precisions draw from the same noise, so that
the ratio of their distances is hardly one of chance. The distance is to MNIST's test set, in the
features of the shipped extractor.
"""

import sys
from pathlib import Path

from _mnist import FOLDER, load_mnist
from _models import CASES, Prepared, prepare, short_program
from _peers import quantized
from _report import ROOT, Figure, finish, parser
from quality import channels_last

import difftool
from difftool import to_uint8
from difftool.evaluate.distances import frechet_distance, gaussian_of
from difftool.evaluate.extractor import Pixels, open_extractor

MODEL = "ddpm-mnist"
PRECISIONS = ("fp32", "int8")
MOST = 1.15  # times fp32's distance


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, default=FOLDER)
    arguments.add_argument("-n", type=int, default=1000, help="samples of each precision")
    arguments.add_argument("--steps", type=int, action="append", help="repeatable; 100 and 1000")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--work", type=Path, default=ROOT / "runs/bench", metavar="FOLDER")
    options = arguments.parse_args()
    prepared = prepare(CASES[MODEL], options.work)
    quantized(prepared)
    extractor = open_extractor("mnist")
    test = extractor.view(channels_last(load_mnist(options.data, "test").images))
    reference = gaussian_of(test.features)
    figures = []
    for steps in options.steps or (100, 1000):
        fp32, int8 = (
            extractor.view(draw(prepared, precision, steps, options.n, options.seed))
            for precision in PRECISIONS
        )
        figures += compared(
            steps,
            frechet_distance(gaussian_of(fp32.features), reference),
            frechet_distance(gaussian_of(int8.features), reference),
        )
    setup = {"model": MODEL, "n": options.n, "seed": options.seed, "threads": "all"}
    return finish("int8_quality", figures, setup, options.out)


def draw(prepared: Prepared, precision: str, steps: int, n: int, seed: int) -> Pixels:
    """`n` images that a precision draws in so many steps."""
    model = difftool.load(prepared.bundle.path, precision=precision)
    samples = model.sample(short_program(prepared.bundle, steps), n=n, seed=seed)
    return to_uint8(samples, model.spec)


def compared(steps: int, fp32: float, int8: float) -> list[Figure]:
    """The distances, and how many times as large int8's is."""
    return [
        Figure(name=f"{steps} steps: fp32, Frechet distance", values=[fp32]),
        Figure(name=f"{steps} steps: int8, Frechet distance", values=[int8]),
        Figure(
            name=f"{steps} steps: Frechet distance, int8 / fp32", values=[int8 / fp32], at_most=MOST
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
