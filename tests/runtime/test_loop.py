"""The loop: which noise reaches which sample, whatever the batch."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from difftool.diffusion import noise, schedules
from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import annealed_langevin, ddim, ddpm
from difftool.diffusion.start import parse_start
from difftool.runtime.backends.reference import Reference
from difftool.runtime.draws import Draws, row_noise, start_noise
from difftool.runtime.loop import run
from tests.fixtures import IMAGE_SPEC

SPEC = replace(IMAGE_SPEC, shape=(3,), schedule=schedules.linear(steps=12, beta_end=0.4))
PROGRAMS = (ddpm(SPEC), ddim(SPEC, steps=7, eta=0.5), annealed_langevin(SPEC, steps=24))


def final(program: Program, seed: int, samples: list[int]) -> np.ndarray:
    """Run these samples of a seed to their end, as one batch of the exact reference."""
    backend = Reference(lambda x, cond: np.tanh(x) * np.cos(cond)[:, None], SPEC.shape)
    batch = backend.batch(program, len(samples))
    for _ in run(batch, program, Draws(seed, np.array(samples), SPEC.shape)):
        pass
    return batch.x


@given(
    st.sampled_from(PROGRAMS),
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6, unique=True),
    st.data(),
)
def test_neighbours_and_slots_do_not_matter(
    program: Program, seed: int, samples: list[int], data: st.DataObject
) -> None:
    together = final(program, seed, samples)
    order = data.draw(st.permutations(range(len(samples))))
    shuffled = final(program, seed, [samples[i] for i in order])
    assert np.array_equal(shuffled, together[list(order)])
    assert np.array_equal(final(program, seed, samples[:1]), together[:1])


def test_each_row_gets_its_own_draw_and_the_start_draw_0() -> None:
    program = ddpm(SPEC)
    samples = np.array([4, 2])
    assert np.array_equal(
        start_noise(program, Draws(6, samples, (3,))),
        noise.normal(6, 0, samples, (3,)) * np.float32(program.start.high),
    )
    drawn = list(row_noise(program, Draws(6, samples, (3,))))
    assert len(drawn) == len(program)
    assert drawn[-1] is None  # the last row adds no noise
    for row, found in enumerate(drawn[:-1]):
        assert program.table[row, Column.D] != 0
        assert np.array_equal(found, noise.normal(6, row + 1, samples, (3,)))


def test_noise_comes_in_blocks_that_do_not_show() -> None:
    """A thousand elements a sample are drawn few rows at a time; the numbers are the same."""
    program = ddpm(SPEC)
    samples = np.arange(16)
    for row, found in enumerate(row_noise(program, Draws(1, samples, (1024,)))):
        if found is not None:
            assert np.array_equal(found, noise.normal(1, row + 1, samples, (1024,)))


def test_nothing_is_drawn_for_rows_without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = Draws(0, np.arange(2), (3,))
    monkeypatch.setattr(Draws, "normal", None)
    assert list(row_noise(ddim(SPEC, steps=4), draws)) == [None] * 4


class Drawing:
    """A batch that draws noise itself, and notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.x = self.denoised = np.zeros((2, 3), np.float32)
        self.history = np.zeros((1, 2, 3), np.float32)

    def begin(self, scale: float, draws: Draws, *, known: object = None) -> None:
        self.asked.append(f"begin {scale}")

    def start(self, x: np.ndarray, **rest: object) -> None:
        self.asked.append("start")

    def advance(self, rows: int, draws: Draws) -> None:
        self.asked.append(f"advance {rows}")

    def step(self, noise: np.ndarray | None) -> None:
        self.asked.append("step")


def test_what_a_batch_draws_itself_is_not_drawn_on_the_host() -> None:
    plain, between = (Draws(0, np.arange(2), (3,), angles) for angles in (None, np.zeros(2)))
    between = replace(between, samples=np.array([[0, 1]] * 2))
    program = ddpm(SPEC, steps=3)
    uniform = replace(program, start=parse_start("uniform(-1.0, 1.0)"))
    begin, advance = f"begin {program.start.high}", ["advance 2", "advance 1"]
    rows = ["step", "start"] * 3  # replace_denoised starts again
    for asked, expected in (
        (lambda batch: run(batch, program, plain, every=2), [begin, *advance]),
        (lambda batch: run(batch, uniform, plain, every=2), ["start", *advance]),
        (lambda batch: run(batch, program, plain, init=batch.x, every=2), ["start", *advance]),
        (lambda batch: run(batch, program, plain, edit=lambda d: d), [begin, *rows]),
        (lambda batch: run(batch, program, between), ["start", *["step"] * 3]),
    ):
        batch = Drawing()
        for _ in asked(batch):
            pass
        assert batch.asked == expected
