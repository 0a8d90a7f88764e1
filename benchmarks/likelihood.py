"""Measure the likelihood of MNIST's test images under the shipped checkpoints, in bits/dim.

    python benchmarks/likelihood.py -n 32

Both by the probability-flow ODE, with one probe an image; the DDPM also by its variational bound,
every level with one noise. What the steps leave out is measured on the first four images, against
twice as many. All in PyTorch.
"""

import sys
from pathlib import Path

import torch
from common.inside_torch import likelihood, variational
from common.machine import ROOT
from common.mnist import load_mnist
from common.report import Figure, finish, parser
from torch import Tensor

from difftool.train import Checkpoint, load_checkpoint

MODELS = ("ddpm-mnist", "ncsn-mnist")
UNIT = "bits/dim"


def main() -> int:
    arguments = parser(__doc__, "out", "data")
    arguments.add_argument("--checkpoints", type=Path, default=ROOT / "checkpoints")
    arguments.add_argument("-n", type=int, default=32, help="how many of the first test images")
    arguments.add_argument("--steps", type=int, default=likelihood.STEPS, help="of the ODE")
    options = arguments.parse_args()
    images = torch.as_tensor(load_mnist(options.data, "test").values[: options.n])
    models = {name: load_checkpoint(options.checkpoints / name) for name in MODELS}
    figures = [f for name, model in models.items() for f in ode(name, model, images, options.steps)]
    figures.append(variational_bound(MODELS[0], models[MODELS[0]], images))
    setup = {"n": options.n, "steps": options.steps, "probes": 1, "variance": "large"}
    return finish("likelihood", figures, options, **setup)


def ode(name: str, model: Checkpoint, images: Tensor, steps: int) -> list[Figure]:
    """Measure the likelihood of test images, and how far twice the steps take it."""
    network, spec = likelihood.without_label(model.network, model.spec), model.spec
    bits = likelihood.bits_per_dim(network, images, spec, steps=steps)
    finer = likelihood.bits_per_dim(network, images[:4], spec, steps=2 * steps)
    change = (finer - bits[:4]).abs()
    return [
        Figure(f"{name}, ODE", bits.tolist(), unit=UNIT),
        Figure(f"{name}, ODE, change with twice the steps", change.tolist(), unit=UNIT),
    ]


@torch.inference_mode()
def variational_bound(name: str, model: Checkpoint, images: Tensor) -> Figure:
    """Measure the variational bound of test images."""
    network = likelihood.without_label(model.network, model.spec)
    clean = images.float() / 127.5 - 1
    bits = variational.bits_per_dim(network, clean, model.spec, variance="large")
    return Figure(f"{name}, variational bound", bits.tolist(), unit=UNIT)


if __name__ == "__main__":
    sys.exit(main())
