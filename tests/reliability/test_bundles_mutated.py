"""B1: a spoilt bundle is refused with one line and a code, and nothing else happens.

One thing is allowed where the digests were made anew: a flipped bit may leave a model that is
whole, only another one. Then it may be sampled, and the samples are finite; or the run ends with
exit code 1 where they are not.
"""

import hashlib
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.reliability.criteria import Cases
from tests.reliability.mutations import CLASSES
from tests.reliability.mutations_graph import GRAPH_CLASSES
from tests.reliability.warm import Ran, Warm, one_error

DOCUMENT = Path(__file__).parents[2] / "docs" / "bundles.md"
WAYS = CLASSES | GRAPH_CLASSES
SEEDS = {"short": 10, "nightly": 100}
MOST_WORK = 1.5  # times the calls of a good load
MORE_MEMORY = 64 << 10  # KiB over those of a good load
REFUSED, CHECK_FAILED, FINE = 3, 1, 0

SKIP_THE_DIGEST = "import difftool.bundle as b; b._require_digest = lambda *_: None"
WORK_AND_WORK = """
import difftool.bundle as b
def slowly(*arguments, once=b._require_digest):
    for _ in map(lambda n: n, range(100_000)):
        pass
    once(*arguments)
b._require_digest = slowly
"""


@dataclass(frozen=True)
class Case:
    kind: str
    seed: int
    rehashed: bool


@dataclass
class Room:
    """Where the cases are run: a warm process, and what a good load takes."""

    warm: Warm
    bundle: Path
    folder: Path
    good: Ran | None = None

    def sample(self, bundle: Path, setup: str = "") -> Ran:
        """Draw one sample into the folder `out`."""
        line = ["sample", bundle, "-n", 1, "--out", "samples.npz", "--threads", 1]
        out = self.folder / "out"
        return self.warm([*line, "--backend", "onnxruntime-cpu"], out, setup=setup)


@pytest.fixture(scope="module")
def room(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("mutations")
    (folder / "out").mkdir()
    with Warm() as warm:
        found = Room(warm, tiny_bundle, folder)
        found.good = found.sample(tiny_bundle)
        assert found.good.code == FINE, found.good.err
        (folder / "out" / "samples.npz").unlink()
        yield found


def check(case: Case, room: Room, setup: str = "") -> None:
    """AssertionError where a mutated bundle does more than be refused."""
    place = room.folder / "place"
    shutil.rmtree(place, ignore_errors=True)
    bundle = Path(shutil.copytree(room.bundle, place / "bundle"))
    name = f"{case.kind} {case.seed} {case.rehashed}".encode()
    generator = random.Random(hashlib.sha256(name).digest())
    WAYS[case.kind](bundle, generator, case.rehashed)
    ran = room.sample(bundle, setup)
    samples = room.folder / "out" / "samples.npz"
    try:
        _judge(ran, room, samples, whole=case.rehashed and case.kind == "bit_flip")
    finally:
        samples.unlink(missing_ok=True)


def _judge(ran: Ran, room: Room, samples: Path, *, whole: bool) -> None:
    assert room.good is not None
    assert ran.calls <= MOST_WORK * room.good.calls, f"{ran.calls} calls"
    assert ran.peak < room.good.peak + MORE_MEMORY, f"{ran.peak >> 10} MiB"
    if whole and ran.code == FINE:
        assert not ran.err, ran.err
        with np.load(samples) as arrays:
            assert np.isfinite(arrays["samples"]).all(), "samples that are not finite"
        return
    one_error(ran, (REFUSED, CHECK_FAILED) if whole else (REFUSED,))
    assert not list(samples.parent.iterdir()), "something was written"
    if ran.code == REFUSED:
        assert ran.error_code in documented_codes(), ran.err


def documented_codes() -> frozenset[str]:
    """The codes that docs/bundles.md lists."""
    return frozenset(re.findall(r"^\| `((?:bundle|graph)-[\w-]+)` \|", DOCUMENT.read_text(), re.M))


@pytest.mark.criterion("B1")
@pytest.mark.parametrize("rehashed", [False, True], ids=["plain", "rehashed"])
@pytest.mark.parametrize("kind", WAYS)
def test_a_spoilt_bundle(
    kind: str, rehashed: bool, room: Room, cases: Cases, nightly: bool
) -> None:
    seeds = SEEDS["nightly" if nightly else "short"]
    cases.run(lambda case: check(case, room), [Case(kind, s, rehashed) for s in range(seeds)])


@pytest.mark.seeded("B1")
def test_too_much_work_is_seen(room: Room) -> None:
    with pytest.raises(AssertionError, match="calls"):
        check(Case("bit_flip", 0, rehashed=True), room, WORK_AND_WORK)


@pytest.mark.seeded("B1")
def test_a_skipped_digest_is_seen(room: Room, cases: Cases) -> None:
    flips = [Case("bit_flip", seed, rehashed=False) for seed in range(SEEDS["short"])]
    with pytest.raises(AssertionError, match="exit code 0"):
        cases.run(lambda case: check(case, room, SKIP_THE_DIGEST), flips)
