"""What is on a device is freed by the thread that owns it, whoever drops the backend."""

import gc
import threading
import weakref
from pathlib import Path

import pytest

from difftool.runtime import Model, Request
from difftool.runtime.cuda.batch import DeviceBatch
from tests.reliability.forked import PATIENCE
from tests.runtime.cuda.fake import FakeDevice
from tests.runtime.cuda.test_driver import on_device


def noted(model: Model, device: FakeDevice) -> tuple[threading.Thread, list[int], int]:
    """Return the owner, a list that gets the threads that free things, and how many there are."""
    things = [*device.live, device, model.backend.engine]  # type: ignore[attr-defined]
    freed: list[int] = []
    for thing in things:
        weakref.finalize(thing, lambda: freed.append(threading.get_ident())).atexit = False
    (owner,) = device.threads
    thread = next(thread for thread in threading.enumerate() if thread.ident == owner)
    return thread, freed, len(things)


def ended(thread: threading.Thread) -> bool:
    gc.collect()
    thread.join(PATIENCE)
    return not thread.is_alive()


@pytest.mark.parametrize("shared", [False, True])
def test_a_backend_that_is_dropped(tiny_bundle: Path, shared: bool) -> None:
    model, device = on_device(tiny_bundle)
    model.sample(n=3)
    model.sample(n=1)
    if shared:
        model.submit(Request(n=2)).result()
        model.scheduler().close()
    thread, freed, count = noted(model, device)
    del model, device
    assert ended(thread)
    assert freed == [thread.ident] * count


def test_a_batch_that_is_held_longer(tiny_bundle: Path) -> None:
    model, device = on_device(tiny_bundle)
    program = model.default_program()
    held: list[DeviceBatch] = [model.backend.batch(program, 2)]  # type: ignore[list-item]
    model.sample(n=5)
    thread, freed, count = noted(model, device)
    del model, device
    gc.collect()
    assert not freed
    assert held[0].x.shape[0] == 2
    held.clear()
    assert ended(thread)
    assert freed == [thread.ident] * count
