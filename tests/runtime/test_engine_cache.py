"""The cache: what is stored is found, and what is damaged, foreign or changed is not."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from difftool.bundle import EngineKey
from difftool.errors import ResourceError
from difftool.runtime.engine_cache import EngineCache, Record, cache_folder, key_digest
from tests.fixtures import ENGINE_KEY

OTHER = ENGINE_KEY.model_copy(update={"precision": "fp16"})


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


def store(cache: EngineCache, data: bytes = b"engine", key: EngineKey = ENGINE_KEY) -> Record:
    return cache.store(key, data, model="m", seconds=1.0)


def test_what_is_stored_is_found_by_its_whole_key(cache: EngineCache) -> None:
    assert cache.find(ENGINE_KEY) is None
    record = cache.store(ENGINE_KEY, b"engine", model="m", seconds=2.5)
    assert cache.find(ENGINE_KEY) == record
    assert cache.find(OTHER) is None
    assert cache.path(record).read_bytes() == b"engine"
    assert (record.size, record.model, record.seconds) == (6, "m", 2.5)
    assert record.created.endswith("+00:00")


@pytest.mark.parametrize("field", sorted(EngineKey.model_fields))
def test_every_field_of_a_key_names_another_engine(field: str) -> None:
    changed: dict[str, object] = {
        "onnx_sha256": "2" * 64,
        "recipe": 3,
        "flavour": "tensorrt",
        "version": "1.8",
        "gpus": ("sm89", "sm120"),
        "precision": "fp16",
        "profile": (1, 8, 65),
        "batches": (1, 64),
        "refit": True,
    }
    other = ENGINE_KEY.model_copy(update={field: changed[field]})
    assert key_digest(other) != key_digest(ENGINE_KEY)


def test_a_damaged_engine_is_not_found(cache: EngineCache) -> None:
    record = store(cache)
    cache.path(record).write_bytes(b"enginf")
    assert cache.find(ENGINE_KEY) is None
    cache.path(record).unlink()
    assert cache.records() == []


def test_a_damaged_newer_or_renamed_record_is_passed_over(cache: EngineCache) -> None:
    kept = store(cache, b"other", OTHER)
    store(cache)
    path = cache.folder / f"{key_digest(ENGINE_KEY)}.json"
    text = path.read_text()
    changed = (json.dumps({**json.loads(text), **more}) for more in ({"extra": 1}, {"format": 2}))
    for broken in ("{", "[]", *changed):
        path.write_text(broken)
        assert cache.records() == [kept]
    path.write_text(text)
    path.rename(cache.folder / f"{'0' * 64}.json")  # as if it were the record of another key
    assert cache.records() == [kept]


def test_storing_again_replaces_the_engine_and_leaves_one_file(cache: EngineCache) -> None:
    store(cache, b"first")
    record = store(cache, b"second")
    assert cache.find(ENGINE_KEY) == record
    assert [path.read_bytes() for path in cache.folder.glob("*.engine")] == [b"second"]


def test_builders_at_the_same_time_leave_a_whole_engine(cache: EngineCache) -> None:
    def build(index: int) -> None:
        store(cache, bytes([index]) * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(build, range(32)))
    record = cache.find(ENGINE_KEY)
    assert record is not None
    assert len(set(cache.path(record).read_bytes())) == 1


def test_removing_takes_all_that_belongs_to_an_engine(cache: EngineCache) -> None:
    record = store(cache)
    kept = store(cache, b"other", OTHER)
    cache.write(cache.runtime_path(record.sha256, "sm_89"), b"kernels")
    cache.remove(record)
    assert cache.records() == [kept]
    assert cache.read(cache.runtime_path(record.sha256, "sm_89")) == b""


def test_removing_leaves_what_another_process_has_built_since(cache: EngineCache) -> None:
    old = store(cache, b"old")
    new = store(cache, b"new")
    cache.remove(old)
    assert cache.find(ENGINE_KEY) == new


def test_clearing_deletes_what_is_ours_and_nothing_else(cache: EngineCache) -> None:
    record = store(cache)
    left_by_a_killed_process = cache.folder / f".{record.sha256}.engine.0123"
    left_by_a_killed_process.write_bytes(b"eng")
    cache.write(cache.timing_path("tensorrt", "11", "NVIDIA H/100"), b"times")
    mine = {"package.json", "steam.engine", "cpu.runtime", "race.timing", ".x.json.0a"}
    mine |= {"thesis.tex"}
    for name in mine:
        (cache.folder / name).write_text("text")
    (cache.folder / f"{'0' * 64}.json").mkdir()
    assert cache.clear() > len(b"engine" + b"eng" + b"times")
    assert {path.name for path in cache.folder.iterdir()} == {*mine, f"{'0' * 64}.json"}
    assert EngineCache(cache.folder / "absent").clear() == 0


def test_timings_are_kept_in_the_folder_whatever_a_gpu_is_called(cache: EngineCache) -> None:
    path = cache.timing_path("tensorrt", "11", "../NVIDIA H/100")
    assert path.parent == cache.folder
    assert path != cache.timing_path("tensorrt", "11", "NVIDIA H")


def test_a_folder_that_others_can_write_to_is_not_believed(cache: EngineCache) -> None:
    store(cache)
    cache.folder.chmod(0o777)
    for use in (cache.records, cache.clear, lambda: cache.find(ENGINE_KEY)):
        with pytest.raises(ResourceError, match="others can write into the cache"):
            use()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot make the cache"):
        store(EngineCache(tmp_path / "file" / "cache"))


def test_the_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFTOOL_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    monkeypatch.delenv("DIFFTOOL_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "difftool"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/difftool"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == Path.home() / "Library/Caches/difftool"
