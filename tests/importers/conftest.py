"""Files to import, what is read of them, and how near to its oracle an output must be."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.errors import ArtefactError
from difftool.importers import SettingsMissing, find
from difftool.importers.format import Imported
from difftool.networks import build_network
from difftool.runtime.protocols import Backend, Floats
from difftool.verify.eager import Eager

ONE, RUN = 2e-4, 1e-3  # of the largest output: one evaluation, a whole run

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write content by torch.save, alone in a folder, perhaps with a configuration beside it."""

    def write(content: Any, config: str = "", name: str = "weights") -> Path:
        folder = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        torch.save(content, folder / name)
        if config:
            (folder / "config.yml").write_text(config)
        return folder / name

    return write


class Planted:
    """Becomes a call when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self._command,)


def words(said: Mapping[str, object]) -> dict[str, str]:
    """Return settings as the command line has them."""
    return {name: str(value) for name, value in said.items()}


def read(path: Path, **said: object) -> Imported:
    """Import from a path, with what is said of it."""
    return find(path).read(words(said))


def missing(path: Path, **said: object) -> list[str]:
    """Return the settings that an import asks for."""
    with pytest.raises(SettingsMissing) as caught:
        read(path, **said)
    assert caught.value.exit_code == 2
    return [setting.name for setting in caught.value.missing]


def refusal(path: Path, **said: object) -> str:
    """Return the reason for which the files are not imported."""
    with pytest.raises(ArtefactError) as caught:
        read(path, **said)
    assert caught.value.exit_code == 3
    return caught.value.message


def make_network(imported: Imported) -> nn.Module:
    """Return the imported network with its weights."""
    network = build_network(imported.network)
    network.load_state_dict(dict(imported.tensors))
    return network.eval()


def eager(imported: Imported, *features: Feature) -> Eager:
    """Return the imported network as a backend."""
    return Eager(make_network(imported), imported.spec, features)


@torch.no_grad()
def run_network(imported: Imported, x: Tensor, *conds: Tensor) -> Tensor:
    """Evaluate the imported network."""
    network = make_network(imported)
    return network(x, network.condition(*conds))  # type: ignore[operator]


def run(
    backend: Backend, program: Program, start: Floats, noise: Any, labels: Labels | None = None
) -> Floats:
    """Return the samples of a program from a start, with the given noise of each row."""
    assert len(program) == len(noise)
    batch = backend.batch(program, len(start), labels)
    batch.start(start)
    for drawn in noise:
        batch.step(drawn)
    return batch.x


def near(actual: Any, expected: Any, share: float = ONE) -> bool:
    """Compare arrays or tensors, by a share of the largest value that is expected."""
    assert actual.shape == expected.shape
    return bool(abs(actual - expected).max() <= share * abs(expected).max())
