"""Two thousand calls of 200 different lengths and sizes: the last take no more than the first."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from difftool.bundle import read_bundle
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.diffusion.start import parse_start
from difftool.runtime import Model
from difftool.runtime.cuda.backend import DeviceBackend
from difftool.runtime.cuda.device import Bound, Launch
from difftool.runtime.draws import Draws
from tests.runtime.cuda.fake import FakeBuffer, FakeDevice

ROUNDS, KINDS, MOST = 10, 200, 64
ROOMS = 4  # that a backend keeps


class Negates:
    """A step graph that negates x; a graph that it replays itself is never released."""

    best = MOST
    sizes = (1, MOST)
    inputs = frozenset({"x", "history", "row", "noise", "table"})

    def __init__(self, device: FakeDevice, *, replays: int) -> None:
        self._device, self._left = device, replays
        self.captured: list[Launch] = []

    def wider(self, size: int) -> str:
        raise AssertionError(size)

    def bind(self, sides: Sequence[Mapping[str, FakeBuffer]]) -> Bound:
        runs = [self._run(tensors) for tensors in sides]
        if replays := self._left > 0:
            self._left -= 1
            self.captured += runs
        return Bound(runs, capturable=not replays, replays=replays)

    def _run(self, tensors: Mapping[str, FakeBuffer]) -> Launch:
        names = ("x", "x_next", "row", "row_next")
        x, x_next, row, row_next = (tensors[name]._array for name in names)

        def negate() -> None:
            np.negative(x, out=x_next)
            np.add(row, 1, out=row_next)

        return lambda: self._device.enqueue("negate", negate)


def program(rows: int) -> Program:
    return Program(
        call=SamplerCall("negations"),
        table=np.zeros((rows, Column.HISTORY + 1)),
        conds=np.zeros(1),
        draws=np.arange(rows),
        targets=np.zeros((rows + 1, 2)),
        start=parse_start("normal(1.0)"),
    )


def on_negates(bundle: Path, replays: int = 0) -> tuple[Model, FakeDevice, Negates]:
    opened, device = read_bundle(bundle), FakeDevice()
    engine = Negates(device, replays=replays)
    return Model(opened, DeviceBackend("fake", opened, device, engine)), device, engine


@pytest.mark.parametrize("replays", [0, 3])
def test_memory_is_flat(points_bundle: Path, replays: int) -> None:
    model, device, _ = on_negates(points_bundle)
    model.sample(program(KINDS), n=MOST)
    largest = device.bytes

    model, device, engine = on_negates(points_bundle, replays)
    random = np.random.default_rng(0)
    sizes = random.integers(1, MOST + 1, KINDS).tolist()
    kinds = [(program(rows + 1), sizes[rows]) for rows in random.permutation(KINDS).tolist()]
    held = np.zeros((ROUNDS, KINDS, 3), int)
    for at in np.ndindex(ROUNDS, KINDS):
        kind, n = kinds[at[1]]
        x = model.sample(kind, n=n, seed=at[0])
        held[at] = device.bytes, device.graphs, len(engine.captured)
        device.log.clear()
        device.sent.clear()
        if at[1] % 20 == 0:
            expected = Draws(at[0], np.arange(n), (2,)).normal(0)
            np.testing.assert_allclose(x, expected * (-1) ** len(kind), rtol=1e-5)
    assert (held[2:] == held[1]).all()
    most = held.max((0, 1))
    assert most[0] <= (ROOMS + replays) * largest
    assert most[1] <= ROOMS * 3  # of two rows, and of one from either side
    assert most[2] == 2 * replays
