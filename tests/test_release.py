"""What is published: an sdist and a wheel that the index takes, and what they hold.

`make dist` also installs the wheel into a new environment, and samples there.
"""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from difftool import __version__

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
INFO = f"difftool-{__version__}.dist-info"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*words: object) -> str:
    done = subprocess.run(
        [str(word) for word in words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder)
    return folder


def test_the_index_takes_them(built: Path) -> None:
    files = sorted(file.name for file in built.iterdir())
    assert files == [f"difftool-{__version__}-py3-none-any.whl", f"difftool-{__version__}.tar.gz"]
    run(BIN / "twine", "check", "--strict", *built.iterdir())
    run(BIN / "check-wheel-contents", *built.glob("*.whl"))


def test_the_wheel_is_the_package(built: Path) -> None:
    """All of it, the shipped models too, and nothing else."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        about = message_from_bytes(archive.read(f"{INFO}/METADATA"))
    assert {name.partition("/")[0] for name in names} == {"difftool", INFO}
    tracked = run("git", "ls-files", "src/difftool").split()
    package = {name.removeprefix("src/") for name in tracked}
    assert package <= set(names)
    assert sorted(about.get_all("Provides-Extra", [])) == sorted(PROJECT["optional-dependencies"])
    assert about["Requires-Python"] == PROJECT["requires-python"]


def test_the_sdist_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    source = tmp_path / f"difftool-{__version__}"
    assert not (source / "checkpoints").exists()
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "again"],
        cwd=source,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        capture_output=True,
    )
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(tmp_path / "again" / wheel.name) as other:
        assert {each.filename: each.CRC for each in one.infolist()} == {
            each.filename: each.CRC for each in other.infolist()
        }


def test_the_workflow_is_one() -> None:
    workflow = ROOT / ".github" / "workflows" / "release.yml"
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow)
    text = workflow.read_text()
    assert "id-token: write" in text  # what trusted publishing asks for
    assert "make dist" in text
