"""What int8 does to the samples of the shipped DDPM: their Frechet distance, next to fp32's.

    python benchmarks/int8_quality.py --out benchmarks/results

The bundle is made int8 by `difftool quantize`. Both precisions draw from the same noise, so that
the ratio of their distances is hardly one of chance. The distance is to MNIST's test set, in the
features of the shipped extractor.
"""

import sys
from pathlib import Path

from common.inside import Pixels, fit_gaussian, frechet_distance, open_extractor
from common.mnist import FOLDER, channels_last, load_mnist
from common.models import CASES, Prepared, prepare, short_program
from common.peers import quantized
from common.report import Figure, finish, parser

import difftool
from difftool import to_uint8

MODEL = "ddpm-mnist"
PRECISIONS = ("fp32", "int8")
MOST = 1.15  # times fp32's distance


def main() -> int:
    arguments = parser(__doc__, work=True)
    arguments.add_argument("--data", type=Path, default=FOLDER)
    arguments.add_argument("-n", type=int, default=1000, help="samples of each precision")
    arguments.add_argument("--steps", type=int, action="append", help="repeatable; 100 and 1000")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    prepared = prepare(CASES[MODEL], options.work)
    quantized(prepared)
    extractor = open_extractor("mnist")
    test = extractor.view(channels_last(load_mnist(options.data, "test").images))
    reference = fit_gaussian(test.features)
    figures = []
    for steps in options.steps or (100, 1000):
        drawn = (draw(prepared, p, steps, options.n, options.seed) for p in PRECISIONS)
        views = (extractor.view(images) for images in drawn)
        figures += compared(
            steps, *(frechet_distance(fit_gaussian(view.features), reference) for view in views)
        )
    setup = {"model": MODEL, "n": options.n, "seed": options.seed, "threads": "all"}
    return finish("int8_quality", figures, options, **setup)


def draw(prepared: Prepared, precision: str, steps: int, n: int, seed: int) -> Pixels:
    """Draw `n` images in a precision, in so many steps."""
    model = difftool.load(prepared.bundle.path, precision=precision)
    samples = model.sample(short_program(prepared.bundle, steps), n=n, seed=seed)
    return to_uint8(samples, model.spec)


def compared(steps: int, fp32: float, int8: float) -> list[Figure]:
    """Make figures of the distances, and of how many times as large int8's is."""
    ratio = f"{steps} steps: Frechet distance, int8 / fp32"
    return [
        Figure(f"{steps} steps: fp32, Frechet distance", [fp32]),
        Figure(f"{steps} steps: int8, Frechet distance", [int8]),
        Figure(ratio, [int8 / fp32], at_most=MOST),
    ]


if __name__ == "__main__":
    sys.exit(main())
