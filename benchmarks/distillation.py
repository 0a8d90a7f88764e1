"""Compare methods of distillation, on points in the plane and on the shipped DDPM.

    python benchmarks/distillation.py                            # points: some minutes
    python benchmarks/distillation.py --images                   # the shipped model: hours of a CPU
    python benchmarks/distillation.py --images --train-steps 800

Points: a network is trained on two Gaussians, and distilled by each method to two evaluations. The
figure is the sliced Wasserstein distance of samples to the data, over that of the network's own
samples with 50 evaluations of DDIM. Images: the preset ddpm-mnist-fast, with each method; the
figure is the Frechet distance to MNIST's test set in the features of the shipped extractor, beside
those of the shipped model with DPM-Solver++. Runs are kept in `--work`; started again, the script
goes on from where it was stopped.
"""

import argparse
import sys
from pathlib import Path

from common.mnist import channels_last, load_mnist
from common.report import Figure, finish, parser

import difftool
from difftool import Model, Program, samplers
from difftool.evaluate import Evaluator, open_extractor
from difftool.export import export
from difftool.train import (
    apply_overrides,
    distill,
    distill_config,
    distill_preset,
    preset,
    train,
)

METHODS = ("consistency", "consistency_tuning", "progressive")
LIMIT = 1.5  # of the teacher's distance, with 2 evaluations for its 50
POINTS = 4000


def main() -> int:
    arguments = parser(__doc__, "out", "data", "work")
    arguments.add_argument("--images", action="store_true", help="also the shipped DDPM")
    arguments.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    arguments.add_argument("--train-steps", type=int, help="of each student of the shipped DDPM")
    arguments.add_argument("-n", type=int, default=1000, help="how many images to judge")
    options = arguments.parse_args()
    figures = of_points(options)
    if options.images:
        figures += of_images(options)
    return finish("distillation", figures, options, points=POINTS, images=options.n)


def of_points(options: argparse.Namespace) -> list[Figure]:
    """Give the distance of each method's students, over their teacher's."""
    work = options.work / "distillation/points"
    finer = ["schedule.levels=50", "schedule.sigma_min=0.05", "loss.kind=simple"]
    teacher = train(apply_overrides(preset("toy"), finer), work / "teacher").path
    long = opened(teacher)
    known = samplers.ddim(long.spec, steps=50)
    own = distance(long, known)
    figures = [Figure("points, teacher: distance", [own])]
    for method in options.method:
        config = distill_config(teacher, method=method, steps=2)
        config = apply_overrides(config, ["optimizer.lr=1e-3", "run.batch=256"])
        student = opened(distill(config, work / method).path)
        ratio = distance(student, student.bundle.default_program()) / own
        figures.append(Figure(f"points, {method}: distance / teacher's", [ratio], at_most=LIMIT))
    return figures


def of_images(options: argparse.Namespace) -> list[Figure]:
    """Give the Frechet distance of the shipped model and of its students."""
    test = channels_last(load_mnist(options.data, "test").values)
    evaluator = Evaluator(test.shape[1:], test, extractor=open_extractor("mnist"))

    def judged(name: str, model: Model, program: Program) -> Figure:
        images = difftool.to_uint8(model.sample(program, n=options.n, seed=0), model.spec)
        found = evaluator.evaluate(images).figures.frechet_distance
        return Figure(f"{name}, {program.nfe} evaluations: Frechet distance", [found])

    shipped = difftool.load("ddpm-mnist")
    figures = [
        judged("ddpm-mnist", shipped, samplers.dpmpp_2m(shipped.spec, steps=steps))
        for steps in (4, 8, 20, 50)
    ]
    for method in options.method:
        source = str(options.data / "train-*.parquet")
        config = apply_overrides(
            distill_preset("ddpm-mnist-fast"),
            [f"student.method={method}", f"data.source={source}"],
        )
        if options.train_steps is not None:
            config = apply_overrides(config, [f"run.steps={options.train_steps}"])
        model = opened(distill(config, options.work / f"distillation/{method}").path)
        program = model.bundle.default_program()
        figures.append(judged(method, model, program))
    return figures


def opened(run: Path) -> Model:
    """Export a run and load its bundle."""
    return difftool.load(export(run, run / "bundle", force=(run / "bundle").exists()).path)


def distance(model: Model, program: Program) -> float:
    """Give the sliced Wasserstein distance of samples to the two Gaussians."""
    points = model.sample(program, n=POINTS, seed=0)
    figures = difftool.evaluate.evaluate(points, against="gaussians").figures
    return float(figures.sliced_wasserstein)


if __name__ == "__main__":
    sys.exit(main())
