"""difftool cache: what is kept, why something is not, and how it goes."""

import json
import shutil
from pathlib import Path

import pytest

from difftool.bundle import read_bundle
from difftool.compile import engine_key, engine_request
from difftool.runtime.engine_cache import EngineCache, Record
from tests.cli.conftest import Command

pytest.importorskip("tensorrt_rtx")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
    monkeypatch.setenv("DIFFTOOL_CACHE", str(tmp_path / "cache"))
    return EngineCache()


@pytest.fixture
def record(kept: EngineCache, points_bundle: Path) -> Record:
    """An engine for sm89 in fp32, in the cache."""
    key = engine_key(read_bundle(points_bundle), engine_request(("sm89",)))
    return kept.store(key, b"engine", model="points", seconds=2.0)


def test_an_empty_cache_is_listed(difftool: Command, kept: EngineCache) -> None:
    value = json.loads(difftool("cache", "ls", "--json").out)
    assert value == {"folder": str(kept.folder), "bytes": 0, "engines": {}}
    assert not kept.folder.exists()


def test_engines_are_listed(difftool: Command, record: Record) -> None:
    value = json.loads(difftool("cache", "ls", "--json").out)
    assert value["bytes"] == 6
    assert list(value["engines"]) == [record.name]
    assert value["engines"][record.name]["gpus"] == ["sm89"]
    assert value["engines"][record.name]["by"].startswith("tensorrt-rtx ")
    assert f"  {record.name}  model points, precision fp32" in difftool("cache", "ls").out


def test_a_hit_is_said(difftool: Command, record: Record, points_bundle: Path) -> None:
    done = difftool("cache", "why", points_bundle, "--gpu", "sm89", "--json")
    assert json.loads(done.out) == {
        "wanted": record.name,
        "hit": True,
        "reason": "the engine is there",
        "nearest": record.name,
        "differs": {},
    }


def test_a_miss_is_explained_field_by_field(
    difftool: Command, record: Record, points_bundle: Path
) -> None:
    line = ("cache", "why", points_bundle, "--gpu", "sm120", "--profile", "1,2,3")
    value = json.loads(difftool(*line, "--json").out)
    assert value["hit"] is False
    assert value["nearest"] == record.name
    assert value["differs"] == {
        "gpus": {"kept": ["sm89"], "wanted": ["sm120"]},
        "profile": {"kept": [1, 8, 64], "wanted": [1, 2, 3]},
    }
    assert "  gpus     kept [sm89], wanted [sm120]\n" in difftool(*line).out


def test_a_damaged_engine_is_the_reason_of_a_miss(
    difftool: Command, kept: EngineCache, record: Record, points_bundle: Path
) -> None:
    kept.path(record).write_bytes(b"enginf")
    value = json.loads(difftool("cache", "why", points_bundle, "--gpu", "sm89", "--json").out)
    assert (value["hit"], value["differs"]) == (False, {})
    assert value["reason"] == "the engine is damaged; it will be built again"


def test_another_graph_is_the_reason_of_a_miss(
    difftool: Command, record: Record, tiny_bundle: Path
) -> None:
    value = json.loads(difftool("cache", "why", tiny_bundle, "--gpu", "sm89", "--json").out)
    assert list(value["differs"]) == ["onnx_sha256"]
    assert value["differs"]["onnx_sha256"]["kept"] == record.key.onnx_sha256


def test_an_empty_cache_explains_itself(
    difftool: Command, kept: EngineCache, points_bundle: Path
) -> None:
    value = json.loads(difftool("cache", "why", points_bundle, "--gpu", "sm89", "--json").out)
    assert (value["hit"], value["nearest"], value["reason"]) == (False, None, "the cache is empty")


def test_engines_are_deleted_by_name_or_all_at_once(
    difftool: Command, kept: EngineCache, record: Record
) -> None:
    other = kept.store(
        record.key.model_copy(update={"precision": "fp16"}), b"other", model="p", seconds=1.0
    )
    assert json.loads(difftool("cache", "rm", record.name[:8], "--json").out) == {"bytes": 6}
    assert kept.records() == [other]
    assert difftool("cache", "rm", "--all").code == 0
    assert list(kept.folder.iterdir()) == []


def test_deleting_nothing_or_something_unknown_is_refused(
    difftool: Command, kept: EngineCache, record: Record
) -> None:
    done = difftool("cache", "rm")
    assert (done.code, done.err.splitlines()[0]) == (2, "error: nothing says what to delete")
    done = difftool("cache", "rm", "zzz")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"error: no engine in the cache begins with 'zzz'\nhint: the cache has: {record.name}\n"
    )
    assert kept.records() == [record]


def test_a_copied_bundle_has_the_engine_too(
    difftool: Command, record: Record, points_bundle: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(points_bundle, tmp_path / "copy")
    assert json.loads(difftool("cache", "why", copy, "--gpu", "sm89", "--json").out)["hit"] is True
