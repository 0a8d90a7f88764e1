"""How fast `difftool` starts, and how little it needs.

With --install all is measured in a new environment that holds `difftool[cpu]` alone; only then its
size is judged, and that `difftool.load` works there, without torch.
"""

import os
import sys
import tempfile
from pathlib import Path

from _process import run, script
from _report import ROOT, Figure, finish, parser
from _timing import differences, interleave

HELP_LIMIT, IMPORT_LIMIT, SIZE_LIMIT = 0.3, 0.25, 250  # seconds, seconds, MB
BASE = "import numpy, onnxruntime"
WITHOUT_TORCH = "import difftool, sys; difftool.load; assert 'torch' not in sys.modules"


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--install", action="store_true", help="measure a new environment")
    options = arguments.parse_args()
    setup = {"rounds": options.rounds, "environment": "new" if options.install else "present"}
    if options.install:
        figures = in_new_environment(options.rounds)
    else:
        figures = start_times(Path(sys.executable), options.rounds)
    return finish("startup", figures, setup, options.out)


def in_new_environment(rounds: int) -> list[Figure]:
    """Install `difftool[cpu]` from this checkout into a new environment, and measure that."""
    os.environ.pop("PYTHONPATH", None)  # or the checkout itself would be imported
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        run([sys.executable, "-m", "venv", folder])
        constraints = ROOT / "constraints.txt"
        run([python, "-m", "pip", "install", "-q", "-c", constraints, f"{ROOT}[cpu]"])
        run([python, "-c", WITHOUT_TORCH])
        name = "environment with difftool[cpu] alone"
        size = Figure(name=name, values=[megabytes(folder)], unit="MB", at_most=SIZE_LIMIT)
        return [*start_times(python, rounds), size]


def start_times(python: Path, rounds: int) -> list[Figure]:
    """Seconds that whole processes take."""
    difftool = script("difftool", python)
    seconds = interleave(
        {
            "help": lambda: run([difftool, "--help"]),
            "base": lambda: run([python, "-c", BASE]),
            "runtime": lambda: run([python, "-c", f"{BASE}; import difftool.runtime"]),
        },
        rounds=rounds,
    )
    above = differences(seconds["runtime"], seconds["base"])
    return [
        Figure(name="difftool --help", values=seconds["help"], unit="s", at_most=HELP_LIMIT),
        Figure(name=BASE, values=seconds["base"], unit="s"),
        Figure(name="difftool.runtime above it", values=above, unit="s", at_most=IMPORT_LIMIT),
    ]


def megabytes(folder: str) -> float:
    """The size of all files in a folder."""
    files = (path for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


if __name__ == "__main__":
    sys.exit(main())
