"""Ask two independent judges how good sets of digits are, and see if they rank them alike.

    python benchmarks/judges.py --out benchmarks/results

The judges are the shipped extractor and a second one of another architecture and seed
(common/mnist_extractor.py). Of each shipped model they see real images, which neither was trained
on, samples of its default program, of 20 and of 10 evaluations, and a set that was broken on
purpose: the upper half of each digit of the first set stands on the lower half of the next one.
They rank the sets by the share that they are sure of, and by Frechet distance. The second judge,
which nothing else is measured with, also says how good the models are: of how many samples it is
sure, how even the digits are, and how many times as far as real images the samples are from the
test set. `--work` keeps samples, so that a run that was stopped goes on.
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from common.inside import SURE
from common.mnist import HELD_OUT, SECOND, Pixels, channels_last, load_mnist, unseen
from common.report import Figure, finish, parser

import difftool
from difftool import Program
from difftool.diffusion import SamplerCall, compile_program
from difftool.evaluate import Evaluator, ImageFigures, open_extractor

ACCURACY = 0.99  # of each judge
REAL, DEFAULT, TWENTY = "real", "default program", "20 evaluations"
# Of each model: the least share that the second judge is sure of, and the greatest distance with
# the default program and with 20 evaluations, as a multiple of that of real images.
LIMITS = {"ddpm-mnist": (0.95, 1.3, 1.6), "ncsn-mnist": (0.92, 2.0, 2.5)}
RAREST, COMMONEST = 0.07, 0.13  # shares of a digit
# Of each model: the sampler that does best with few evaluations, and its arguments.
FEW = {
    "ddpm-mnist": SamplerCall("dpmpp_2m_sde", {"spacing": "trailing"}),
    "ncsn-mnist": SamplerCall("euler_ancestral", {"spacing": "karras"}),
}
TOLERANCE = 0.01  # shares and relative distances nearer than that are of equal rank


def main() -> int:
    arguments = parser(__doc__, "out", "work", "data", "threads")
    arguments.add_argument("-n", type=int, default=HELD_OUT, help="images of each set")
    arguments.add_argument("--model", choices=list(FEW), action="append", help="both by default")
    options = arguments.parse_args()
    test = load_mnist(options.data, "test")
    images = channels_last(test.values)
    judges = {
        name: open_extractor(extractor, threads=options.threads)
        for name, extractor in {"shipped": "mnist", "second": SECOND}.items()
    }
    figures: list[Figure] = []
    for name, judge in judges.items():
        right = float((judge.view(images).probabilities.argmax(1) == test.labels).mean())
        figures.append(Figure(f"{name} judge: accuracy", [right], at_least=ACCURACY))
    evaluators = {
        name: Evaluator(images.shape[1:], images, extractor=judge) for name, judge in judges.items()
    }
    for model in options.model or list(FEW):
        sets = sample_sets(model, options.n, options.data, options.work / "judges", options.threads)
        seen = {
            judge: {name: evaluator.evaluate(each).figures for name, each in sets.items()}
            for judge, evaluator in evaluators.items()
        }
        figures += [*verdicts(model, seen), *graded(model, seen["second"])]
    setup = {"n": options.n, "seed": 0, "confidence": SURE}
    return finish("judges", figures, options, **setup)


def sample_sets(
    model: str, n: int, data: Path, work: Path, threads: int | None
) -> dict[str, Pixels]:
    """Give the five sets of a model, best first as one expects."""
    real = unseen(data, n)
    loaded = difftool.load(model, threads=threads)
    few, spec = FEW[model], loaded.spec
    programs = {
        DEFAULT: loaded.default_program(),
        **{
            f"{steps} evaluations": compile_program(
                spec, SamplerCall(few.name, {**few.arguments, "steps": steps})
            )
            for steps in (20, 10)
        },
    }
    drawn = {name: _drawn(loaded, program, n, work) for name, program in programs.items()}
    return {REAL: real, **drawn, "broken": broken(real)}


def _drawn(model: difftool.Model, program: Program, n: int, work: Path) -> Pixels:
    """Draw samples, or read those that were drawn before."""
    weights = model.bundle.manifest.provenance.weights_sha256
    digest = hashlib.sha256(f"{weights} {program.name} {n}".encode()).hexdigest()[:12]
    kept = work / f"{digest}.npy"
    if not kept.is_file():
        work.mkdir(parents=True, exist_ok=True)
        pixels = difftool.to_uint8(model.sample(program, n=n, seed=0), model.spec)
        np.save(kept.with_suffix(".part.npy"), pixels)
        kept.with_suffix(".part.npy").rename(kept)
    return np.load(kept)


def broken(images: Pixels) -> Pixels:
    """Put the upper half of each image [N, H, W, C] on the lower half of the next one."""
    middle = images.shape[1] // 2
    return np.concatenate([images[:, :middle], np.roll(images, -1, 0)[:, middle:]], 1)


def verdicts(model: str, seen: Mapping[str, Mapping[str, ImageFigures]]) -> list[Figure]:
    """Make figures of what each judge says of each set, and of whether they rank the sets alike.

    A pair of sets counts if both judges tell its two apart by more than the tolerance.
    """
    figures = []
    measures = {
        "sure": {j: {s: f.classes.sure for s, f in of.items()} for j, of in seen.items()},
        "Frechet distance": {
            j: {s: f.frechet_distance for s, f in of.items()} for j, of in seen.items()
        },
    }
    for measure, found in measures.items():
        for judge, values in found.items():
            figures += [
                Figure(f"{model}, {name}: {measure}, {judge} judge", [value])
                for name, value in values.items()
            ]
        one, other = (list(values.values()) for values in found.values())
        same = agreement(one, other)
        label = f"{model}: pairs of sets that both rank alike by {measure}"
        figures.append(Figure(label, [same], at_least=1.0))
    return figures


def graded(model: str, seen: Mapping[str, ImageFigures]) -> list[Figure]:
    """Make figures with limits of what one judge says of a model's samples."""
    least_sure, most, most_of_few = LIMITS[model]
    classes = seen[DEFAULT].classes
    base = seen[REAL].frechet_distance
    figures = [
        Figure(f"{model}: sure", [classes.sure], at_least=least_sure),
        Figure(f"{model}: rarest digit", [min(classes.shares)], at_least=RAREST),
        Figure(f"{model}: commonest digit", [max(classes.shares)], at_most=COMMONEST),
    ]
    for name, limit in ((DEFAULT, most), (TWENTY, most_of_few)):
        ratio = seen[name].frechet_distance / base
        label = f"{model}, {name}: Frechet distance / real images'"
        figures.append(Figure(label, [ratio], at_most=limit))
    return figures


def agreement(one: Sequence[float], other: Sequence[float]) -> float:
    """Give the share of pairs, of those that both tell apart, that both order alike."""
    pairs = [(i, j) for i in range(len(one)) for j in range(i)]
    orders = [(_order(one[i], one[j]), _order(other[i], other[j])) for i, j in pairs]
    told = [(a, b) for a, b in orders if a and b]
    return float(np.mean([a == b for a, b in told])) if told else 1.0


def _order(left: float, right: float) -> int:
    """Tell which of two is larger: 1, -1, or 0 if they are as good as equal."""
    if abs(left - right) <= TOLERANCE * max(abs(left), abs(right)):
        return 0
    return 1 if left > right else -1


if __name__ == "__main__":
    sys.exit(main())
