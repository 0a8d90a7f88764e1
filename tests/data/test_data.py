"""Data sets become one array, and what is wrong with them becomes one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image
from sklearn.datasets import load_digits as sklearn_digits

from difftool import data
from difftool.data import Items
from difftool.errors import UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the datasets library that goes away with the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def save(folder: Path, name: str, *, size: tuple[int, int] = (6, 4), mode: str = "L") -> Path:
    """A picture whose red or grey value falls from left to right."""
    folder.mkdir(exist_ok=True, parents=True)
    width, height = size
    ramp = np.linspace(200, 20, width, dtype=np.uint8)
    grey = Image.fromarray(np.tile(ramp, (height, 1)))
    grey.convert(mode).save(folder / name)
    return folder


def load(source: Path | str, **options: Any) -> Items:
    return data.load(str(source), **options)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGB", 3)])
def test_a_folder_of_images(tmp_path: Path, mode: str, channels: int) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / "images", name, mode=mode)
    found = load(tmp_path / "images")
    assert found.values.dtype == np.uint8
    assert found.values.shape == (2, channels, 4, 6)
    if mode != "1":
        assert found.values[0, 0, 0].tolist() == [200, 164, 128, 92, 56, 20]


def test_mixed_sizes_and_modes_are_named_with_what_to_do(tmp_path: Path) -> None:
    save(tmp_path / "images", "a.png")
    save(tmp_path / "images", "b.png", size=(5, 5), mode="RGB")
    with pytest.raises(UsageError, match=r"6x4 L, but image 1 is 5x5 RGB.*`size=4` and `mode=RGB`"):
        load(tmp_path / "images")
    assert load(tmp_path / "images", size=4, mode="L").values.shape == (2, 1, 4, 4)
    assert load(tmp_path / "images", size=8, mode="RGB").values.shape == (2, 3, 8, 8)


def test_other_modes_need_a_choice(tmp_path: Path) -> None:
    save(tmp_path / "images", "a.png", mode="LA")
    with pytest.raises(UsageError, match=r"mode 'LA'.*`mode=L`"):
        load(tmp_path / "images")
    assert load(tmp_path / "images", mode="L").values.shape == (1, 1, 4, 6)


def test_more_than_8_bits_are_refused_and_not_cut_off(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((4, 6), 300, np.uint16)).save(tmp_path / "images" / "a.png")
    for options in ({}, {"mode": "L"}, {"mode": "RGB", "size": 4}):
        with pytest.raises(UsageError, match=r"more than 8 bits.*mode is 'I;16'"):
            load(tmp_path / "images", **options)


def test_a_photograph_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    folder, exif = save(tmp_path / "images", "a.png"), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise
    with Image.open(folder / "a.png") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(folder / "b.png", exif=exif)
    straight, turned = load(folder).values
    np.testing.assert_array_equal(turned, straight)


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "images", "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:40])
    with pytest.raises(UsageError, match=r"cannot read .*b\.png"):
        load(folder)


def test_nothing_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("dear")
    for source in (tmp_path / "empty", tmp_path / "absent.parquet"):
        with pytest.raises(UsageError, match=r"there (are no images in|is no file)") as caught:
            load(source)
        assert "\n" not in str(caught.value)


def test_a_parquet_file_without_rows_or_without_images(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    empty = datasets.Dataset.from_dict({"image": [], "label": []}, features=features)
    empty.to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(UsageError, match=r"no (data|images)"):
        load(tmp_path / "empty.parquet")
    datasets.Dataset.from_dict({"label": [1, 2]}).to_parquet(tmp_path / "labels.parquet")
    with pytest.raises(UsageError, match=r"no columns of images.*set column to one of: label"):
        load(tmp_path / "labels.parquet")


def test_mnist_is_read_from_parquet(shared: Path) -> None:
    found = load(shared / "data" / "mnist" / "test-*.parquet")
    assert found.values.shape == (10_000, 1, 28, 28)
    assert found.values.mean() / 255 == pytest.approx(0.1325, abs=1e-4)


def test_digits_fill_the_grey_levels() -> None:
    found = load("digits")
    assert found.values.shape == (1797, 1, 8, 8)
    assert (int(found.values.min()), int(found.values.max())) == (0, 255)


def test_toys_are_points_of_the_runs_seed() -> None:
    found = load("moons", count=50)
    assert found.values.shape == (50, 2)
    other = load("moons", count=50, seed=1)
    assert not np.array_equal(found.values, other.values)


def test_labels_of_digits_are_the_digits() -> None:
    target = sklearn_digits().target
    found = load("digits", labels="label")
    assert (found.classes, found.labels.tolist()) == (10, target.tolist())
    assert load("digits").labels is None


def off_circle(points: NDArray[np.float32], center: tuple[float, float]) -> NDArray[np.float64]:
    """Return how far points are from a circle of radius 3."""
    return abs(np.hypot(*(points - np.array(center)).T) - 3)


@pytest.mark.parametrize(
    ("toy", "parts", "of"),
    [
        ("gaussians", 2, lambda p: p.sum(1) > 0),
        ("rings", 4, lambda p: np.hypot(*p.T).round() - 1),
        ("moons", 2, lambda p: off_circle(p, (-1.5, -0.75)) > off_circle(p, (1.5, 0.75))),
    ],
)
def test_labels_of_toys_are_their_parts(
    toy: str, parts: int, of: Callable[[NDArray[np.float32]], NDArray[np.int64]]
) -> None:
    """A point's place says which part it is of, if the parts are far from each other."""
    found = load(toy, count=500, labels="label")
    assert (found.classes, found.labels.dtype) == (parts, np.int64)
    assert np.array_equal(found.values, load(toy, count=500).values)
    agreement = (of(found.values) == found.labels).mean()
    assert agreement > 0.97


def test_labels_of_a_folder_are_its_subfolders(tmp_path: Path) -> None:
    for name, mark in (("cat", 3), ("ant", 5), ("bee", 7)):
        save(tmp_path / "images" / name, "a.png", size=(mark, 4))
        save(tmp_path / "images" / name, "b.png", size=(mark, 4))
    found = load(tmp_path / "images", size=4, labels="label")
    assert (found.classes, sorted(found.labels.tolist())) == (3, [0, 0, 1, 1, 2, 2])
    assert found.names == ("ant", "bee", "cat")
    single = load(tmp_path / "images" / "bee", labels="label")
    assert (single.classes, single.values.shape) == (1, (2, 1, 4, 7))
    images = {
        tuple(x.flatten().tolist()): int(k) for x, k in zip(found.values, found.labels, strict=True)
    }
    for label, name in enumerate(("ant", "bee", "cat")):  # by name
        alone = load(tmp_path / "images" / name, size=4).values[0]
        assert images[tuple(alone.flatten().tolist())] == label


def parquet(path: Path, column: object, kind: object) -> Path:
    """Three grey images with a column of that kind beside them."""
    images = [Image.new("L", (2, 2), grey) for grey in (10, 20, 30)]
    features = datasets.Features({"image": datasets.Image(), "kind": kind})
    table = datasets.Dataset.from_dict({"image": images, "kind": column}, features=features)
    table.to_parquet(path)
    return path


def test_labels_of_a_table(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["a", "b", "c", "d"])
    found = load(parquet(tmp_path / "named.parquet", [2, 0, 2], names), labels="kind")
    assert (found.classes, found.labels.tolist()) == (4, [2, 0, 2])
    assert found.names == ("a", "b", "c", "d")
    numbers = parquet(tmp_path / "numbers.parquet", [2, 0, 1], datasets.Value("uint8"))
    assert load(numbers, labels="kind").classes == 3


@pytest.mark.parametrize(
    ("source", "labels", "message"),
    [
        (([0, 1, 2], "int64"), "class", r"no column 'class'.*one of: image, kind"),
        ((["a", "b", "c"], "string"), "kind", "'kind' of .* does not hold an integer"),
        (([0.0, 1.0, 2.0], "float32"), "kind", "does not hold an integer"),
        (([0, None, 1], "int64"), "kind", "does not hold an integer"),
        (([0, 1, 2], "int64"), "image", "does not hold an integer"),
        (([0, -1, 1], "int64"), "kind", "go from -1 to 1.*from 0"),
        (([0, 1, 1999], "int64"), "kind", "3 samples go from 0 to 1999.*without gaps"),
        ("digits", "target", r"'digits' has no labels 'target' \(give `labels=label`\)"),
        ("swiss_roll", "label", r"no labels 'label' \(leave labels out\)"),
    ],
)
def test_what_are_no_labels(
    tmp_path: Path, source: str | tuple[object, str], labels: str, message: str
) -> None:
    if not isinstance(source, str):
        column, kind = source
        source = str(parquet(tmp_path / "a.parquet", column, datasets.Value(kind)))
    with pytest.raises(UsageError, match=message) as caught:
        load(source, labels=labels)
    assert "\n" not in str(caught.value)


def test_a_digest_tells_any_other_data(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    for kind in ("a", "b"):
        save(tmp_path / "images" / kind, "0.png")
    plain = load(tmp_path / "images").sha256
    labelled = load(tmp_path / "images", labels="label").sha256
    found = [plain, labelled, load("digits").sha256, load("digits", labels="label").sha256]
    found += [load(toy, count=count).sha256 for toy in ("moons", "rings") for count in (5, 6)]
    assert all(len(digest) == 64 for digest in found)
    assert len(set(found)) == len(found)
    assert load(tmp_path / "images").sha256 == plain
    save(tmp_path / "images" / "b", "0.png", size=(6, 4), mode="RGB")
    assert load(tmp_path / "images", mode="L").sha256 != plain
