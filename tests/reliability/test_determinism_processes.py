"""D5: one process or several, in any chunks: the same set of (index, sha256 of the sample)."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import pytest

import difftool
from difftool.diffusion.samplers import ddpm
from tests.reliability import forked
from tests.reliability.criteria import Cases

Chunk = tuple[int, int]  # the first sample, and how many
Digests = set[tuple[int, str]]

SEED, SAMPLES, BATCH = 11, 24, 5
BACKENDS = ("onnxruntime-cpu", "openvino")


def digests(backend: str, seed: int, chunks: tuple[Chunk, ...]) -> Digests:
    """Draw samples of a seed, a chunk after the other."""
    model = difftool.load("ddpm-mnist", backend=backend, threads=1, max_batch=BATCH)
    program = ddpm(model.spec, steps=4)
    found = set()
    for first, n in chunks:
        drawn = model.sample(program, n=n, seed=seed, first_sample=first, deterministic=True)
        found |= {(first + i, hashlib.sha256(x.tobytes()).hexdigest()) for i, x in enumerate(drawn)}
    return found


@dataclass(frozen=True)
class Split:
    """All samples, shared out: the chunks of each worker."""

    workers: tuple[tuple[Chunk, ...], ...]


def splits(count: int) -> Iterator[Split]:
    """Yield random ones, for two to four workers; some may have nothing to do."""
    random = np.random.default_rng(0)
    for _ in range(count):
        cuts = random.choice(np.arange(1, SAMPLES), int(random.integers(1, 9)), replace=False)
        workers: list[list[Chunk]] = [[] for _ in range(int(random.integers(2, 5)))]
        for begin, end in pairwise([0, *sorted(cuts.tolist()), SAMPLES]):
            workers[random.integers(len(workers))].append((begin, end - begin))
        yield Split(tuple(map(tuple, workers)))


def drawn(
    split: Split, backend: str, seed_of: Callable[[int], int] = lambda worker: SEED
) -> Digests:
    """Return what the workers draw, each in a process of its own and all at the same time."""

    def work(worker: int) -> Digests:
        return forked.call(digests, backend, seed_of(worker), split.workers[worker])

    with ThreadPoolExecutor() as pool:
        return set().union(*pool.map(work, range(len(split.workers))))


def alone(backend: str) -> Digests:
    """Return what one process draws in one go."""
    return drawn(Split((((0, SAMPLES),),)), backend)


def same_set(backend: str, expected: Digests) -> Callable[[Split], None]:
    """Return the check of D5."""

    def check(split: Split, seed_of: Callable[[int], int] = lambda worker: SEED) -> None:
        found = drawn(split, backend, seed_of)
        assert found == expected, f"{len(found - expected)} of {len(expected)} samples are others"

    return check


@pytest.mark.criterion("D5")
def test_processes_and_chunks(cases: Cases, nightly: bool) -> None:
    checks = {}
    for backend in BACKENDS if nightly else BACKENDS[:1]:
        expected = alone(backend)
        assert len(expected) == SAMPLES
        checks[backend] = same_set(backend, expected)
    shared = list(splits(50 if nightly else 2))
    cases.run(lambda case: checks[case[0]](case[1]), list(product(checks, shared)))


@pytest.mark.seeded("D5")
def test_a_seed_for_each_worker_is_seen() -> None:
    expected = alone(BACKENDS[0])
    check = same_set(BACKENDS[0], expected)
    halves = Split((((0, 10),), ((10, SAMPLES - 10),)))
    check(halves)
    with pytest.raises(AssertionError, match="14 of 24 samples are others"):
        check(halves, lambda worker: SEED + worker)
