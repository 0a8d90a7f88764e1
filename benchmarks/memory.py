"""Measure the peak memory of `difftool sample -n 1`, for the shipped models."""

import sys
import tempfile
from pathlib import Path

from common.process import run
from common.report import Figure, finish, parser

MODELS = ("ddpm-mnist", "ncsn-mnist")
LIMIT = 250  # MB


def main() -> int:
    arguments = parser(__doc__, "out")
    arguments.add_argument("models", nargs="*", default=MODELS, help="names, or folders of bundles")
    options = arguments.parse_args()
    figures = [
        Figure(f"peak of {Path(model).name}", [peak(model)], unit="MB", at_most=LIMIT)
        for model in options.models
    ]
    return finish("memory", figures, options, command="difftool sample -n 1")


def peak(model: str) -> float:
    """Measure the peak of resident memory, in MB, while a model draws one sample."""
    difftool = Path(sys.executable).with_name("difftool")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "sample.npy"
        return run([difftool, "sample", model, "-n", "1", "--out", out]) / 1e6


if __name__ == "__main__":
    sys.exit(main())
