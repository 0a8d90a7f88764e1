"""The likelihood of MNIST's test images under the shipped checkpoints, in bits per dimension.

    python benchmarks/likelihood.py -n 32

Both by the probability-flow ODE, with one probe an image; the DDPM also by its variational bound,
every level with one noise. What the steps leave out is measured on the first four images, against
twice as many. All in PyTorch.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from common.inside_torch import likelihood, load_checkpoint, variational
from common.machine import ROOT
from common.mnist import FOLDER, load_mnist
from common.report import Figure, finish, parser
from torch import Tensor

from difftool import ModelSpec

MODELS = ("ddpm-mnist", "ncsn-mnist")
UNIT = "bits/dim"


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, default=FOLDER)
    arguments.add_argument("--checkpoints", type=Path, default=ROOT / "checkpoints")
    arguments.add_argument("-n", type=int, default=32, help="how many of the first test images")
    arguments.add_argument("--steps", type=int, default=likelihood.STEPS, help="of the ODE")
    options = arguments.parse_args()
    images = torch.as_tensor(load_mnist(options.data, "test").images[: options.n])
    figures = []
    for name in MODELS:
        loaded = load_checkpoint(options.checkpoints / name)
        network = likelihood.without_label(loaded.network, loaded.spec)
        figures += ode(name, network, loaded.spec, images, options.steps)
        if name == MODELS[0]:
            bound = variational_bound(name, network, loaded.spec, images)
    setup = {"n": options.n, "steps": options.steps, "probes": 1, "variance": "large"}
    return finish("likelihood", [*figures, bound], options, **setup)


def ode(name: str, network: Any, spec: ModelSpec, images: Tensor, steps: int) -> list[Figure]:
    """Measure the likelihood of test images, and how far twice the steps take it."""
    bits = likelihood.bits_per_dim(network, images, spec, steps=steps)
    finer = likelihood.bits_per_dim(network, images[:4], spec, steps=2 * steps)
    change = (finer - bits[:4]).abs()
    return [
        Figure(f"{name}, ODE", bits.tolist(), unit=UNIT),
        Figure(f"{name}, ODE, change with twice the steps", change.tolist(), unit=UNIT),
    ]


def variational_bound(name: str, network: Any, spec: ModelSpec, images: Tensor) -> Figure:
    """Measure the variational bound of test images."""
    with torch.inference_mode():
        x0 = images.float() / 127.5 - 1
        bits = variational.bits_per_dim(network, x0, spec, variance="large")
    return Figure(f"{name}, variational bound", bits.tolist(), unit=UNIT)


if __name__ == "__main__":
    sys.exit(main())
