"""The embedding API in a host program: many threads, and forks."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import difftool
from difftool.bundle import STEP, Bundle, read_bundle
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.labels import lay_out_rows
from difftool.diffusion.samplers import ddpm
from difftool.runtime import Model
from difftool.runtime.cuda.backend import DeviceBackend
from difftool.runtime.shipped import find_bundle
from tests.fresh import python
from tests.reliability.backends import ROOT, Floats, opened
from tests.reliability.forked import PATIENCE
from tests.runtime.cuda.fake import FakeDevice, FakeEngine

THREADS = 8
BACKENDS = ("onnxruntime-cpu", "openvino", "torchscript")

Call = tuple[str, int, int, int]  # sampler, seed, first sample, how many


def calls(count: int) -> list[Call]:
    """Return random calls of two programs, with one slot of history and with three."""
    random = np.random.default_rng(0)
    names = random.choice(["ddpm", "unipc"], count).tolist()
    return [
        (name, int(random.integers(99)), int(random.integers(99)), int(random.choice([4, 8])))
        for name in names
    ]


def answer(model: Model, call: Call) -> Floats:
    """Draw the samples of a call; a third of them by `stream`, whose rows others come between."""
    name, seed, first, n = call
    program = difftool.samplers.compile_program(model.spec, SamplerCall(name, {"steps": 3}))
    if seed % 3:
        return model.sample(program, n=n, seed=seed, first_sample=first)
    states = model.stream(program, n=n, seed=seed, first_sample=first)
    return np.concatenate([s.x.copy() for s in states if s.step == s.steps])


def same_under_load(model: Model, work: list[Call], expected: list[Floats]) -> None:
    """Check that many threads that begin together get what one would get."""
    ready = threading.Barrier(THREADS)

    def begin() -> None:
        ready.wait(timeout=PATIENCE)

    with ThreadPoolExecutor(THREADS, initializer=begin) as pool:
        found = list(pool.map(lambda call: answer(model, call), work))
    pairs = zip(work, found, expected, strict=True)
    wrong = [call for call, *pair in pairs if not np.array_equal(*pair)]
    assert not wrong, f"{len(wrong)} of {len(work)} calls differ, such as {wrong[0]}"


@pytest.mark.timeout(3600)  # by night
@pytest.mark.parametrize("name", BACKENDS)
def test_one_model_and_many_threads(
    name: str, scripted: Callable[[str], Bundle], nightly: bool
) -> None:
    """The second model is new, so many threads at once make what the first call makes."""
    work, bundle = calls(800 if nightly else 16), scripted("ddpm-mnist")
    alone, shared = (Model(bundle, opened(bundle, name), max_batch=4) for _ in range(2))
    same_under_load(shared, work, [answer(alone, call) for call in work])


def same_tables(name: str, work: list[int]) -> None:
    """Check the tables that many threads compute for programs of so many steps."""
    bundle = read_bundle(find_bundle("ddpm-mnist"))
    conditioner = opened(bundle, name)._prepare._conditioner  # type: ignore[attr-defined]
    rows = {n: lay_out_rows(ddpm(bundle.spec, steps=n), bundle.spec, 1, None) for n in set(work)}
    expected = {steps: conditioner.table(asked) for steps, asked in rows.items()}
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda steps: conditioner.table(rows[steps]), work))
    pairs = zip(work, found, strict=True)
    wrong = [n for n, table in pairs if not np.array_equal(table, expected[n])]
    assert not wrong, f"{len(wrong)} of {len(work)} tables are others'"


TABLES = [1000, 900, 500, 3] * 100


@pytest.mark.parametrize("name", BACKENDS[:2])
def test_one_conditioner_and_many_threads(name: str) -> None:
    same_tables(name, TABLES)


# OpenVINO's own call of a compiled model shares one request like this. The first thread looks at
# its result only when all others are done. In a child, since this may also corrupt memory.
SHARED = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from difftool.runtime.backends import openvino
from tests.reliability.test_embedding import TABLES, same_tables

first, others = threading.Lock(), threading.Semaphore(0)

def shared(compiled, inputs):
    alone = threading.current_thread() is threading.main_thread()
    waits = not alone and first.acquire(blocking=False)
    try:
        found = compiled(dict(inputs))
        for _ in TABLES[1:] if waits else ():
            others.acquire()
        return [found[i].copy() for i in range(len(found))]
    finally:
        if not alone and not waits:
            others.release()

openvino._call = shared
same_tables("openvino", TABLES)
"""


def test_one_request_for_all_threads_is_seen() -> None:
    done = python("-c", SHARED, ROOT, fails=True)
    said = ("tables are others'", "cond_table of the sizes")  # of a result, or of a check before
    assert done.returncode < 0 or any(each in done.stderr for each in said), done.stderr


def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that does the same, and fails if another thread is on the stream."""

    def alone(device: "Guarded", *arguments: Any) -> Any:
        with device.only():
            return method(device, *arguments)

    return alone


class Guarded(FakeDevice):
    """A GPU that sees when two threads are on its stream at once."""

    _owner: int | None = None
    awaited: threading.Event | None = None  # keeps the first on the stream until another comes

    @contextlib.contextmanager
    def only(self) -> Iterator[None]:
        before, me = self._owner, threading.get_ident()
        if self.awaited and before not in (None, me):
            self.awaited.set()
        assert before in (None, me), "two threads on one stream"
        self._owner = me
        if self.awaited:
            self.awaited.wait(PATIENCE)
        try:
            yield
        finally:
            self._owner = before

    upload = guarded(FakeDevice.upload)
    download = guarded(FakeDevice.download)
    enqueue = guarded(FakeDevice.enqueue)
    capture = guarded(FakeDevice.capture)


def on_guarded_device(device: Guarded) -> Model:
    bundle = read_bundle(find_bundle("ddpm-mnist"))
    backend = DeviceBackend("fake", bundle, device, FakeEngine(device, bundle.file(STEP)))
    return Model(bundle, backend, max_batch=4)


def test_threads_take_turns_on_a_gpus_stream() -> None:
    work, model = calls(12), on_guarded_device(Guarded())
    same_under_load(model, work, [answer(on_guarded_device(Guarded()), call) for call in work])


def test_threads_that_take_no_turns_are_seen() -> None:
    work, device = calls(12), Guarded()
    model = on_guarded_device(device)
    expected = [answer(model, call) for call in work]
    device.awaited = threading.Event()
    model.backend._owner.call = lambda work: work()  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="two threads on one stream"):
        same_under_load(model, work, expected)


FORK = """
import os, signal, sys
import difftool

def draw(model):
    program = difftool.samplers.ddim(model.spec, steps=2)
    return model.sample(program, n=2).tobytes()

def load():
    return difftool.load("ddpm-mnist", backend=sys.argv[1], threads=2)

model = load()
expected = draw(model)
begun = model.stream(n=1)
next(begun)
if (child := os.fork()) == 0:
    signal.alarm(500)  # a run on a backend whose threads are gone never ends
    for inherited in (lambda: draw(model), lambda: next(begun)):
        try:
            inherited()
        except difftool.DifftoolError as error:
            print(type(error).__name__, error.message, "|", error.hint)
    print(draw(load()) == expected)
    sys.stdout.flush()
    os._exit(0)
_, status = os.waitpid(child, 0)
print(status, draw(model) == expected)
"""


@pytest.mark.parametrize("name", BACKENDS[:2])
def test_a_fork_loads_its_own(name: str) -> None:
    done = python("-c", FORK, name, fails=True)
    *refused, again, parent = done.stdout.splitlines()
    assert len(refused) == 2, done.stdout + done.stderr
    for line in refused:
        assert line.startswith("UsageError this model was loaded in process ")
        assert "load it in the child" in line
    assert (again, parent) == ("True", "0 True")
