"""A pack for a machine without a network, on one: the pieces, and what unpack.sh makes of them."""

import shutil
import subprocess
import tarfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pytest
from gpu import pack
from gpu.part import Request, _prepared

from difftool.errors import UsageError


@pytest.fixture
def packed(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A pack of the tiny model, and of a wheel and a source of one file."""

    def call(command: Sequence[str]) -> None:
        if "archive" in command:
            (tmp_path / "README.md").write_text("the source")
            with tarfile.open(command[command.index("--output") + 1], "w") as archive:
                archive.add(tmp_path / "README.md", "README.md")
        elif "download" in command:
            folder = Path(command[command.index("--dest") + 1])
            folder.mkdir(parents=True)
            (folder / "a.whl").write_bytes(b"no wheel" * 1000)

    def models(folder: Path, work: Path) -> None:
        shutil.copytree(tiny_bundle, folder / "tiny/bundle")
        shutil.copytree(tiny_checkpoint, folder / "tiny/checkpoint")

    monkeypatch.setattr(pack, "models", models)
    out = tmp_path / "pack"
    options = Namespace(
        out=out, work=tmp_path, piece="20K", python="3.12", platform=None, package=["six"]
    )
    assert pack.pack(options, call) == 0
    return out


def test_pieces_are_small_and_join_to_what_was_packed(packed: Path, tmp_path: Path) -> None:
    pieces = sorted(packed.glob("piece.*"))
    assert len(pieces) > 2
    assert {piece.stat().st_size for piece in pieces[:-1]} == {20_000}
    into = tmp_path / "there"
    done = subprocess.run(
        ["sh", str(packed / "unpack.sh"), str(into)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "not: wheels/a.whl" in done.stdout  # what cannot be installed is named
    root = into / "difftool-gpu"
    assert (root / "source/README.md").read_text() == "the source"
    request = Request("", str(tmp_path / "work"), model="tiny", models=str(root / "models"))
    setting = _prepared(request)  # nothing is exported
    assert setting.program.name.startswith("ddpm(")
    assert setting.bundle.path == root / "models/tiny/bundle"


def test_a_damaged_piece_is_found(packed: Path, tmp_path: Path) -> None:
    piece = packed / "piece.0001"
    piece.write_bytes(piece.read_bytes()[:-1] + b"?")
    done = subprocess.run(["sh", str(packed / "unpack.sh"), str(tmp_path)], capture_output=True)
    assert done.returncode != 0
    assert b"piece.0001" in done.stdout + done.stderr


def test_the_wheels_are_those_of_another_python_and_of_the_extras() -> None:
    arguments = pack.wheels(Namespace(platform=None, python="3.12", package=["six"]), Path("w"))
    assert arguments[arguments.index("--python-version") + 1] == "3.12"
    assert "--platform=manylinux_2_28_x86_64" in arguments
    names = " ".join(arguments)
    for name in ("onnxruntime-gpu", "cuda-core", "tensorrt-rtx", "pytest", "numpy", "onnx>", "six"):
        assert name in names
    assert "difftool" not in names


@pytest.mark.parametrize("text", ["45", "M", "0M", "x5M", ""])
def test_a_size_has_a_unit(text: str) -> None:
    assert pack.parse_size("45M") == 45_000_000
    with pytest.raises(UsageError, match="no size"):
        pack.parse_size(text)
