"""The likelihood of MNIST's test images under the shipped checkpoints, in bits per dimension.

    python benchmarks/likelihood.py -n 32

Both by the probability-flow ODE, with one probe an image; the DDPM also by its variational bound,
every level with one noise. What the steps leave out is measured on the first four images, against
twice as many. All in PyTorch.
"""

import sys
from pathlib import Path

import torch
from common.figures import Figure
from common.inside_torch import likelihood, load_checkpoint, variational
from common.machine import ROOT
from common.mnist import FOLDER, load_mnist
from common.report import finish, parser

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
        figures += ode(options.checkpoints / name, images, options.steps)
    figures.append(bound(options.checkpoints / MODELS[0], images))
    setup = {"n": options.n, "steps": options.steps, "probes": 1, "variance": "large"}
    return finish("likelihood", figures, options, **setup)


def ode(checkpoint: Path, images: torch.Tensor, steps: int) -> list[Figure]:
    """Measure the likelihood of test images, and how far twice the steps take it."""
    loaded = load_checkpoint(checkpoint)
    network = likelihood.network_of(loaded.network, loaded.spec)
    bits = likelihood.bits_per_dim(network, images, loaded.spec, steps=steps)
    finer = likelihood.bits_per_dim(network, images[:4], loaded.spec, steps=2 * steps)
    return [
        Figure(f"{checkpoint.name}, ODE", bits.tolist(), unit=UNIT),
        Figure(
            f"{checkpoint.name}, ODE, change with twice the steps",
            (finer - bits[:4]).abs().tolist(),
            unit=UNIT,
        ),
    ]


def bound(checkpoint: Path, images: torch.Tensor) -> Figure:
    """Measure the variational bound of test images."""
    loaded = load_checkpoint(checkpoint)
    network = likelihood.network_of(loaded.network, loaded.spec)
    x0 = images.float() / 127.5 - 1
    with torch.inference_mode():
        bits = variational.bits_per_dim(network, x0, loaded.spec, variance="large")
    return Figure(f"{checkpoint.name}, variational bound", bits.tolist(), unit=UNIT)


if __name__ == "__main__":
    sys.exit(main())
