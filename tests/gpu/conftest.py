"""Every test here runs on a GPU if there is one, and on the fake device everywhere."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from difftool.runtime.engine_cache import VARIABLE
from tests.gpu.opening import Absent, a_device, a_model, fake_libraries

Open = Callable[..., Any]


@pytest.fixture(params=["fake", "real"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def device(kind: str) -> Any:
    """The device; a test on a GPU that is not here is skipped."""
    try:
        return a_device(kind)
    except Absent as absent:
        pytest.skip(str(absent))


@pytest.fixture
def sessions(
    kind: str, device: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Any]]:
    """The sessions that ONNX Runtime opens on the fake device, whose engines are this test's."""
    with ExitStack() as stack:
        if kind == "fake":
            monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
            yield stack.enter_context(fake_libraries(device))
        else:
            yield []


@pytest.fixture
def named(kind: str, request: pytest.FixtureRequest) -> Callable[[str], Path | str]:
    """Give a shipped model; on the fake device a toy of its family, whose runs are short.

    A toy is exported with PyTorch, which a GPU's machine may lack.
    """
    toys = {"ddpm-mnist": "tiny_bundle", "ncsn-mnist": "points_bundle"}
    return lambda name: request.getfixturevalue(toys[name]) if kind == "fake" else name


@pytest.fixture
def opened(
    kind: str, sessions: list[Any], named: Callable[[str], Path | str], tmp_path: Path
) -> Open:
    """Open a shipped model, or its toy, on the device by backend and precision."""

    def open_it(name: str, backend: str, precision: str = "fp32", **options: Any) -> Any:
        try:
            return a_model(kind, named(name), backend, precision, tmp_path, **options)
        except Absent as absent:
            pytest.skip(str(absent))

    return open_it
