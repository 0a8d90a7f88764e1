"""Each extra brings all that its commands need: they run in an environment that has nothing else.

The environment holds links to the installed packages that the extras ask for, and to no others.
"""

import os
import subprocess
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_supply import PROJECT

QUICK: Final = "--sampler ddim --steps 2 -n 2 --threads 1"
SERVED: Final = (
    "import difftool; from difftool.serve import Application; "
    "Application({'digits': difftool.load('ddpm-mnist')})"
)
# After "python", what an interpreter runs; else a line of difftool.
LINES: Final = {
    "cpu": [
        "doctor",
        f"sample {QUICK} --out x.png",
        f"sample {QUICK} --out film.gif",
        "program --sampler heun --steps 3",
    ],
    "openvino": [f"sample --backend openvino {QUICK} --out x.webp"],
    "data": ["python -c \"import difftool; difftool.data.load('digits')\""],
    "train": ["train ddpm --preset digits --steps 1 --batch 2 --out run"],
    "import": ["inspect CHECKPOINT"],
    "export": ["export CHECKPOINT --out b"],
    "cpu,compile": ["compile ddpm-mnist --portable --out sampler.onnx"],
    "cpu,trt-rtx": ["cache why ddpm-mnist --gpu sm89 --precision fp16"],
    "cpu,plot": ["plot schedule ddpm-mnist --out x.png"],
    "cpu,serve": [f'python -c "{SERVED}"'],
    "cpu,ray": [f"sample {QUICK} --shard-size 1 --out shards"],
    "cpu,serve,ray-serve": [f'python -c "{SERVED}; import difftool.serve.replicas"'],
}
# What no environment here has: another ONNX Runtime, a GPU, NVIDIA's index, or torchvision.
ELSEWHERE: Final = {"gpu", "cuda", "trt", "eval"}
TOOLS: Final = {"test", "dev"}


def needed(*extras: str) -> set[str]:
    """Return the names of the packages that pip would install for these extras."""
    found: dict[str, set[str]] = {}
    wanted: list[tuple[str, set[str]]] = [("difftool", {*extras})]
    while wanted:
        name, asked = wanted.pop()
        name = canonicalize_name(name)
        if name in found and asked <= found[name]:
            continue
        found.setdefault(name, set()).update(asked)
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": each}) for each in {"", *asked}):
                wanted.append((requirement.name, {*requirement.extras}))
    return {*found}


@cache
def owners() -> dict[tuple[str, ...], set[str]]:
    """Return which packages have files in each folder of the installed ones, and their files."""
    found: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for distribution in metadata.distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        for file in distribution.files or ():
            for depth in range(1, len(file.parts) + 1):
                found[file.parts[:depth]].add(name)
    return found


def environment_of(packages: set[str], folder: Path) -> Path:
    """Make an environment with links to these packages, and return its Python.

    A folder that other packages have files in is made anew, and a link stands for each other one.
    """
    made = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(made, check=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    for name in packages:
        distribution = metadata.distribution(name)
        for file in distribution.files or ():
            if ".." in file.parts:
                continue  # a script
            parts = next(
                file.parts[:depth]
                for depth in range(1, len(file.parts) + 1)
                if owners()[file.parts[:depth]] <= packages
            )
            link = site.joinpath(*parts)
            if not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path(str(distribution.locate_file("/".join(parts)))))
    return folder / "bin" / "python"


def run(python: Path, words: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    alone = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *words],
        cwd=folder,
        env={**alone, "DIFFTOOL_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )


def commands(lines: list[str], checkpoint: Path) -> Iterator[list[str]]:
    for line in lines:
        words = line.replace("CHECKPOINT", str(checkpoint))
        if words.startswith("python -c "):
            yield ["-c", words.removeprefix("python -c ").strip('"')]
        else:
            yield ["-m", "difftool", *words.split()]


@pytest.mark.parametrize("extras", LINES)
def test_nothing_is_missing(extras: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    python = environment_of(needed(*extras.split(",")), tmp_path / "environment")
    for words in commands(LINES[extras], tiny_checkpoint):
        done = run(python, words, tmp_path)
        assert done.returncode == 0, (words, done.stdout, done.stderr)


def test_a_package_that_is_missing_is_seen(tmp_path: Path) -> None:
    python = environment_of(needed("cpu", "plot") - {"matplotlib"}, tmp_path / "environment")
    (words,) = commands(LINES["cpu,plot"], tmp_path)
    done = run(python, words, tmp_path)
    assert done.returncode == 4
    assert "matplotlib is not installed" in done.stderr


def test_an_extra_brings_nothing_else() -> None:
    assert {"onnxruntime", "numpy"} <= needed("cpu")
    assert not {"torch", "onnx", "matplotlib", "starlette", "openvino"} & needed("cpu")
    assert "torch" in needed("export")


def test_every_extra_is_tried() -> None:
    tried = {extra for extras in LINES for extra in extras.split(",")}
    assert tried | ELSEWHERE | TOOLS == {*PROJECT["optional-dependencies"]}
