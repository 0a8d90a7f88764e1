"""Measure how fast `difftool` starts, how little it needs, and how soon its first image is there.

With --install starts are measured in a new environment that holds `difftool[cpu]` alone; only then
its size is judged, and that `difftool.load` works there, without torch.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path

from common.machine import ROOT
from common.process import run
from common.report import Figure, finish, parser, timed
from common.timing import interleave, ratios
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HELP_LIMIT, IMPORT_LIMIT, SIZE_LIMIT = 0.3, 0.25, 250  # seconds, seconds, MB
COLD_LIMIT = 5.0  # times as long through diffusers
STEPS = 10  # of the first image
BASE = "import numpy, onnxruntime"
WITHOUT_TORCH = "import difftool, sys; difftool.load; assert 'torch' not in sys.modules"

# Draws one image from the folder of a pipeline.
DRAW = """
import sys
from diffusers import DDPMPipeline
from diffusers.utils import logging
logging.disable_progress_bar()
pipe = DDPMPipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
pipe(batch_size=1, num_inference_steps=int(sys.argv[2])).images[0].save(sys.argv[3])
"""


def main() -> int:
    arguments = parser(__doc__, "out", rounds=15)
    arguments.add_argument("--cold-rounds", type=int, default=5, help="of the first image")
    arguments.add_argument("--install", action="store_true", help="measure a new environment")
    options = arguments.parse_args()
    present, rounds = Path(sys.executable), options.rounds
    figures = in_new_environment(rounds) if options.install else start_times(present, rounds)
    figures += cold_starts(present, options.cold_rounds)
    return finish("startup", figures, options, environment="new" if options.install else "present")


def in_new_environment(rounds: int) -> list[Figure]:
    """Install `difftool[cpu]` from this checkout into a new environment, and measure that."""
    os.environ.pop("PYTHONPATH", None)  # or the checkout itself would be imported
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        run([sys.executable, "-m", "venv", folder])
        locked = (ROOT / "requirements" / "demo.txt").read_text().splitlines()
        versions = [line.removesuffix(" \\") for line in locked if "==" in line.split("#")[0]]
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(versions))
        run([python, "-m", "pip", "install", "-q", "-c", constraints, f"{ROOT}[cpu]"])
        run([python, "-c", WITHOUT_TORCH])
        name = "environment with difftool[cpu] alone"
        files = [
            path for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink()
        ]
        megabytes = sum(path.stat().st_size for path in files) / 1e6
        size = Figure(name, [megabytes], unit="MB", at_most=SIZE_LIMIT)
        return [*start_times(python, rounds), size]


def start_times(python: Path, rounds: int) -> list[Figure]:
    """Measure the seconds that whole processes take."""
    difftool = python.with_name("difftool")
    commands = {
        "help": [difftool, "--help"],
        "base": [python, "-c", BASE],
        "runtime": [python, "-c", f"{BASE}; import difftool.runtime"],
    }
    turns = {name: partial(run, command) for name, command in commands.items()}
    seconds = interleave(turns, rounds=rounds)
    above = [both - base for both, base in zip(seconds["runtime"], seconds["base"], strict=True)]
    return [
        Figure("difftool --help", seconds["help"], unit="s", at_most=HELP_LIMIT),
        Figure(BASE, seconds["base"], unit="s"),
        Figure("difftool.runtime above it", above, unit="s", at_most=IMPORT_LIMIT),
    ]


def cold_starts(python: Path, rounds: int) -> list[Figure]:
    """Measure the seconds from the start of a process to the file of one image of the shipped DDPM.

    Both load their own copy of it from the disk; the interpreter's environment has everything.
    """
    size = installed_megabytes(["torch", "diffusers"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, theirs = folder / "image.png", folder / "pipeline"
        sample = [python.with_name("difftool"), "sample", "-n", "1", "--steps", str(STEPS)]
        candidates = {"difftool": partial(run, [*sample, "--force", "--out", image])}
        if size is not None:
            save_pipeline(theirs)
            candidates["diffusers"] = partial(run, [python, "-c", DRAW, theirs, str(STEPS), image])
        seconds = interleave(candidates, rounds=rounds)
    figures = timed({f"{name}: first image": values for name, values in seconds.items()}, "s")
    if size is None:
        absent = "torch or diffusers is not installed"
        return [*figures, Figure("diffusers: first image", [], absent=absent)]
    sooner = ratios(seconds["diffusers"], seconds["difftool"])
    return [
        *figures,
        Figure("first image, diffusers / difftool", sooner, at_least=COLD_LIMIT),
        Figure("torch, diffusers and what they need", [size], unit="MB"),
    ]


def save_pipeline(folder: Path) -> None:
    """Write diffusers' pipeline of the shipped DDPM."""
    from common.in_diffusers import pipeline

    from difftool.train import load_checkpoint

    pipeline(load_checkpoint(ROOT / "checkpoints/ddpm-mnist")).save_pretrained(folder)


def installed_megabytes(names: Sequence[str]) -> float | None:
    """Sum the MB of packages and of all that they require; None if one of them is missing."""
    found: dict[str, metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name in names:
                return None
            continue  # what another platform needs, say
        required = map(Requirement, found[name].requires or ())
        waiting += [r.name for r in required if not r.marker or r.marker.evaluate({"extra": ""})]
    files = (file for package in found.values() for file in package.files or ())
    return sum(file.size or 0 for file in files) / 1e6


if __name__ == "__main__":
    sys.exit(main())
