"""Files appear whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from difftool.errors import ResourceError, UsageError
from difftool.files import atomic_directory, read_json, write_atomic, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_when_its_block_ends(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "x").read_text() == "1"


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_directory(tmp_path / "a") as folder:
            (folder / "x").write_text("1")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    for text in ("1", "2"):
        with atomic_directory(tmp_path / "a", replace=True) as folder:
            (folder / "x").write_text(text)
    assert (tmp_path / "a" / "x").read_text() == "2"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]
    with pytest.raises(UsageError, match="exists"), atomic_directory(tmp_path / "a"):
        pass


def test_json_keeps_every_bit_of_a_float(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308]
    write_json(tmp_path / "a", values)
    assert read_json(tmp_path / "a") == values
