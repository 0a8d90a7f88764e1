"""Data sets become one tensor, and what is wrong with them becomes one line."""

from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits as sklearn_digits

from difftool.errors import UsageError
from difftool.train import draws
from difftool.train.config import DataConfig, TrainConfig, model_spec
from difftool.train.data import Data, load_data

SLOTS = np.arange(6)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the datasets library prepares goes away with the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def save(folder: Path, name: str, *, size: tuple[int, int] = (6, 4), mode: str = "L") -> Path:
    """A picture whose red or grey value falls from left to right."""
    folder.mkdir(exist_ok=True, parents=True)
    width, height = size
    ramp = np.linspace(200, 20, width, dtype=np.uint8)
    grey = Image.fromarray(np.tile(ramp, (height, 1)))
    grey.convert(mode).save(folder / name)
    return folder


def load(source: Path | str, **options: object) -> Data:
    return load_data(DataConfig.model_validate({"source": str(source), **options}), seed=0)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGB", 3)])
def test_a_folder_of_images(tmp_path: Path, mode: str, channels: int) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / "images", name, mode=mode)
    data = load(tmp_path / "images")
    assert data.items.dtype == torch.uint8
    assert data.items.shape == (2, channels, 4, 6)
    if mode != "1":
        assert data.items[0, 0, 0].tolist() == [200, 164, 128, 92, 56, 20]


def test_mixed_sizes_and_modes_are_named_with_what_to_do(tmp_path: Path) -> None:
    save(tmp_path / "images", "a.png")
    save(tmp_path / "images", "b.png", size=(5, 5), mode="RGB")
    with pytest.raises(UsageError, match=r"6x4 L, but image 1 is 5x5 RGB.*data\.size.*data\.mode"):
        load(tmp_path / "images")
    assert load(tmp_path / "images", size=4, mode="L").shape == (1, 4, 4)
    assert load(tmp_path / "images", size=8, mode="RGB").shape == (3, 8, 8)


def test_other_modes_need_a_choice(tmp_path: Path) -> None:
    save(tmp_path / "images", "a.png", mode="LA")
    with pytest.raises(UsageError, match=r"mode 'LA'.*data\.mode"):
        load(tmp_path / "images")
    assert load(tmp_path / "images", mode="L").shape == (1, 4, 6)


def test_more_than_8_bits_are_refused_and_not_cut_off(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((4, 6), 300, np.uint16)).save(tmp_path / "images" / "a.png")
    for options in ({}, {"mode": "L"}, {"mode": "RGB", "size": 4}):
        with pytest.raises(UsageError, match=r"mode 'I;16'.*8 bits"):
            load(tmp_path / "images", **options)


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "images", "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:40])
    with pytest.raises(UsageError, match=r"cannot read .*b\.png"):
        load(folder)


def test_nothing_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "absent.parquet", "nobody/no-such-data"):
        with pytest.raises(UsageError, match="cannot load the data") as caught:
            load(source)
        assert "\n" not in str(caught.value)


def test_a_parquet_file_without_rows_or_without_images(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    empty = datasets.Dataset.from_dict({"image": [], "label": []}, features=features)
    empty.to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(UsageError, match=r"no (data|images)"):
        load(tmp_path / "empty.parquet")
    datasets.Dataset.from_dict({"label": [1, 2]}).to_parquet(tmp_path / "labels.parquet")
    with pytest.raises(UsageError, match=r"no columns of images.*data\.column to one of: label"):
        load(tmp_path / "labels.parquet")


def test_mnist_is_read_from_parquet(shared: Path) -> None:
    data = load(shared / "data" / "mnist" / "test-*.parquet")
    assert data.items.shape == (10_000, 1, 28, 28)
    assert data.items.double().mean().item() / 255 == pytest.approx(0.1325, abs=1e-4)


def test_digits_fill_the_grey_levels() -> None:
    data = load("digits")
    assert data.items.shape == (1797, 1, 8, 8)
    assert (int(data.items.min()), int(data.items.max())) == (0, 255)


def test_toys_are_points_of_the_runs_seed() -> None:
    data = load("moons", count=50)
    assert data.items.shape == (50, 2)
    other = load_data(DataConfig(source="moons", count=50), seed=1)
    assert not torch.equal(data.items, other.items)


def test_ranges_of_both_methods(images_config: TrainConfig) -> None:
    grey = torch.arange(256, dtype=torch.uint8).view(64, 1, 2, 2)
    ddpm = model_spec(images_config, (1, 2, 2))
    slots = np.arange(64)
    order = draws.batch_indices(1, 0, 64, slots, 64)
    expected = grey[torch.from_numpy(order)].float() / 255
    x0, labels = Data(grey).batch(ddpm, 1, 0, 64, slots)
    assert torch.allclose(x0, expected * 2 - 1, atol=1e-6)
    assert labels is None

    ncsn = model_spec(images_config.model_copy(update={"method": "ncsn"}), (1, 2, 2))
    assert torch.allclose(Data(grey).batch(ncsn, 1, 0, 64, slots)[0], expected)
    spread = Data(grey, dequantize=True).batch(ncsn, 1, 0, 64, slots)[0] * 256
    # A dither of (0, 1] in float32 may round up to the next grey level.
    assert ((spread - expected * 255) > -1e-4).all()
    assert ((spread - expected * 255) < 1 + 1e-4).all()
    assert (spread - expected * 255).mean().item() == pytest.approx(0.5, abs=0.1)


def test_flips_mirror_whole_images(images_config: TrainConfig) -> None:
    items = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2)
    spec = model_spec(images_config, (1, 2, 2))
    plain, _ = Data(items).batch(spec, 5, 2, 6, SLOTS)
    flipped, _ = Data(items, flip=True).batch(spec, 5, 2, 6, SLOTS)
    mirrored = draws.flips(5, 2, SLOTS)
    assert 0 < mirrored.sum() < 6
    for slot in SLOTS:
        expected = plain[slot].flip(-1) if mirrored[slot] else plain[slot]
        assert torch.equal(flipped[slot], expected)


def test_labels_of_digits_are_the_digits() -> None:
    target = sklearn_digits().target
    data = load("digits", labels="label")
    assert data.labels is not None
    assert (data.classes, data.labels.tolist()) == (10, target.tolist())
    assert load("digits").labels is None


def off_circle(points: NDArray[np.float32], center: tuple[float, float]) -> NDArray[np.float64]:
    """How far points are from a circle of radius 3."""
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
    """Where the parts are far from each other, a point's place says which it is of."""
    data = load(toy, count=500, labels="label")
    assert data.labels is not None
    assert (data.classes, data.labels.dtype) == (parts, torch.int64)
    assert torch.equal(data.items, load(toy, count=500).items)
    agreement = (of(data.items.numpy()) == data.labels.numpy()).mean()
    assert agreement > 0.97


def test_labels_of_a_folder_are_its_subfolders(tmp_path: Path) -> None:
    for name, mark in (("cat", 3), ("ant", 5), ("bee", 7)):
        save(tmp_path / "images" / name, "a.png", size=(mark, 4))
        save(tmp_path / "images" / name, "b.png", size=(mark, 4))
    data = load(tmp_path / "images", size=4, labels="label")
    assert data.labels is not None
    assert (data.classes, sorted(data.labels.tolist())) == (3, [0, 0, 1, 1, 2, 2])
    single = load(tmp_path / "images" / "bee", labels="label")
    assert (single.classes, single.shape) == (1, (1, 4, 7))
    images = {
        tuple(x.flatten().tolist()): int(k) for x, k in zip(data.items, data.labels, strict=True)
    }
    for label, name in enumerate(("ant", "bee", "cat")):  # by name
        alone = load(tmp_path / "images" / name, size=4).items[0]
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
    data = load(parquet(tmp_path / "named.parquet", [2, 0, 2], names), labels="kind")
    assert data.labels is not None
    assert (data.classes, data.labels.tolist()) == (4, [2, 0, 2])
    numbers = parquet(tmp_path / "numbers.parquet", [2, 0, 1], datasets.Value("uint8"))
    assert load(numbers, labels="kind").classes == 3


@pytest.mark.parametrize(
    ("column", "kind", "labels", "message"),
    [
        ([0, 1, 2], "int64", "class", r"no column 'class'.*one of: image, kind"),
        (["a", "b", "c"], "string", "kind", "'kind' of .* does not hold an integer"),
        ([0.0, 1.0, 2.0], "float32", "kind", "does not hold an integer"),
        ([0, None, 1], "int64", "kind", "does not hold an integer"),
        ([0, 1, 2], "int64", "image", "does not hold an integer"),
        ([0, -1, 1], "int64", "kind", "go from -1 to 1.*from 0"),
        ([0, 1, 1999], "int64", "kind", "3 samples go from 0 to 1999.*without gaps"),
    ],
)
def test_columns_that_are_no_labels(
    tmp_path: Path, column: object, kind: str, labels: str, message: str
) -> None:
    source = parquet(tmp_path / "a.parquet", column, datasets.Value(kind))
    with pytest.raises(UsageError, match=message) as caught:
        load(source, labels=labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "labels", "message"),
    [
        ("digits", "target", r"'digits' has no labels 'target' \(set data.labels to label\)"),
        ("swiss_roll", "label", r"no labels 'label' \(leave data.labels out\)"),
    ],
)
def test_built_in_data_without_such_labels(source: str, labels: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(source, labels=labels)


def test_a_batch_has_the_labels_of_its_samples(images_config: TrainConfig) -> None:
    items = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 2, 2)
    spec = model_spec(images_config, (1, 2, 2))
    data = Data(items, labels=torch.arange(6), classes=6)
    x0, labels = data.batch(spec, 5, 2, 6, SLOTS)
    assert labels is not None
    assert labels.tolist() == ((x0[:, 0, 0, 0] + 1) * 255 / 2).round().int().tolist()


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
