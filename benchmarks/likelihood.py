"""The variational bound of MNIST's test images under the shipped DDPM, in bits per dimension.

    python benchmarks/likelihood.py -n 32

Every level of the schedule is evaluated in PyTorch, on the checkpoint, with one noise each.
"""

import sys
from pathlib import Path

import torch
from _mnist import load_mnist
from _report import ROOT, Figure, finish, parser

from difftool.train.checkpoint import load_checkpoint
from difftool.train.variational import bits_per_dim


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/mnist")
    arguments.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints/ddpm-mnist")
    arguments.add_argument("-n", type=int, default=32, help="how many of the first test images")
    options = arguments.parse_args()
    loaded = load_checkpoint(options.checkpoint)
    images = load_mnist(options.data, "test").images[: options.n].float() / 127.5 - 1

    def network(x: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return loaded.network(x, loaded.network.condition(cond))

    with torch.inference_mode():
        bits = bits_per_dim(network, images, loaded.spec, variance="large").tolist()
    figures = [Figure(name="variational bound of a test image", values=bits, unit="bits/dim")]
    return finish("likelihood", figures, {"n": options.n, "variance": "large"}, options.out)


if __name__ == "__main__":
    sys.exit(main())
