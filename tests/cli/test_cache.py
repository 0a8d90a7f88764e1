"""difftool cache lists engines, says why one is missing, and deletes them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difftool.bundle import read_bundle
from difftool.compile import engine_key, engine_request
from difftool.runtime.engine_cache import EngineCache, Record
from tests.cli.conftest import Command

pytest.importorskip("tensorrt_rtx")

Why = Callable[[Path], dict[str, Any]]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
    monkeypatch.setenv("DIFFTOOL_CACHE", str(tmp_path / "cache"))
    return EngineCache()


@pytest.fixture
def record(kept: EngineCache, points_bundle: Path) -> Record:
    """An engine for sm89 in fp32, in the cache."""
    key = engine_key(read_bundle(points_bundle), engine_request(("sm89",)))
    return kept.store(key, b"engine", model="points", seconds=2.0)


@pytest.fixture
def why(difftool: Command) -> Why:
    """Return what `difftool cache why` reports on a bundle's engine for sm89."""
    return lambda bundle: difftool("cache", "why", bundle, "--gpu", "sm89", "--json").json()


def test_an_empty_cache(
    difftool: Command, why: Why, kept: EngineCache, points_bundle: Path
) -> None:
    value = difftool("cache", "ls", "--json").json()
    assert value == {"folder": str(kept.folder), "bytes": 0, "engines": {}}
    assert not kept.folder.exists()
    value = why(points_bundle)
    assert (value["hit"], value["nearest"], value["reason"]) == (False, None, "the cache is empty")


def test_engines_are_listed(difftool: Command, record: Record) -> None:
    value = difftool("cache", "ls", "--json").json()
    assert value["bytes"] == 6
    assert list(value["engines"]) == [record.name]
    assert value["engines"][record.name]["gpus"] == ["sm89"]
    assert value["engines"][record.name]["by"].startswith("tensorrt-rtx ")
    assert f"  {record.name}  model points, precision fp32" in difftool("cache", "ls").out


def test_a_hit(why: Why, record: Record, points_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(points_bundle, tmp_path / "copy")
    assert (
        why(points_bundle)
        == why(copy)
        == {
            "wanted": record.name,
            "hit": True,
            "reason": "the engine is there",
            "nearest": record.name,
            "differs": {},
        }
    )


def test_a_miss_field_by_field(difftool: Command, record: Record, points_bundle: Path) -> None:
    line = ("cache", "why", points_bundle, "--gpu", "sm120", "--profile", "1,2,3")
    value = difftool(*line, "--json").json()
    assert value["hit"] is False
    assert value["nearest"] == record.name
    assert value["differs"] == {
        "gpus": {"kept": ["sm89"], "wanted": ["sm120"]},
        "profile": {"kept": [1, 64, 64], "wanted": [1, 2, 3]},
        "batches": {"kept": [1, 16, 64], "wanted": []},
    }
    assert "  gpus     kept [sm89], wanted [sm120]\n" in difftool(*line).out


def test_a_miss_by_damage(why: Why, kept: EngineCache, record: Record, points_bundle: Path) -> None:
    kept.path(record).write_bytes(b"enginf")
    value = why(points_bundle)
    assert (value["hit"], value["differs"]) == (False, {})
    assert value["reason"] == "the engine is damaged; it will be built again"


def test_a_miss_by_another_graph(why: Why, record: Record, tiny_bundle: Path) -> None:
    value = why(tiny_bundle)
    assert list(value["differs"]) == ["onnx_sha256"]
    assert value["differs"]["onnx_sha256"]["kept"] == record.key.onnx_sha256


def test_engines_are_deleted(difftool: Command, kept: EngineCache, record: Record) -> None:
    half = record.key.model_copy(update={"precision": "fp16"})
    other = kept.store(half, b"other", model="p", seconds=1.0)
    assert difftool("cache", "rm", record.name[:8], "--json").json() == {"bytes": 6}
    assert kept.records() == [other]
    assert difftool("cache", "rm", "--all").code == 0
    assert list(kept.folder.iterdir()) == []


def test_refused_deletions(difftool: Command, kept: EngineCache, record: Record) -> None:
    difftool("cache", "rm").refused(2, "error: rm needs either names or --all")
    has = f"the cache has: {record.name}"
    difftool("cache", "rm", "zzz").refused(2, "no engine in the cache begins with 'zzz'", has)
    assert kept.records() == [record]
