"""Measure what int8 does to samples of the shipped DDPM: their Frechet distance and fp32's.

    python benchmarks/int8_quality.py --out benchmarks/results

The bundle is made int8 by `difftool quantize`. Both precisions draw from the same noise, so that
the ratio of their distances is hardly one of chance. The distance is to MNIST's test set, in the
features of the shipped extractor.
"""

import sys

from common.mnist import channels_last, load_mnist
from common.models import CASES, prepare, short_program
from common.peers import quantized
from common.report import Figure, finish, parser

import difftool

MODEL = "ddpm-mnist"
MOST = 1.15  # times fp32's distance


def main() -> int:
    arguments = parser(__doc__, "out", "work", "data")
    arguments.add_argument("-n", type=int, default=1000, help="samples of each precision")
    arguments.add_argument("--steps", type=int, action="append", help="repeatable; 100 and 1000")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    bundle = quantized(prepare(CASES[MODEL], options.work))
    test = channels_last(load_mnist(options.data, "test").values)
    evaluator = difftool.evaluate.Evaluator(test.shape[1:], test)

    def distance(steps: int, precision: str) -> float:
        model = difftool.load(bundle, precision=precision)
        samples = model.sample(short_program(bundle, steps), n=options.n, seed=options.seed)
        found = evaluator.evaluate(difftool.to_uint8(samples, model.spec))
        return found.figures.frechet_distance

    figures = []
    for steps in options.steps or (100, 1000):
        figures += compared(steps, distance(steps, "fp32"), distance(steps, "int8"))
    setup = {"model": MODEL, "n": options.n, "seed": options.seed, "threads": "all"}
    return finish("int8_quality", figures, options, **setup)


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
