"""Only the files that are listed are deleted, whatever the list says."""

from pathlib import Path

import pytest

from difftool.errors import UsageError
from difftool.owned import remove_owned, require_owned


def test_files_and_their_folders_go_and_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name in ("a", "-in/b", "in/deep/c", "in/mine", "mine"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    names = ("a", "-in/b", "in/deep/c", "absent/d")
    remove_owned(folder, names)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert left == {"in", "in/mine", "mine"}
    remove_owned(folder, ("in/mine", "mine"))
    assert not folder.exists()


def test_an_empty_folder_goes(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    remove_owned(tmp_path / "folder", ())
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_leads_elsewhere_deletes_nothing(tmp_path: Path) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    (other / "empty").mkdir(parents=True)
    (other / "file").write_text("dear")
    (folder / "link").symlink_to(other)
    (folder / "file").symlink_to(other / "file")
    names = [base + name for base in ("../other", str(other)) for name in ("/file", "/empty/x")]
    names += ["link/file", "link", "file", "", "."]
    remove_owned(folder, names)
    assert (other / "file").read_text() == "dear"
    assert (other / "empty").is_dir()
    assert sorted(path.name for path in folder.iterdir()) == ["file", "link"]
    with pytest.raises(UsageError, match="also holds file and link, so it is not replaced"):
        require_owned(folder, lambda _: names)


def test_what_else_is_there_is_named_in_part(tmp_path: Path) -> None:
    for name in "abcde":
        (tmp_path / name).write_text("")
    with pytest.raises(UsageError, match="also holds a, b, c and 2 more, so"):
        require_owned(tmp_path, lambda _: ())
