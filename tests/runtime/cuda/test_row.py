"""The row kernel in its host build, against the float64 reference and float32 numpy."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from difftool.diffusion import noise
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.columns import UNBOUNDED, Column
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import ddpm, dpmpp_2m, unipc
from difftool.diffusion.start import parse_start
from difftool.runtime.backends.reference import Reference
from difftool.runtime.cuda.compile import KERNELS
from difftool.runtime.draws import Draws, start_noise
from difftool.runtime.loop import run
from tests.fixtures import IMAGE_SPEC
from tests.runtime.cuda.host import launch

SEED = (3 << 32) | 14
ROWS, SHAPE = 5, (3, 7)
E = 21  # the elements of a sample: not a multiple of 4


@dataclass
class State:
    """The arrays that a launch reads and writes."""

    x: np.ndarray  # [n, e]
    history: np.ndarray  # [slots, n, e]
    row: np.ndarray  # [n]
    denoised: np.ndarray  # [n, e]
    scaled: np.ndarray  # [n, e]


def advance(
    state: State,
    network: np.ndarray,
    table: np.ndarray,
    noises: np.ndarray | None,
    *,
    draws: np.ndarray | None = None,
    samples: np.ndarray | None = None,
) -> State:
    """Make one launch."""
    n, e = state.x.shape
    after = State(*(np.full_like(old, -7) for old in vars(state).values()))
    after.denoised[...] = state.denoised  # one buffer in practice
    launch(
        "difftool_row",
        *(after.x, after.history, after.row, after.denoised, after.scaled),
        *(state.x, network, state.history, noises, state.row, table),
        *(draws, samples, np.array([SEED], np.uint64), np.uint32(noise.SAMPLING)),
        *np.array([n, e, len(state.history), len(table)], np.int32),
        np.int32(network.shape[1] == 2 * e),
    )
    return after


def random_table(random: np.random.Generator, slots: int, clip: float) -> np.ndarray:
    table = random.standard_normal((ROWS, Column.HISTORY + slots)).astype(np.float32)
    table[:, [Column.COND, Column.NULL_COND, Column.SNR, Column.BATCH_SNR]] = 0
    table[:, Column.CLIP_LOW], table[:, Column.CLIP_HIGH] = -0.6 * clip, clip
    return table


def random_state(random: np.random.Generator, slots: int, row: list[int]) -> State:
    n = len(row)
    values = random.standard_normal((slots + 3, n, E)).astype(np.float32)
    return State(values[0], values[3:].copy(), np.array(row, np.int64), values[1], values[2])


def program_of(table: np.ndarray) -> Program:
    return Program(
        call=SamplerCall("random"),
        table=table.astype(np.float64),
        conds=np.zeros(1),
        draws=np.zeros(len(table), np.int64),
        targets=np.zeros((len(table) + 1, 2)),
        start=parse_start("normal(1.0)"),
    )


@pytest.mark.parametrize("learned_variance", [False, True])
@pytest.mark.parametrize("clip", [0.5, UNBOUNDED])
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_rows_are_those_of_the_reference(slots: int, clip: float, learned_variance: bool) -> None:
    """Samples at different rows of a random table; each alone in the float64 reference.

    The bound, 8 roundings at the size of the numbers, is for sums of up to eight products.
    """
    random = np.random.default_rng(slots)
    table = random_table(random, slots, clip)
    state = random_state(random, slots, [0, 3, 1, 4, 4, 2])
    width = 2 * E if learned_variance else E
    network = random.standard_normal((6, width)).astype(np.float32)
    noises = random.standard_normal((6, E)).astype(np.float32)
    after = advance(state, network, table, noises)
    assert after.row.tolist() == [1, 4, 2, 5, 5, 3]
    clipped = 0
    for i, at in enumerate(state.row):
        output = network[i].reshape(1, -1, SHAPE[1]).astype(np.float64)
        reference = Reference(lambda x, cond, f=output: f, SHAPE, learned_variance=learned_variance)
        batch = reference.batch(program_of(table), 1)
        history = state.history[:, i].reshape(slots, 1, *SHAPE)
        batch.start(state.x[i].reshape(1, *SHAPE), row=int(at), history=history)
        batch.step(noises[i].reshape(1, *SHAPE))
        c_in = table[at + 1, Column.C_IN] if at + 1 < ROWS else 1
        for found, expected in (
            (after.x[i], batch.x),
            (after.denoised[i], batch.denoised),
            (after.history[:, i], batch.history),
            (after.scaled[i], c_in * batch.x),
        ):
            expected = expected.reshape(found.shape)
            bound = 8 * np.finfo(np.float32).eps * max(1, np.abs(expected).max())
            assert np.abs(found - expected).max() <= bound
        clipped += int((batch.denoised == clip).sum())
    assert (clipped > 0) == (clip < UNBOUNDED)


@pytest.mark.parametrize("slots", [1, 3])
def test_without_exp_every_bit_is_that_of_float32_numpy(slots: int) -> None:
    random = np.random.default_rng(9)
    table = random_table(random, slots, 0.8)
    state = random_state(random, slots, [2, 0, 4])
    network, noises = random.standard_normal((2, 3, E)).astype(np.float32)
    after = advance(state, network, table, noises)
    c = table[state.row].T[:, :, None]
    denoised = c[Column.C_SKIP] * state.x + c[Column.C_OUT] * network
    denoised = np.clip(denoised, c[Column.CLIP_LOW], c[Column.CLIP_HIGH])
    past = np.zeros_like(state.x)
    for k in range(slots):
        past += c[Column.HISTORY + k] * state.history[k]
    expected = c[Column.A] * state.x + c[Column.B] * denoised + c[Column.G] * network
    expected = expected + past + c[Column.D] * noises
    assert np.array_equal(after.denoised, denoised)
    assert np.array_equal(after.x, expected)
    assert np.array_equal(after.history[0], c[Column.E] * state.x + c[Column.F] * denoised)
    assert np.array_equal(after.history[1:], state.history[:-1])


def test_noise_drawn_in_the_launch_is_that_of_the_noise_kernel() -> None:
    random = np.random.default_rng(2)
    table = random_table(random, 2, UNBOUNDED)
    table[1, Column.D] = 0  # a row without noise
    state = random_state(random, 2, [0, 1, 3, 3])
    network = random.standard_normal((4, E)).astype(np.float32)
    draws, samples = np.arange(50, 50 + ROWS, dtype=np.uint32), np.array([9, 4, 4, 7], np.uint32)
    noises = np.empty((4, E), np.float32)
    seed = np.array([SEED], np.uint64), np.uint32(noise.SAMPLING)
    sizes = np.array([4, E, ROWS], np.int32)
    launch("difftool_noise", noises, state.row, draws, samples, *seed, *sizes)
    given = advance(state, network, table, noises)
    drawn = advance(state, network, table, None, draws=draws, samples=samples)
    for name, values in vars(given).items():
        assert np.array_equal(getattr(drawn, name), values), name


@pytest.mark.parametrize("outside", [-1, ROWS])
def test_a_sample_outside_the_table_keeps_its_state(outside: int) -> None:
    random = np.random.default_rng(3)
    table = random_table(random, 2, UNBOUNDED)
    state = random_state(random, 2, [1, outside, 2])
    network, noises = random.standard_normal((2, 3, E)).astype(np.float32)
    after = advance(state, network, table, noises)
    assert after.row.tolist() == [2, outside, 3]
    assert np.array_equal(after.x[1], state.x[1])
    assert np.array_equal(after.scaled[1], state.x[1])
    assert np.array_equal(after.history[:, 1], state.history[:, 1])
    assert np.array_equal(after.denoised[1], state.denoised[1])


def test_a_network_that_breaks_is_not_clipped_to_something_plausible() -> None:
    random = np.random.default_rng(4)
    state = random_state(random, 1, [0])
    network = np.full((1, E), np.nan, np.float32)
    after = advance(state, network, random_table(random, 1, 1.0), np.zeros((1, E), np.float32))
    assert np.isnan(after.denoised).all()
    assert np.isnan(after.x).all()


SPEC = replace(IMAGE_SPEC, shape=(5,))


@pytest.mark.parametrize(
    "program",
    [ddpm(SPEC), dpmpp_2m(SPEC, steps=8), unipc(SPEC, steps=6)],
    ids=lambda p: p.call.name,
)
def test_a_whole_program_of_nothing_but_network_and_launch(program: Program) -> None:
    samples, n = np.array([3, 0, 8]), 3
    draws = Draws(SEED, samples, SPEC.shape)
    x = start_noise(program, draws)
    table = program.table.astype(np.float32)
    history, row0 = np.zeros((program.history, n, 5), np.float32), np.zeros(n, np.int64)
    state = State(x, history, row0, np.zeros_like(x), table[0, Column.C_IN] * x)
    own = {"draws": program.draws.astype(np.uint32), "samples": samples.astype(np.uint32)}
    for row in program.table:
        cond = np.float32(program.conds[int(row[Column.COND])])
        network = np.tanh(state.scaled) * np.cos(cond)
        state = advance(state, network, table, None, **own)
    reference = Reference(lambda x, cond: np.tanh(x) * np.cos(cond)[:, None], SPEC.shape)
    batch = reference.batch(program, n)
    for _ in run(batch, program, draws):
        pass
    assert state.row.tolist() == [len(program)] * n
    assert np.abs(state.x - batch.x).max() < 2e-5
    assert np.abs(state.denoised - batch.denoised).max() < 2e-5


def test_the_columns_are_those_of_the_table() -> None:
    text = (KERNELS / "row.cu").read_text("utf-8")
    found = re.findall(r"^    (\w+) = (\d+),$", text, re.MULTILINE)
    assert {name: int(value) for name, value in found} == dict(Column.__members__)
