"""Files appear whole or not at all."""

import errno
import os
import tempfile
from pathlib import Path
from unittest.mock import Mock

import pytest

from difftool import files
from difftool.errors import ResourceError, UsageError
from difftool.files import atomic_directory, locked, read_json, write_atomic, write_json


def test_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"old")
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "fsync", Mock(side_effect=full))
    with pytest.raises(ResourceError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_when_its_block_ends(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "x").read_text() == "1"


@pytest.mark.parametrize("path", ["a", "a/b/c"])
def test_a_failed_folder_leaves_nothing(tmp_path: Path, path: str) -> None:
    """Nor do the folders that were made for it."""

    def fail() -> None:
        with atomic_directory(tmp_path / path) as folder:
            (folder / "x").write_text("1")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def replace_twice(path: Path) -> None:
    for text in ("1", "2"):
        with atomic_directory(path, replace=lambda _: "x") as folder:
            (folder / "x").write_text(text)
    assert_second(path)


def assert_second(path: Path) -> None:
    assert (path / "x").read_text() == "2"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    replace_twice(tmp_path / "a")
    with pytest.raises(UsageError, match="exists"), atomic_directory(tmp_path / "a"):
        pass


def test_json_keeps_every_bit_of_a_float(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308]
    write_json(tmp_path / "a", values)
    assert read_json(tmp_path / "a") == values


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UsageError, match="is not a file"):
            write_atomic(path, b"data")
    assert (tmp_path / "pipe").is_fifo()


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "file", b"")
        with atomic_directory(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_a_link_stays_and_what_it_leads_to_gives_way(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with atomic_directory(tmp_path / "link", replace=lambda _: "x") as folder:
        (folder / "x").write_text("1")
    assert (tmp_path / "link").readlink() == Path("real")
    assert (tmp_path / "real" / "x").read_text() == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_without_an_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "exchanged_at_once", lambda new, old: False)
    replace_twice(tmp_path / "a")
    rename, calls = os.rename, []

    def interrupted(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 3:  # the old one has been moved aside
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_directory(tmp_path / "a", replace=lambda _: "x"):
        pass
    assert_second(tmp_path / "a")


def test_a_lock_holds_until_its_block_ends(tmp_path: Path) -> None:
    with locked(tmp_path / "a", wait=False):
        with pytest.raises(UsageError, match="another process"), locked(tmp_path / "a", wait=False):
            pass
        assert (tmp_path / "a").is_dir()
    with locked(tmp_path / "a", wait=False):
        pass


def test_an_interrupted_clean_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    unlink, calls = os.unlink, []

    def interrupted(*arguments: object, **options: object) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt
        unlink(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "unlink", interrupted)
    with pytest.raises(KeyboardInterrupt), files.temporary_folder() as folder:
        (folder / "a").write_text("1")
    assert list(tmp_path.iterdir()) == []
