"""Measure what guidance changes: how often a digit is the one asked for, and how digits differ.

    python benchmarks/guidance.py --out benchmarks/results

Of each shipped model it draws a hundred of each digit at each scale of classifier-free guidance,
with few evaluations. Two independent judges say how often a sample is of its class, and how often
they are sure. The Frechet distance to the test set grows if samples are poor, or all alike; recall
is the share of real images that have a sample near them, so it falls if samples are alike.
"""

import sys
from collections.abc import Mapping

import numpy as np
from common.inside import SURE
from common.mnist import SECOND, channels_last, load_mnist
from common.report import Figure, finish, parser

import difftool
from difftool.diffusion import SamplerCall, compile_program
from difftool.evaluate import Evaluator, open_extractor

SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
STEPS = 20
FEW: Mapping[str, SamplerCall] = {
    "ddpm-mnist": SamplerCall("dpmpp_2m_sde", {"steps": STEPS, "spacing": "trailing"}),
    "ncsn-mnist": SamplerCall("euler_ancestral", {"steps": STEPS, "spacing": "karras"}),
}
# Of samples with their labels: without guidance, and with more of it.
LEAST_RIGHT = {1.0: 0.98, 2.0: 0.99}


def main() -> int:
    arguments = parser(__doc__, "out", "data", "threads")
    arguments.add_argument("-n", type=int, default=1000, help="samples at each scale")
    options = arguments.parse_args()
    test = channels_last(load_mnist(options.data, "test").values)
    judges = {
        name: open_extractor(extractor, threads=options.threads)
        for name, extractor in {"shipped": "mnist", "second": SECOND}.items()
    }
    evaluators = {
        name: Evaluator(test.shape[1:], test, extractor=judge) for name, judge in judges.items()
    }
    figures: list[Figure] = []
    for name, call in FEW.items():
        model = difftool.load(name, threads=options.threads)
        program, labels = compile_program(model.spec, call), np.arange(options.n) % 10
        for scale in SCALES:
            samples = model.sample(program, n=options.n, labels=labels, guidance_scale=scale)
            images = difftool.to_uint8(samples, model.spec)
            for name_of_judge, judge in judges.items():
                found = evaluators[name_of_judge].evaluate(images).figures
                right = float((judge.view(images).probabilities.argmax(1) == labels).mean())
                about = f"{name}, scale {scale:g}, {name_of_judge} judge"
                figures += [
                    Figure(f"{about}: of the class", [right], at_least=LEAST_RIGHT.get(scale)),
                    Figure(f"{about}: sure", [found.classes.sure]),
                    Figure(f"{about}: Frechet distance", [found.frechet_distance]),
                    Figure(f"{about}: recall", [found.manifold.recall]),
                ]
    setup = {"n": options.n, "evaluations": STEPS, "seed": 0, "confidence": SURE}
    return finish("guidance", figures, options, **setup)


if __name__ == "__main__":
    sys.exit(main())
