"""A folder of samples: what it holds, how it is gone on with, and what is refused."""

import ctypes
import hashlib
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

import difftool
from difftool import data, scale
from difftool.errors import ArtefactError, DifftoolError, ResourceError, UsageError
from difftool.files import locked
from difftool.runtime import to_uint8
from difftool.scale import work
from difftool.scale.workers import sigterm_kept
from tests.cli.conftest import tree

N = 7


def sample(model: Path, out: Path, **options: Any) -> scale.Manifest:
    return scale.sample(model, out, **{"n": N, "seed": 3, "max_batch": 4, **options})


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def files(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the datasets library that goes away with the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("kind", ["tiny", "points", "classes"])
def test_samples_are_those_of_the_model(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bundle = request.getfixturevalue(f"{kind}_bundle")
    model = difftool.load(bundle, threads=1, max_batch=4)
    expected = model.sample(n=N, seed=3, deterministic=True)
    found = [sample(bundle, tmp_path / str(size), shard_size=size) for size in (3, 5, 1000)]
    for size in (3, 5, 1000):
        digests = scale.digests(tmp_path / str(size))
        assert digests == {index: sha256(each) for index, each in enumerate(expected)}
    assert len({manifest.samples_sha256 for manifest in found}) == 1
    values = data.read_samples(tmp_path / "3")
    wanted = expected if kind == "points" else to_uint8(expected, model.spec)
    np.testing.assert_array_equal(values, wanted)


def test_the_datasets_library_loads_a_folder(classes_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples"
    sample(classes_bundle, out, shard_size=3, labels=[2, 0, 3])
    table = datasets.load_dataset(str(out), split="train")
    assert table["index"][:] == list(range(N))
    assert table["label"][:] == [2, 0, None, 2, 0, None, 2]  # 3 is the null label
    assert table.features["label"].num_classes == 3
    pixels = np.stack([np.asarray(image) for image in table["image"]])
    np.testing.assert_array_equal(pixels[..., None], data.read_samples(out))


def test_data_to_train_on(classes_bundle: Path, points_bundle: Path, tmp_path: Path) -> None:
    sample(classes_bundle, tmp_path / "images", shard_size=3, labels=[0, 1, 2])
    images = data.load(str(tmp_path / "images"), labels="label")
    assert images.values.shape == (N, 1, 8, 8)
    assert images.labels is not None
    assert (images.labels.tolist(), images.classes) == ([0, 1, 2, 0, 1, 2, 0], 3)
    sample(points_bundle, tmp_path / "points", shard_size=3)
    points = data.load(str(tmp_path / "points"))
    assert (points.values.dtype, points.values.shape) == (np.float32, (N, 2))
    assert sha256(points.values[5]) == scale.digests(tmp_path / "points")[5]


def stop_after(shards: int) -> Callable[[int, int], None]:
    """Return a hook that is interrupted, as by Ctrl-C, when so many shards are there."""
    seen: list[int] = []

    def hook(there: int, n: int) -> None:
        seen.append(there)
        if len(seen) == shards:
            raise KeyboardInterrupt

    return hook


def test_an_interrupted_folder_is_gone_on_with(tiny_bundle: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "samples", sample(tiny_bundle, tmp_path / "whole", shard_size=2)
    with pytest.raises(KeyboardInterrupt):
        sample(tiny_bundle, out, shard_size=2, on_shard=stop_after(2))
    part = scale.read_manifest(out)
    assert (part.shards, part.samples_sha256) == (whole.shards[:2], None)
    with pytest.raises(UsageError, match="holds 2 of its 4 shards"):
        data.load(str(out))
    (out / "data/.train-00002-of-00004.parquet.0123abcd").write_text("a part")
    drawn: list[int] = []
    assert sample(tiny_bundle, out, shard_size=2, on_shard=lambda *n: drawn.append(n[0])) == whole
    assert drawn == [6, 7]
    assert files(out) == files(tmp_path / "whole")
    sample(tiny_bundle, out, shard_size=2, on_shard=lambda *n: drawn.append(n[0]))
    assert drawn == [6, 7]


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_text("")])
def test_a_damaged_shard_is_drawn_again(
    damage: Callable[[Path], object], tiny_bundle: Path, tmp_path: Path
) -> None:
    whole = sample(tiny_bundle, tmp_path, shard_size=2)
    before = tree(tmp_path)
    damage(tmp_path / whole.shards[1].file)
    drawn: list[int] = []
    assert sample(tiny_bundle, tmp_path, shard_size=2, on_shard=lambda *n: drawn.append(n[0])) == (
        whole
    )
    assert (drawn, tree(tmp_path)) == ([7], before)


def test_a_folder_of_another_request_says_what_differs(
    tiny_bundle: Path, classes_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "samples"
    sample(tiny_bundle, out, shard_size=3)
    before = tree(out)
    steps = difftool.samplers.ddim(difftool.load(tiny_bundle).spec, steps=3)
    for options, told in (
        ({"seed": 4}, "seed 3, not 4"),
        ({"n": 8}, "n 7, not 8"),
        ({"max_batch": 2}, "max_batch 4, not 2"),
        ({"shard_size": 2, "threads": 2}, "threads 1, not 2; max_batch|threads 1, not 2; shard"),
        ({"program": steps}, r"program ddpm\(.*, not ddim\("),
    ):
        with pytest.raises(UsageError, match=f"another request: .*({told})"):
            sample(tiny_bundle, out, **{"shard_size": 3, **options})
    with pytest.raises(UsageError, match="another request: model_sha256"):
        sample(classes_bundle, out, shard_size=3)
    assert tree(out) == before


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"n": 0}, UsageError, "both are at least 1"),
        ({"shard_size": 0}, UsageError, "both are at least 1"),
        ({"n": 1 << 33, "shard_size": 1 << 30}, UsageError, "indices are 0 to"),
        ({"n": 100_000, "shard_size": 1}, UsageError, "more than 99999 files"),
        ({"seed": -1}, UsageError, "seed"),
        ({"cpus_per_task": 0}, UsageError, "at least 1 CPU"),
        ({"gpus_per_task": float("nan")}, UsageError, "0 or more GPUs"),
        ({"threads": 0}, UsageError, "at least 1 CPU and 1 thread"),
        ({"max_work": 10}, ResourceError, "10 are allowed"),
        ({"labels": [0]}, UsageError, "no class labels"),
        ({"backend": "abacus"}, UsageError, "unknown backend"),
        ({"ray": "local", "device": 1}, UsageError, "Ray chooses"),
        ({"ray": "nowhere"}, UsageError, "is no address"),
        ({"ray": "127.0.0.1:1"}, ResourceError, "no cluster answers at 127.0.0.1:1"),
        ({"ray": "127.0.0.1:99999"}, ResourceError, "no cluster answers"),
    ],
)
def test_what_cannot_be_drawn_makes_no_folder(
    options: dict[str, Any], kind: type[DifftoolError], told: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=told):
        sample(tiny_bundle, tmp_path / "samples", **options)
    assert not (tmp_path / "samples").exists()


def test_labels_that_the_model_lacks(classes_bundle: Path, tmp_path: Path) -> None:
    for labels in ([4], []):
        with pytest.raises(UsageError, match="label"):
            sample(classes_bundle, tmp_path / "samples", labels=labels)
    assert not (tmp_path / "samples").exists()


def test_a_program_that_couples_samples(featured_bundle: Path, tmp_path: Path) -> None:
    spec = difftool.load(featured_bundle).spec
    coupled = difftool.samplers.predictor_corrector(spec, steps=4, corrector="reference")
    with pytest.raises(UsageError, match="would depend on the shards"):
        sample(featured_bundle, tmp_path / "samples", program=coupled)


def test_places_that_are_taken(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/manifest.json").write_text('{"format": 2}')
    before = tree(tmp_path)
    for place, kind in (
        (tmp_path / "mine", UsageError),
        (tmp_path / "mine/diary.txt", UsageError),
        (tmp_path / "odd", ArtefactError),
        (tiny_bundle / "samples", UsageError),
    ):
        with pytest.raises(kind):
            sample(tiny_bundle, place)
    with (
        locked(tmp_path / "busy", wait=False),
        pytest.raises(UsageError, match="another process is at work"),
    ):
        sample(tiny_bundle, tmp_path / "busy")
    (tmp_path / "busy").rmdir()
    assert tree(tmp_path) == before


def test_a_worker_with_another_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    opening = work.Opening(
        model=str(tiny_bundle),
        sha256="0" * 64,
        backend=None,
        precision="fp32",
        threads=1,
        device=0,
        max_batch=None,
        max_work=10**6,
        limits=None,
        trust=(),
    )
    with pytest.raises(ArtefactError, match="another bundle at a worker"):
        work.settle(replace(opening))


def test_no_folder_of_samples(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no folder of samples"):
        scale.read_manifest(tmp_path)


def test_sigterm_is_kept_where_a_library_takes_it_away_from_python() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with sigterm_kept():
            ctypes.CDLL(None).signal(signal.SIGTERM, 0)  # Python does not see this
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
