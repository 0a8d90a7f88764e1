"""The table of backends is true, and one file and one row bring a backend."""

import json
import tomllib
from importlib import import_module
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from difftool.bundle import read_bundle
from difftool.cli import options
from difftool.errors import MissingDependencyError
from difftool.runtime import Model
from difftool.runtime.backends import table
from difftool.runtime.backends.reference import Reference
from difftool.runtime.backends.table import BACKENDS, BackendEntry, find_backend
from difftool.runtime.opening import open_backend
from tests.cli.conftest import Command, difftool  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]

OWN = """
import numpy as np

from difftool.runtime.backends.reference import Reference
from difftool.runtime.backends.table import Asked, BackendEntry

ROW = BackendEntry(name="own", opener="own_backend:open_asked", packages={"own-backend": ""})
ANOTHER = "no row"


def open_asked(bundle, asked: Asked) -> Reference:
    assert (asked.name, asked.precision) == ("own", "fp32")
    return Reference(lambda x, cond: np.tanh(x), bundle.spec.shape)
"""
ENTRY_POINTS = """
[difftool.backends]
own = own_backend:ROW
broken = own_backend:ANOTHER
absent = no_such_module:ROW
tensorrt = own_backend:ROW
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of somebody else is installed that brings a backend."""
    site = tmp_path / "site"
    folder = site / "own_backend-1.5.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: own-backend\nVersion: 1.5\n")
    (folder / "entry_points.txt").write_text(ENTRY_POINTS)
    (site / "own_backend.py").write_text(OWN)
    monkeypatch.syspath_prepend(site)
    return site


@pytest.mark.usefixtures("own")
def test_another_packages_backend(
    difftool: Command,  # noqa: F811
    tiny_bundle: Path,
    tmp_path: Path,
) -> None:
    bundle = read_bundle(tiny_bundle)
    opened = open_backend(bundle, "own", threads=None)
    assert isinstance(opened, Reference)

    done = difftool("sample", tiny_bundle, "--backend", "own", "-n", 2, "--out", "own.npy")
    assert done.code == 0, done.err
    assert np.array_equal(np.load(tmp_path / "own.npy"), Model(bundle, opened).sample(n=2))

    value = json.loads(difftool("doctor", tiny_bundle, "--json").out)
    assert value["backends"]["own"]["state"] == "works"
    assert value["backends"]["own"]["step_ms"] > 0
    assert value["versions"]["own-backend"] == "1.5"
    assert value["chosen"] == "onnxruntime-cpu"  # it is taken by name only

    difftool("sample", tiny_bundle, "--backend", "none").refused(2, "", "aot-inductor, own")


@pytest.mark.usefixtures("own")
def test_a_row_that_is_none_is_told_and_leaves_the_others_alone(
    difftool: Command,  # noqa: F811
    tiny_bundle: Path,
) -> None:
    for name, message in (
        ("broken", "own_backend:ANOTHER is no BackendEntry of the name broken"),
        ("absent", "no_such_module:ROW, backend absent, cannot be imported: No module named"),
    ):
        with pytest.raises(MissingDependencyError, match=message):
            open_backend(read_bundle(tiny_bundle), name, threads=None)
    assert find_backend("tensorrt") in BACKENDS  # a name of ours stays ours
    done = difftool("doctor", tiny_bundle, "--json")
    value = json.loads(done.out)
    assert value["backends"]["own"]["state"] == "works"
    assert "broken" not in value["backends"]
    assert len(value["problems"]) == 2


def test_every_file_of_a_backend_has_a_row() -> None:
    folder = Path(table.__file__).parent
    files = {file.stem for file in folder.glob("*.py") if "def open_asked" in file.read_text()}
    openers = {f"difftool.runtime.backends.{name}:open_asked" for name in files}
    assert {row.opener for row in BACKENDS} == openers
    for row in BACKENDS:
        module, _, function = row.opener.partition(":")
        assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("row", BACKENDS, ids=lambda row: row.name)
def test_an_extra_brings_what_a_backend_needs(row: BackendEntry) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for package, extra in row.packages.items():
        needed = project["optional-dependencies"][extra]
        assert any(each.startswith(f"{package}>=") for each in needed)


def test_the_last_automatic_row_works_anywhere_and_the_others_come_by_speed() -> None:
    automatic = [row for row in BACKENDS if row.automatic]
    assert [row.gpu for row in automatic] == sorted((row.gpu for row in automatic), reverse=True)
    assert not automatic[-1].gpu
    for row in BACKENDS:
        assert set(row.automatic) <= set(row.precisions)
        assert row.gpu or set(row.automatic) <= {"fp32", "int8"}  # a CPU is slow in 16 bits
    assert {"fp32"} == set.intersection(*(set(row.precisions) for row in BACKENDS))


def test_help_names_backends_that_there_are() -> None:
    said = get_args(options.Backend)[1].help
    named = [word.strip(",;.") for word in said.split() if word.startswith(("onnx", "tensor"))]
    assert named
    assert set(named) <= {row.name for row in BACKENDS}
