"""--backend: what is said where a backend cannot run."""

from pathlib import Path

import pytest

from difftool.runtime.backends.table import BACKENDS
from difftool.runtime.cuda import cuda_device
from tests.cli.conftest import Command


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cuda_device, "has_driver", lambda: False)
    monkeypatch.setenv("DIFFTOOL_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", [row.name for row in BACKENDS if row.gpu or row.untried])
def test_what_a_backend_lacks_is_said_in_one_line(
    difftool: Command, tiny_bundle: Path, tmp_path: Path, name: str
) -> None:
    done = difftool("sample", tiny_bundle, "--backend", name, "--out", tmp_path / "x.npz")
    assert (done.code, done.out) == (4, "")
    error, hint = done.err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_backend_is_a_usage_error(difftool: Command, tiny_bundle: Path) -> None:
    done = difftool("sample", tiny_bundle, "--backend", "cuda")
    assert done.code == 2
    assert done.err.splitlines() == [
        "error: unknown backend 'cuda'",
        f"hint: one of: auto, {', '.join(row.name for row in BACKENDS)}",
    ]
