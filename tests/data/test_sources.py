"""The name of a data set: files here, their splits, and what alone is asked of the hub."""

import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from difftool import data
from difftool.data.sources import chosen, run_name
from difftool.errors import UsageError


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, and a cache of the datasets library that goes away with the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The calls of the library, which are answered with three grey images."""
    calls: list[tuple[Any, ...]] = []

    def asked(*names: str, **options: Any) -> Any:
        calls.append((*names, options))
        return table(3)

    monkeypatch.setattr(datasets, "load_dataset", asked)
    return calls


def table(count: int) -> datasets.Dataset:
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    columns = {
        "image": [Image.new("L", (2, 2), 10 * index) for index in range(count)],
        "label": [index % 3 for index in range(count)],
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def parquet(path: str, count: int) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    table(count).to_parquet(path)


def picture(path: str, grey: int = 0) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 2), grey, np.uint8)).save(path)


@pytest.mark.parametrize(
    "source",
    [
        *("notes.txt", "./photos", "photos/", "/no/where", "a/b/c", "phtos", "owner/name", "mnist"),
        *("~/photos", "gone.parquet", "gone/*.parquet", "hf:", "hf:a/b/c", "hf:../a", "", "\0"),
    ],
    ids=repr,
)
def test_only_a_name_after_hf_is_asked_of_the_hub(source: str, hub: list[tuple[Any, ...]]) -> None:
    Path("notes.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"no parquet file|there is no|names no data set") as found:
        data.load(source)
    assert found.value.hint
    assert hub == []


def test_the_hub_is_asked_aloud(
    hub: list[tuple[Any, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    assert len(data.load("hf:ylecun/mnist", split="test").values) == 3
    assert hub == [("ylecun/mnist", {"split": "test"})]
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in said] == ["asking the hub for ylecun/mnist"]


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("phtos", "did you mean photos?"),
        ("Photos/", "did you mean photos?"),
        ("my/phtos", "did you mean my/photos?"),
        ("mmy/photos", "did you mean my/photos?"),
        ("photo.parquet", "did you mean photos.parquet?"),
        ("digit", "did you mean digits?"),
        ("rose/cats", "hf:rose/cats for the hub's data set"),
        ("../zzz/at/all", "hf:NAME"),
    ],
)
def test_a_name_of_nothing_is_told_the_nearest(source: str, hint: str) -> None:
    for folder in ("photos", "my/photos"):
        Path(folder).mkdir(parents=True)
    Path("photos.parquet").touch()
    with pytest.raises(UsageError, match=r"there is no (folder|file)") as found:
        data.load(source)
    assert hint in found.value.hint


@pytest.mark.parametrize(
    "layout",
    [
        "{}-00000-of-00001.parquet",
        "{}-00000-of-00001-0a1b2c3d.parquet",
        "data/{}-00000-of-00001.parquet",
        "mnist/{}-00000-of-00001.parquet",
        "{}/0000.parquet",
        "{}.parquet",
        "{}_0.parquet",
    ],
)
def test_splits_of_parquet_files(layout: str) -> None:
    parquet("a/" + layout.format("train"), 3)
    parquet("a/" + layout.format("test"), 2)
    assert len(data.load("a").values) == 3
    assert len(data.load("a", split="test").values) == 2
    with pytest.raises(UsageError, match=r"'a' has no split 'val', but test, train.*`split=test`"):
        data.load("a", split="val")


def test_one_split_is_read_whatever_its_name(caplog: pytest.LogCaptureFixture) -> None:
    parquet("a/test-00000-of-00001.parquet", 2)
    assert len(data.load("a").values) == 2
    assert "a has only the split test, which is read" in caplog.messages
    picture("b/test/cat/0.png")
    assert data.load("b", labels="label").classes == 1
    with pytest.raises(UsageError, match="no split 'validation', but test"):
        data.load("a", split="validation")


def test_files_of_no_split_are_one() -> None:
    parquet("a/one.parquet", 2)
    parquet("a/two.parquet", 3)
    assert len(data.load("a").values) == len(data.load("a", split="test").values) == 5
    assert len(data.load("a/*.parquet").values) == 5
    assert chosen(["other", "train"], "train", "a") == "train"  # of a file of another name too


def test_a_shard_is_missing() -> None:
    parquet("a/train-00001-of-00002.parquet", 2)
    with pytest.raises(UsageError, match="holds 1 of its 2 shards"):
        data.load("a")


def test_folders_in_a_folder_are_not_mixed() -> None:
    parquet("a/one/train-00000-of-00001.parquet", 2)
    parquet("a/two/train-00000-of-00001.parquet", 2)
    with pytest.raises(UsageError, match=r"several folders: one, two \(give one of these"):
        data.load("a")


def test_splits_of_images() -> None:
    picture("a/train/cat/0.png")
    picture("a/train/dog/1.png")
    picture("a/test/cat/2.png")
    assert len(data.load("a", labels="label").values) == 2
    assert len(data.load("a", split="test").values) == 1
    picture("b/train/0.png")
    picture("b/plane/1.png")  # so a train is a class of these
    assert data.load("b", labels="label").classes == 2


def test_the_names_of_images_say_nothing_of_splits() -> None:
    picture("a/a.png")
    picture("a/test_1.png")
    assert len(data.load("a").values) == len(data.load("a", split="test").values) == 2


def test_a_folder_may_have_brackets() -> None:
    picture("a [2026]/[x]/0.png")
    parquet("b[1]/c*.parquet", 2)
    assert len(data.load("a [2026]").values) == 1
    assert len(data.load("b[1]").values) == 2


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("photos/", "photos"),
        ("../my/Photos 2026", "Photos-2026"),
        ("mnist/train-*.parquet", "mnist"),
        ("mnist/data/train-00000-of-00001.parquet", "mnist"),
        ("faces.parquet", "faces"),
        ("train-00000-of-00001.parquet", "train-00000-of-00001"),
        ("hf:ylecun/mnist", "mnist"),
        ("moons", "moons"),
        (".", "here"),
        ("...", "data"),
    ],
)
def test_data_has_a_short_name(source: str, name: str) -> None:
    assert run_name(source) == name
