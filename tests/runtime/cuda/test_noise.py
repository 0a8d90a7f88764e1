"""The noise kernel in its host build, against `difftool.diffusion.noise` and exact normals."""

import numpy as np
import pytest

from difftool.diffusion import noise
from tests.runtime.cuda.host import launch

SEED = (0xFEDCBA98 << 32) | 0x76543210
DRAWS = np.array([4, 900, 7, 0xFFFFFFFF], np.uint32)


def drawn(
    row: list[int],
    samples: list[int],
    e: int,
    *,
    seed: int = SEED,
    stream: int = noise.SAMPLING,
    scale: float = 1,
) -> np.ndarray:
    """Return what the kernel writes, float32 [n, e]; NaN where it writes nothing."""
    n, guard = len(row), 16
    memory = np.full(n * e + guard, np.nan, np.float32)
    launch(
        *("difftool_noise", memory, np.array(row, np.int64), DRAWS, np.array(samples, np.uint32)),
        *(np.full(n, seed, np.uint64), np.uint32(stream), np.float32(scale)),
        *np.array([n, e, len(DRAWS)], np.int32),
    )
    assert np.isnan(memory[n * e :]).all(), "wrote past its end"
    return memory[: n * e].reshape(n, e)


def ulps(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the distance in units of the last place of float32, at the expected size."""
    return np.abs(found - expected) / np.spacing(np.abs(expected.astype(np.float32)))


@pytest.mark.parametrize("e", [1, 2, 3, 4, 5, 63, 784, 3073])
def test_normals_are_those_of_numpy(e: int) -> None:
    """To 8 ulp: numpy's own log, cos and sin are good to 4 and differ between processors."""
    samples = [0, 1, 5, 0xFFFFFFFF, 77]
    found = drawn([0] * 5, samples, e)
    assert ulps(found, noise.normal(SEED, int(DRAWS[0]), samples, (e,))).max() <= 8


def test_normals_are_box_muller_of_the_words_to_4_ulp() -> None:
    """Float64 from the uniforms and angles that the float32 recipe rounds to."""
    samples, e = list(range(64)), 4096
    words = noise.words(SEED, noise.SAMPLING, int(DRAWS[1]), samples, e)
    uniform = words.astype(np.float32) * np.float32(2**-32) + np.float32(2**-33)
    radius = np.sqrt(-2 * np.log(uniform[:, 0::2].astype(np.float64)))
    angle = (np.float32(2 * np.pi) * uniform[:, 1::2]).astype(np.float64)
    exact = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).reshape(64, e)
    assert ulps(drawn([1] * 64, samples, e), exact).max() <= 4


def test_each_sample_takes_the_draw_of_its_own_row() -> None:
    row, samples = [2, 0, 3, 1, 2], [8, 8, 3, 3, 4]
    found = drawn(row, samples, 10)
    for i, (at, sample) in enumerate(zip(row, samples, strict=True)):
        expected = noise.normal(SEED, int(DRAWS[at]), [sample], (10,))[0]
        assert ulps(found[i], expected).max() <= 8
        # And in whatever company, to the bit.
        assert np.array_equal(found[i], drawn([at], [sample], 10)[0])


@pytest.mark.parametrize("seed", [0, 1, 1 << 32, (1 << 64) - 1])
@pytest.mark.parametrize("stream", [noise.SAMPLING, noise.EVAL_LIKELIHOOD])
def test_the_whole_seed_and_the_stream_count(seed: int, stream: int) -> None:
    found = drawn([0], [6], 8, seed=seed, stream=stream)
    expected = noise.normal(seed, int(DRAWS[0]), [6], (8,), stream=stream)
    assert ulps(found, expected).max() <= 8


@pytest.mark.parametrize("outside", [-1, len(DRAWS), 1 << 40])
def test_a_sample_outside_the_table_keeps_its_old_noise(outside: int) -> None:
    found = drawn([1, outside, 2], [0, 1, 2], 6)
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()


@pytest.mark.parametrize("scale", [0.0, 0.3, 157.0])
def test_the_scale_is_one_product_in_float32(scale: float) -> None:
    normals = drawn([1, 3], [4, 9], 50)
    assert np.array_equal(drawn([1, 3], [4, 9], 50, scale=scale), np.float32(scale) * normals)
