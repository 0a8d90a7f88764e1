"""difftool models: what ships, and what was fetched from the hub."""

import sys

import pytest

import difftool as package
from tests.cli.conftest import Command


def test_shipped_models_say_how_they_are_sampled(difftool: Command) -> None:
    shipped = difftool("models", "--json").json()["shipped"]
    assert list(shipped) == package.shipped_models()
    for name, found in shipped.items():
        model = package.load(name)
        assert found["shape"] == list(model.spec.shape)
        assert found["program"] == model.default_program().name
        assert found["precisions"] == ["fp32"]
        files = model.bundle.path.iterdir()
        assert found["bytes"] == sum(f.stat().st_size for f in files if f.name != "bundle.json")


def test_without_the_hubs_library(difftool: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    done = difftool("models")
    assert (done.code, done.out.splitlines()[-1].split()) == (0, ["cached", "none"])
