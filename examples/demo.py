"""A tour of difftool: sample the shipped models, then train, export, verify and sample one anew.

`make demo` runs it. Everything that it makes is in the folder demo/.
"""

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

import difftool

DEMO = Path("demo")
RUN, BUNDLE = DEMO / "digits", DEMO / "digits.bundle"
SCALE = 4  # of pictures, so that one can see them


def main() -> int:
    report = Report()
    for name in difftool.shipped_models():
        draw(report, name, DEMO / f"{name}.png")

    config = difftool.train.preset("digits")
    shutil.rmtree(RUN, ignore_errors=True)  # or the run would go on from where it ended
    command = f"difftool train ddpm --preset digits --out {RUN}"
    with report.step(f"train a DDPM on digits, {config.run.steps} steps", command, RUN):
        difftool.train.train(config, RUN, progress=sys.stderr.isatty())

    command = f"difftool export {RUN} --out {BUNDLE} --force"
    with report.step("export it", command, BUNDLE):
        difftool.export.export(RUN, BUNDLE, force=True)

    command = f"difftool verify {BUNDLE} {RUN}"
    with report.step("verify it against PyTorch", command):
        check = difftool.verify.verify(BUNDLE, RUN).result

    draw(report, BUNDLE, DEMO / "digits.png")
    report.print()
    print("\nThe exported step and PyTorch's differ by at most", end=" ")
    print(f"{check.step_error:.0e}; {check.step_tolerance:.0e} is allowed.")
    return 0 if check.passed else 1


def draw(report: "Report", model: str | Path, picture: Path) -> None:
    """Draw 16 samples with the program that the model was exported with, onto a grid."""
    opened = difftool.load(model)
    steps = opened.default_program().nfe
    command = f"difftool sample {model} -n 16 --seed 0 --scale {SCALE} --out {picture} --force"
    with report.step(f"draw 16 of {model}, {steps} steps", command, picture):
        samples = opened.sample(n=16, seed=0)  # float32 [16, channels, height, width]
        pixels = difftool.to_uint8(samples, opened.spec)
        picture.parent.mkdir(exist_ok=True)
        sheet = difftool.runtime.grid(pixels).squeeze()
        Image.fromarray(sheet.repeat(SCALE, 0).repeat(SCALE, 1)).save(picture)


class Report:
    """A table of the steps, their times and results, and the commands that do the same."""

    def __init__(self) -> None:
        self._table = Table("done", "seconds", "made")
        self._commands: list[str] = []

    @contextlib.contextmanager
    def step(self, what: str, command: str, made: Path | str = "") -> Iterator[None]:
        """Time a block and remember it."""
        print(what, "...", flush=True)
        begin = time.perf_counter()
        yield
        seconds = time.perf_counter() - begin
        self._table.add_row(what, f"{seconds:7.1f}", str(made))
        self._commands.append(command)

    def print(self) -> None:
        """Print a table, and the commands below it."""
        Console().print(self._table)
        print("The same from the command line:", *self._commands, sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())
