"""The noise stream: published known answers, independence of neighbours, and the distributions."""

import numpy as np
import pytest

from difftool.diffusion import noise
from difftool.errors import UsageError


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # Random123, kat_vectors: philox4x32 10
        ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (
            [0xFFFFFFFF] * 4,
            (0xFFFFFFFF, 0xFFFFFFFF),
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        ),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_answers(
    counter: list[int], key: tuple[int, int], expected: list[int]
) -> None:
    assert noise.philox(np.array(counter, np.uint32), key).tolist() == expected


def test_words_are_counted_by_block_sample_stream_and_draw() -> None:
    seed = (7 << 32) | 5
    drawn = noise.words(seed, 3, [11], [2, 9], 10)
    assert drawn.shape == (1, 2, 10)
    for block, lanes in ((0, slice(0, 4)), (1, slice(4, 8)), (2, slice(8, 10))):
        alone = noise.philox(np.array([block, 9, 3, 11], np.uint32), (5, 7))
        assert drawn[0, 1, lanes].tolist() == alone[: lanes.stop - lanes.start].tolist()


def test_a_sample_does_not_depend_on_its_neighbours_or_on_how_draws_are_grouped() -> None:
    shape = (3, 5, 7)
    together = noise.normal(1, [4, 5, 6], np.arange(8), shape)
    alone = noise.normal(1, 5, [3], shape)
    assert np.array_equal(together[1, 3], alone[0])
    assert not np.array_equal(together[1, 3], together[1, 4])
    assert not np.array_equal(together[1, 3], together[2, 3])
    assert not np.array_equal(noise.normal(2, 5, [3], shape), alone)
    assert not np.array_equal(noise.normal(1, 5, [3], shape, stream=noise.TRAIN_NOISE), alone)


def test_box_muller_is_the_documented_one() -> None:
    first, second = noise.words(0, 0, 0, [0], 2)[0].astype(np.float64)
    radius = np.sqrt(-2 * np.log((first + 0.5) / 2**32))
    angle = 2 * np.pi * (second + 0.5) / 2**32
    drawn = noise.normal(0, 0, [0], (2,))[0]
    assert drawn == pytest.approx([radius * np.cos(angle), radius * np.sin(angle)], rel=1e-5)


def test_normal_has_the_moments_of_a_normal() -> None:
    drawn = noise.normal(0, 1, np.arange(1000), (1000,)).astype(np.float64).ravel()
    assert abs(drawn.mean()) < 5e-3
    assert drawn.var() == pytest.approx(1, abs=6e-3)
    assert (drawn**3).mean() == pytest.approx(0, abs=2e-2)
    assert (drawn**4).mean() == pytest.approx(3, abs=5e-2)
    # Neighbours are the two numbers of a Box-Muller pair, or of two pairs.
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 5e-3
    assert np.isfinite(drawn).all()


def test_uniform_is_uniform() -> None:
    drawn = noise.uniform(0, 1, np.arange(1000), (1000,)).astype(np.float64).ravel()
    counts, _ = np.histogram(drawn, bins=100, range=(0, 1))
    chi_squared = ((counts - 1e4) ** 2 / 1e4).sum()
    assert 50 < chi_squared < 160  # 99 degrees of freedom
    assert drawn.min() > 0
    assert drawn.max() <= 1


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_a_seed_is_64_bits(seed: int) -> None:
    with pytest.raises(UsageError, match="seed"):
        noise.normal(seed, 0, [0], (4,))
