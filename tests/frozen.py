"""Record what difftool does, to see that a change of its structure changes none of it.

    python tests/frozen.py record DIFFTOOL before.json    # the program of an environment
    python tests/frozen.py record DIFFTOOL after.json
    python tests/frozen.py compare before.json after.json

Both recordings are made on one machine: samples differ in the last bits between processors.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
# What tells the time, the place or the version of a library, and not what was done.
VOLATILE = re.compile(r"seconds|_per_second|speed|_ms$|ratio|spread|path|modified|free")
MODELS = ("ddpm-mnist", "ncsn-mnist")
# fmt: off
SAMPLERS = (
    "ddpm", "ddim", "langevin", "annealed_langevin", "consistent_annealed",
    "predictor_corrector", "reverse_diffusion", "probability_flow", "euler", "euler_ancestral",
    "heun", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m", "unipc", "plms",
)
BACKENDS = ("onnxruntime-cpu", "openvino", "torchscript")
COMMANDS = (
    "train", "import", "export", "compile", "sample", "inspect", "quantize", "verify", "bench",
    "eval", "likelihood", "program", "web", "doctor", "plot", "cache",
)
# fmt: on
GROUPS = {"plot": "scores trajectory program schedule", "cache": "ls why rm"}


class Recorder:
    """The commands that were run, and what each printed and made."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program, self._folder = program.absolute(), folder
        self.found: dict[str, Any] = {}

    def run(self, *words: object, files: tuple[str, ...] = ()) -> None:
        """Run a command in the folder, and keep its exit code, its words and its files' digests."""
        line = [str(word) for word in words]
        done = subprocess.run(
            [self._program, *line],
            cwd=self._folder,
            env={**os.environ, "COLUMNS": "80", "DIFFTOOL_CACHE": str(self._folder / "cache")},
            capture_output=True,
            text=True,
        )
        self.found[" ".join(line).replace(str(GOLDEN), "GOLDEN")] = {
            "code": done.returncode,
            "out": steady(done.stdout),
            "err": done.stderr if done.returncode else "",
            "files": {name: self._digests(self._folder / name) for name in files},
        }

    def _digests(self, path: Path) -> Any:
        if not path.exists():
            return None
        if path.is_file():
            return hashlib.sha256(path.read_bytes()).hexdigest()
        inner = sorted(file for file in path.rglob("*") if file.is_file())
        return {str(file.relative_to(path)): self._digests(file) for file in inner}


def steady(text: str) -> Any:
    """Return what was printed; if it is JSON, without its volatile values."""
    try:
        return without_volatile(json.loads(text))
    except ValueError:
        return text


def without_volatile(value: Any) -> Any:
    """A JSON value without what differs between two equal runs."""
    if isinstance(value, dict):
        kept = {key: inner for key, inner in value.items() if not VOLATILE.search(key)}
        return {key: without_volatile(inner) for key, inner in kept.items()}
    if isinstance(value, list):
        return [without_volatile(inner) for inner in value]
    return value


def record(program: Path) -> dict[str, Any]:
    """Run every command: its help, and what it makes of the shipped models and of tiny ones."""
    with tempfile.TemporaryDirectory() as folder:
        to = Recorder(program, Path(folder))
        to.run("--help")
        for command in COMMANDS:
            to.run(command, "--help")
            for inner in GROUPS.get(command, "").split():
                to.run(command, inner, "--help")
        trained(to)
        for model in (*MODELS, "tiny.bundle", "toy.bundle"):
            sampled(to, model)
        made(to)
        imported(to)
        refused(to)
        return to.found


def trained(to: Recorder) -> None:
    """Two small runs, of images with classes and of points, and bundles of them."""
    to.run("train", "ddpm", "--print-config")
    classes = ("train", "ddpm", "--preset", "digits-classes", "--steps", 4, "--out", "tiny")
    to.run(*classes, "--set", "run.checkpoint_every=2", "--json", files=("tiny/checkpoints",))
    to.run("train", "ncsn", "--steps", 40, "--out", "toy", "--json", files=("toy/checkpoints",))
    features = ("--torchscript", "--with", "known", "--with", "guidance", "--with", "norms")
    made = ("tiny.bundle", "toy.bundle")
    to.run("export", "tiny", "--out", made[0], *features, "--json", files=made[:1])
    to.run("export", "toy", "--out", made[1], "--portable", "--json", files=made[1:])
    for run in ("tiny", "toy", *made):
        to.run("inspect", run, "--json")
    for method in ("ode", "bound"):
        to.run("likelihood", "tiny", "--data", "digits", "-n", 2, "--method", method, "--json")


def sampled(to: Recorder, model: str) -> None:
    """Samples of 20 steps, by every sampler and every backend that runs here.

    A model of 10 noise levels takes 10, but by the samplers that stay on a level.
    """
    to.run("inspect", model, "--json")
    few = model in ("ncsn-mnist", "toy.bundle")
    table, drawn = f"{model}.program.json", f"{model}.npy"
    for sampler in SAMPLERS:
        steps = 10 if few and "langevin" not in sampler and "anneal" not in sampler else 20
        words = (model, "--sampler", sampler, "--steps", steps, "--force", "--json")
        to.run("program", *words, "--out", table, files=(table,))
        to.run("sample", *words, "-n", 2, "--out", drawn, files=(drawn,))
    for backend in BACKENDS:
        words = (model, "--backend", backend, "--sampler", "ddim", "--steps", 10)
        to.run("sample", *words, "-n", 3, "--out", drawn, "--force", "--json", files=(drawn,))
        to.run("verify", *words, "--json")
    to.run("verify", model, "--backend", "numpy", "--sampler", "ddim", "--steps", 3, "--json")


def made(to: Recorder) -> None:
    """Make pictures, films, edits, int8, one file, a page and figures of bundles."""
    brief = ("--sampler", "ddim", "--steps", 4, "--force", "--json", "--out")

    def draw(model: str, file: str, *words: object) -> None:
        to.run("sample", model, *brief, file, *words, files=(file,))

    draw("ddpm-mnist", "grid.png", "-n", 4)
    draw("ddpm-mnist", "film.gif", "-n", 2)
    draw("ddpm-mnist", "x.npy", "-n", 2, "--deterministic")
    draw("ddpm-mnist", "x.npy", "-n", 3, "--between", "0,1")
    draw("ddpm-mnist", "some.npz", "-n", 8)
    draw("ddpm-mnist", "x.npy", "-n", 8, "--known", "some.npz", "--fill", "left")
    draw("ddpm-mnist", "x.npy", "-n", 8, "--init", "some.npz", "--strength", 0.5)
    draw("tiny.bundle", "x.npy", "-n", 4, "--labels", "0-3", "--guidance-scale", 2)
    draw("tiny.bundle", "few.npz", "-n", 2)
    draw("tiny.bundle", "x.npy", "-n", 2, "--known", "few.npz", "--fill", "top")
    to.run("quantize", "ddpm-mnist", "--out", "int8", "--steps", 5, "--json", files=("int8",))
    draw("int8", "x.npy", "-n", 2, "--precision", "int8")
    to.run("compile", "ddpm-mnist", "--portable", "--out", "s.onnx", "--json", files=("s.onnx",))
    to.run("web", "ddpm-mnist", "--runtime", "absent", "--json")
    to.run("verify", "tiny.bundle", "tiny", "--steps", 3, "--bisect", "--json")
    to.run("eval", "--samples", "some.npz", "--against", "some.npz", "--json")
    to.run("eval", "toy.bundle", "--against", "gaussians", "-n", 50, "--json")
    for what in ("program", "schedule"):
        to.run("plot", what, "ddpm-mnist", "--out", f"{what}.svg", "--json")
    to.run("bench", "toy.bundle", "--batch", 2, "--rounds", 2, "--sampler", "ddim", "--steps", 2)
    to.run("doctor", "--json")
    to.run("cache", "ls", "--json")


def imported(to: Recorder) -> None:
    """The checkpoints of others, of which the golden values are known."""
    say = ("--set", "resolution=16")
    for name in ("ncsn_v1_mnist28", "ncsn_v2_cifar32", "improved_diffusion_learned_sigma"):
        to.run("import", GOLDEN / name, "--out", name, "--json", files=(name,))
    to.run("import", GOLDEN / "ddpm_pesser16", *say, "--out", "pesser", "--json", files=("pesser",))


def refused(to: Recorder) -> None:
    """Mistakes: each is an exit code and two lines."""
    to.run("sample", "absent")
    to.run("sample", "ddpm-mnist", "--sampler", "dimm")
    to.run("sample", "ddpm-mnist", "--arg", "etta=1")
    to.run("sample", "ddpm-mnist", "--backend", "cuda")
    to.run("sample", "ddpm-mnist", "--labels", "3")
    to.run("sample", "ddpm-mnist", "--steps", "many")
    to.run("train", "ddpm", "--preset", "absent")
    to.run("train", "ddpm", "--set", "optimizer.rate=1")
    to.run("export", "absent", "--out", "b")
    to.run("import", "absent", "--out", "b")
    to.run("inspect", "absent")
    to.run("compile", "ddpm-mnist")


def differences(before: Any, after: Any, at: str = "") -> list[str]:
    """The places at which two recordings differ, a line each."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        absent = "(absent)"
        pairs = ((f"{at} | {key}", before.get(key, absent), after.get(key, absent)) for key in keys)
        return [line for name, old, new in pairs for line in differences(old, new, name)]
    return [] if before == after else [f"{at.removeprefix(' | ')}\n  - {before!r}\n  + {after!r}"]


def main(words: list[str]) -> int:
    """Record or compare; exit code 1 if two recordings differ."""
    match words:
        case ["record", program, out]:
            Path(out).write_text(json.dumps(record(Path(program)), indent=1), encoding="utf-8")
            return 0
        case ["compare", before, after]:
            read = [json.loads(Path(file).read_text(encoding="utf-8")) for file in (before, after)]
            found = differences(*read)
            print(*found, f"{len(found)} differences", sep="\n")
            return bool(found)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
