"""Counter-based noise: sample i of a seed is the same in every batch.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") maps a counter
and a key to four random words. The key is the seed; the counter is (block, sample, stream, draw),
where a block is four consecutive elements of a sample. So every number is a pure function of the
place where it is used.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difftool.errors import UsageError

# Each use has a stream of its own, so that two uses of one seed never share numbers.
SAMPLING: Final = 0
TRAIN_NOISE: Final = 1
TRAIN_LEVEL: Final = 2
TRAIN_ORDER: Final = 3
TRAIN_AUGMENT: Final = 4
TRAIN_DROPOUT: Final = 5
DATA: Final = 6
TRAIN_DITHER: Final = 7
TRAIN_PROJECTION: Final = 8
EVAL_LIKELIHOOD: Final = 9
TRAIN_LABEL: Final = 10
TRAIN_HELD_OUT: Final = 11
SAMPLING_LABEL: Final = 12

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW, _HIGH = np.uint64(0xFFFFFFFF), np.uint64(32)
_SCALE, _HALF = np.float32(2.0**-32), np.float32(2.0**-33)
_TWO_PI = np.float32(2 * np.pi)

Words = NDArray[np.uint32]
Floats = NDArray[np.float32]


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Return Philox4x32-10 of counters uint32 [..., 4] under a key of two 32-bit integers."""
    c = [counter[..., i].astype(np.uint64) for i in range(4)]
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c[0] * _MULTIPLIERS[0], c[2] * _MULTIPLIERS[1]
        c = [
            (p1 >> _HIGH) ^ c[1] ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _HIGH) ^ c[3] ^ np.uint64(k1),
            p0 & _LOW,
        ]
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([word.astype(np.uint32) for word in c], axis=-1)


def words(seed: int, stream: int, draw: ArrayLike, samples: ArrayLike, count: int) -> Words:
    """Return random words uint32 [*D, N, count] for draws [*D] and sample indices [N]."""
    if not 0 <= seed < 1 << 64:
        raise UsageError(f"seed {seed} is not in 0 .. 2^64 - 1", "choose a smaller one")
    draws, indices = np.asarray(draw, np.uint32), np.asarray(samples, np.uint32)
    blocks = -(-count // 4)
    counter = np.empty((*draws.shape, indices.size, blocks, 4), np.uint32)
    counter[..., 0] = np.arange(blocks, dtype=np.uint32)
    counter[..., 1] = indices[:, None]
    counter[..., 2] = stream
    counter[..., 3] = draws[..., None, None]
    drawn = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))
    return drawn.reshape(*draws.shape, indices.size, blocks * 4)[..., :count]


def uniform(
    seed: int, draw: ArrayLike, samples: ArrayLike, shape: Sequence[int], *, stream: int = SAMPLING
) -> Floats:
    """Return uniform float32 [*D, N, *shape] in (0, 1], for draws [*D] and sample indices [N]."""
    drawn = words(seed, stream, draw, samples, int(np.prod(shape)))
    return _unit(drawn).reshape(*drawn.shape[:-1], *shape)


def normal(
    seed: int, draw: ArrayLike, samples: ArrayLike, shape: Sequence[int], *, stream: int = SAMPLING
) -> Floats:
    """Return standard normal float32 [*D, N, *shape], for draws [*D] and sample indices [N].

    Box-Muller in float32: the words (w0, w1) of a block give its first two elements, (w2, w3) the
    other two. The words are exact everywhere; log, sqrt, cos and sin may differ by ulps.
    """
    count = int(np.prod(shape))
    # Whole blocks, since Box-Muller takes words in pairs; the surplus numbers are dropped.
    drawn = words(seed, stream, draw, samples, -(-count // 4) * 4)
    radius = np.sqrt(np.float32(-2) * np.log(_unit(drawn[..., 0::2])))
    angle = _TWO_PI * _unit(drawn[..., 1::2])
    result = np.empty(drawn.shape, np.float32)
    np.multiply(radius, np.cos(angle), out=result[..., 0::2])
    np.multiply(radius, np.sin(angle), out=result[..., 1::2])
    return result[..., :count].reshape(*drawn.shape[:-1], *shape)


def _unit(drawn: Words) -> Floats:
    """Map words to float32 in (0, 1]: (word + 1/2) / 2^32, each operation rounded to nearest."""
    unit: Floats = drawn.astype(np.float32) * _SCALE + _HALF
    return unit
