"""The Dockerfile's steps without a container: build in a folder instead of /, and its commands."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
DEPLOY: Final = ROOT / "deploy"


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a Dockerfile, each with its words in one line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, words = line.strip().partition(" ")
            yield name, " ".join(words.split())


class Image:
    """What the Dockerfile says of the last stage, and how to build it somewhere."""

    def __init__(self) -> None:
        self.steps = list(instructions((DEPLOY / "Dockerfile").read_text(encoding="utf-8")))
        self._last = max(at for at, (name, _) in enumerate(self.steps) if name == "FROM")

    def _only(self, name: str) -> str:
        (words,) = [words for each, words in self.steps[self._last :] if each == name]
        return words

    @property
    def user(self) -> str:
        return self._only("USER")

    @property
    def entrypoint(self) -> list[str]:
        return list(json.loads(self._only("ENTRYPOINT")))

    @property
    def command(self) -> list[str]:
        return list(json.loads(self._only("CMD")))

    @property
    def health(self) -> list[str]:
        return list(json.loads(self._only("HEALTHCHECK").partition(" CMD ")[2]))

    @property
    def environment(self) -> dict[str, str]:
        return dict(word.split("=", 1) for word in self._only("ENV").split())

    def build(self, folder: Path, environment: Mapping[str, str]) -> Path:
        """Run COPY and RUN of the first stage below a folder; return the folder of the programs."""
        place, values = folder / "build", dict(environment)
        place.mkdir()
        for name, words in self.steps[: self._last]:
            if name == "ARG":
                key, _, value = words.partition("=")
                values.setdefault(key, value)
            elif name == "COPY":
                *sources, target = re.sub(r"\$\{(\w+)\}", lambda m: values[m[1]], words).split()
                for source in sources:
                    _copy(ROOT / source, place / target)
            elif name == "RUN":
                script = words.replace("/opt/", f"{folder}/opt/")
                line = ["sh", "-ec", script]
                subprocess.run(line, cwd=place, env={**os.environ, **values}, check=True)
        return folder / "opt" / "difftool" / "bin"


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        return
    target.mkdir(exist_ok=True)
    shutil.copy(source, target)
