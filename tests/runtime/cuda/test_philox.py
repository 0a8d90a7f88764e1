"""The generator of the noise kernel, in its host build: integers, so every bit must agree."""

import numpy as np
import pytest

from difftool.diffusion import noise
from tests.runtime.cuda.host import launch

ONES = 0xFFFFFFFF


def words(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox of counters uint32 [..., 4]."""
    out = np.empty_like(counter)
    launch("words", out, counter, np.array(key, np.uint32), np.int64(counter.size // 4))
    return out


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # Random123, kat_vectors: philox4x32 10
        ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([ONES] * 4, (ONES, ONES), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_published_answers(counter: list[int], key: tuple[int, int], expected: list[int]) -> None:
    assert words(np.array(counter, np.uint32), key).tolist() == expected


def test_every_word_is_that_of_numpy() -> None:
    random = np.random.default_rng(0)
    counter = random.integers(0, 1 << 32, (5000, 4), np.uint32)
    for _ in range(4):
        k0, k1 = (int(k) for k in random.integers(0, 1 << 32, 2))
        assert np.array_equal(words(counter, (k0, k1)), noise.philox(counter, (k0, k1)))


def test_the_stream_of_samples_is_that_of_numpy() -> None:
    """Counters laid out by hand as the kernels lay them out: block, sample, stream, draw."""
    seed, stream, draw, samples, blocks = (7 << 32) | 5, 3, 11, [2, 9, 0xFFFFFFFF], 6
    counter = [[block, sample, stream, draw] for sample in samples for block in range(blocks)]
    drawn = words(np.array(counter, np.uint32), (5, 7)).reshape(3, 4 * blocks)
    assert np.array_equal(drawn[:, :22], noise.words(seed, stream, draw, samples, 22))
