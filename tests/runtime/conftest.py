"""A bundle, and engines of it in a cache of the test's own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from difftool.bundle import Bundle, EngineKey, read_bundle
from difftool.runtime.engine_cache import VARIABLE, EngineCache, Record
from difftool.runtime.engines import RECIPE, onnx_sha256
from tests.fixtures import ENGINE_KEY

ENGINE = b"an engine"
Keep = Callable[..., Record]


@pytest.fixture(scope="session")
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
    """The cache of this test alone."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return EngineCache()


def key_for(bundle: Bundle, **changes: object) -> EngineKey:
    """Return the key of an fp32 engine of the bundle, with these changes."""
    own = {"onnx_sha256": onnx_sha256(bundle, "fp32"), "recipe": RECIPE, "gpus": ["sm89", "sm120"]}
    return EngineKey.model_validate({**ENGINE_KEY.model_dump(), **own, **changes})


@pytest.fixture
def keep(bundle: Bundle, cache: EngineCache) -> Keep:
    """Put an engine of the bundle into the cache, with these changes of its key."""

    def store(data: bytes = ENGINE, **changes: object) -> Record:
        return cache.store(key_for(bundle, **changes), data, model="tiny", seconds=1.0)

    return store
