"""Slots in the host's memory copy samples only if others are chosen, and keep them apart."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from difftool.diffusion.columns import Column
from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels, lay_out_rows
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import ddim, ddpm, dpmpp_3m
from difftool.runtime.backends.host import Arrays, HostBatch
from difftool.runtime.backends.host_slots import HostSlots
from difftool.runtime.backends.prepare import Prepared
from difftool.runtime.draws import Draws
from difftool.runtime.scheduling.slots import IDLE, Entry
from tests.fixtures import CLASSES_SPEC as SPEC

Floats = NDArray[np.float32]
TAKEN = ("x", "history", "row", "noise", "table", "cond_table", "known", "mask")
NOISY, PLAIN = ddpm(SPEC, steps=3), ddim(SPEC, steps=4)  # the last row of NOISY takes no noise
# What each row of PLAIN adds to a sample of label 1.
ADDED = PLAIN.conds[PLAIN.table[:, Column.COND].astype(int)] + 1


class Preparation:
    """As of a bundle whose conditioner returns cond and label."""

    features, shape = frozenset({Feature.KNOWN}), SPEC.shape

    def __init__(self) -> None:
        self.fitted: list[tuple[int, ...]] = []

    def __call__(self, program: Program, size: int, labels: Labels | None) -> Prepared:
        rows = lay_out_rows(program, SPEC, size, labels)
        assert rows.labels is not None
        table = np.stack([rows.conds, rows.labels], axis=1).astype(np.float32)
        return Prepared(rows, table, (size, *SPEC.shape))

    def require_fit(self, size: int, slots: int, *tables: tuple[int, ...]) -> None:
        self.fitted.append((size, slots, *tables[0]))


@dataclass
class Library:
    """A step that adds the noise and its row's cond, and pushes x into the history."""

    seen: list[dict[str, NDArray[np.float32]]] = field(default_factory=list)
    bound: list[int] = field(default_factory=list)
    started: int = 0

    def make(self, begin: Prepared, derived: Arrays) -> HostBatch:
        self.bound.append(begin.shape[0])
        library, batch = self, HostBatch(self.bind, TAKEN, begin)
        start = batch.start

        def counted(x: Floats, **more: object) -> None:
            library.started += 1
            start(x, **more)  # type: ignore[arg-type]

        batch.start = counted  # type: ignore[method-assign]
        self.derived = derived
        return batch

    def bind(self, inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
        def run() -> None:
            self.seen.append({name: array.copy() for name, array in inputs.items()})
            rows = inputs["table"][inputs["row"]]
            conds = inputs["cond_table"][rows[:, Column.COND].astype(int)].sum(axis=1)
            outputs["x_next"][...] = inputs["x"] + inputs["noise"] + conds[:, None, None, None]
            outputs["history_next"][1:] = inputs["history"][:-1]
            outputs["history_next"][0] = inputs["x"]
            outputs["row_next"][...] = inputs["row"] + 1

        return run


@pytest.fixture
def made() -> tuple[HostSlots, Library, Preparation]:
    library, prepare = Library(), Preparation()
    slots = HostSlots(prepare, library.make, 4, 3, lambda table: {"twice": 2 * table[:, 0]})  # type: ignore[arg-type]
    return slots, library, prepare


def place(slots: HostSlots, program: Program, row: int, cond: int, label: int = 1) -> None:
    slots.place(program, Labels(np.array([label])), row, cond)


def join(slots: HostSlots, slot: int, program: Program, row: int, **more: object) -> None:
    draws = Draws(slot, np.array([0]), SPEC.shape)
    x = np.full(SPEC.shape, np.float32(slot + 1))
    slots.join(slot, starting_at(x, Entry(row, program, draws, **more)))  # type: ignore[arg-type]


def starting_at(x: Floats, entry: Entry) -> Entry:
    entry.__dict__["x"] = x  # in place of the start that its property would draw
    return entry


Made = tuple[HostSlots, Library, Preparation]


def test_nothing_is_copied_while_the_same_samples_are_chosen(made: Made) -> None:
    slots, library, _ = made
    assert slots.sizes == (1, 2, 3)
    place(slots, PLAIN, 0, 0)
    for slot in range(3):
        join(slots, slot, PLAIN, 0)
    for _ in range(3):
        slots.advance([0, 2])
    assert (library.bound, library.started) == ([2], 1)
    slots.advance([1])
    slots.advance([0, 2])
    assert (library.bound, library.started) == ([2, 1], 3)
    assert library.seen[-1]["row"].tolist() == [3, 3]
    assert (slots.read(1, "x") == 2 + ADDED[0]).all()
    assert (slots.read(2, "x") == 3 + ADDED.sum()).all()


def test_rows_and_conds_lie_where_they_were_placed(made: Made) -> None:
    slots, library, prepare = made
    place(slots, PLAIN, 0, 0, label=2)
    place(slots, NOISY, 300, 40, label=1)
    join(slots, 0, NOISY, 300)
    slots.advance([0])
    seen = library.seen[0]
    assert seen["table"].shape == (512, Column.HISTORY + PLAIN.history)
    assert (seen["table"][300:303, Column.COND] == NOISY.table[:, Column.COND] + 40).all()
    assert (seen["table"][300:303, Column.A] == NOISY.table[:, Column.A].astype(np.float32)).all()
    assert (seen["cond_table"][40 : 40 + len(NOISY.conds), 1] == 1).all()
    assert (library.derived["twice"][300:303] == 2 * seen["table"][300:303, 0]).all()
    assert prepare.fitted == [(1, PLAIN.history, *seen["table"].shape)]
    # A program of more history makes room for all, and what was there stays.
    long = dpmpp_3m(SPEC, steps=5)
    assert long.history > NOISY.history
    place(slots, long, 0, 0)
    slots.advance([0])
    assert library.seen[1]["history"].shape[0] == long.history
    assert (library.seen[1]["history"][0] == seen["x"]).all()
    assert library.seen[1]["row"].tolist() == [301]
    # Old weights in wider rows are gone, if a program of less history lies there next.
    place(slots, NOISY, 0, 0)
    slots.advance([0])
    assert not library.seen[2]["table"][:3, Column.HISTORY + NOISY.history :].any()


def test_memory_that_runs_out_leaves_the_tables_as_they_were(made: Made) -> None:
    slots, library, _ = made
    place(slots, PLAIN, 0, 0)
    with pytest.raises(MemoryError):
        place(slots, dpmpp_3m(SPEC, steps=5), 300, 1 << 45)  # more rows, history and conds
    place(slots, NOISY, 8, 8)
    join(slots, 0, PLAIN, 0)
    slots.advance([0])
    assert library.seen[0]["table"].shape == (256, Column.HISTORY + PLAIN.history)
    assert (slots.read(0, "x") == 1 + ADDED[0]).all()


def test_a_slot_keeps_nothing_of_the_one_before(made: Made) -> None:
    slots, library, _ = made
    place(slots, NOISY, 0, 0)
    nan = np.full((1, *SPEC.shape), np.float32("nan"))
    join(slots, 0, NOISY, 0, known=(nan, nan))
    entry = Entry(0, NOISY, Draws(0, np.array([0]), SPEC.shape), known=(nan, nan))
    slots.join(0, starting_at(nan[0], entry))
    slots.advance([0])
    slots.advance([0])
    join(slots, 0, PLAIN, 0)
    slots.advance([0])
    for name in ("x", "history", "noise", "known", "mask"):
        assert np.isfinite(library.seen[-1][name]).all(), name
    assert not library.seen[-1]["noise"].any()


def test_a_row_without_noise_sees_the_samples_own_last_one(made: Made) -> None:
    slots, library, _ = made
    place(slots, NOISY, 0, 0)
    place(slots, PLAIN, 8, 8)
    for slot, (program, row) in enumerate([(NOISY, 0), (PLAIN, 8), (NOISY, 0)]):
        join(slots, slot, program, row)
    slots.advance([0, 1, 2])
    slots.advance([2, 0])
    last = library.seen[-1]["noise"]
    slots.advance([1, 0])
    assert (library.seen[-1]["noise"][1] == last[1]).all()
    assert not library.seen[-1]["noise"][0].any()
    slots.advance([IDLE, 2, IDLE])
    for array in (library.seen[-1]["x"], library.seen[-1]["noise"]):
        assert (array == array[1]).all(), "idle places repeat a sample"


def test_a_step_that_raises_loses_its_samples_alone(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots, _, _ = made
    place(slots, PLAIN, 0, 0)
    for slot in range(2):
        join(slots, slot, PLAIN, 0)

    def fail(batch: HostBatch, noise: Floats) -> None:
        batch.x[...] = np.nan
        raise ValueError("a broken step")

    slots.advance([1])
    with monkeypatch.context() as broken:
        broken.setattr(HostBatch, "step", fail)
        with pytest.raises(ValueError, match="a broken step"):
            slots.advance([0])
    slots.advance([1])
    assert (slots.read(1, "x") == 2 + ADDED[:2].sum()).all()
