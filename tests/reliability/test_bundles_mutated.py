"""B1: a spoilt bundle is refused with one line and a code, and nothing else happens.

One thing is allowed if the digests were made anew: a flipped bit may leave a model that is whole,
only another one. Then it may be sampled, and the samples are finite; or the run ends with exit
code 1 if they are not.
"""

import hashlib
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from difftool import bundle as bundle_format
from tests.reliability import commands
from tests.reliability.commands import Defect, Ended, Trouble, require_one_error
from tests.reliability.criteria import Cases
from tests.reliability.mutations import WAYS

DOCUMENT = Path(__file__).parents[2] / "docs" / "bundles.md"
SEEDS = {False: 5, True: 100}  # in the short tier and in full
MOST_WORK = 1.5  # times the calls of a good load
MORE_MEMORY = 64 << 10  # KiB over those of a good load
REFUSED, CHECK_FAILED, FINE = 3, 1, 0


@dataclass(frozen=True)
class Case:
    kind: str
    seed: int
    rehashed: bool


Check = Callable[..., None]


@pytest.fixture(scope="module")
def check(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Sample a mutated bundle; AssertionError if it does more than be refused."""
    folder = tmp_path_factory.mktemp("mutations")
    samples = folder / "out" / "samples.npz"
    samples.parent.mkdir()

    def sample(bundle: Path, defect: Defect | None = None) -> Ended:
        line = f"sample {bundle} -n 1 --out {samples} --threads 1 --backend onnxruntime-cpu"
        return commands.run(line, samples.parent, Trouble(counted=True, defect=defect))

    good = sample(tiny_bundle)
    assert good.code == FINE, good.err
    samples.unlink()

    def check(case: Case, defect: Defect | None = None) -> None:
        place = folder / "place"
        shutil.rmtree(place, ignore_errors=True)
        bundle = Path(shutil.copytree(tiny_bundle, place / "bundle"))
        name = f"{case.kind} {case.seed} {case.rehashed}".encode()
        generator = random.Random(hashlib.sha256(name).digest())
        WAYS[case.kind](bundle, generator, case.rehashed)
        ended = sample(bundle, defect)
        try:
            judge(ended, good, samples, whole=case.rehashed and case.kind == "bit_flip")
        finally:
            samples.unlink(missing_ok=True)

    return check


def judge(ended: Ended, good: Ended, samples: Path, *, whole: bool) -> None:
    assert ended.calls <= MOST_WORK * good.calls, f"{ended.calls} calls"
    assert ended.peak < good.peak + MORE_MEMORY, f"{ended.peak >> 10} MiB"
    if whole and ended.code == FINE:
        assert not ended.err, ended.err
        with np.load(samples) as arrays:
            assert np.isfinite(arrays["samples"]).all(), "samples that are not finite"
        return
    require_one_error(ended, (REFUSED, CHECK_FAILED) if whole else (REFUSED,))
    assert not list(samples.parent.iterdir()), "something was written"
    if ended.code == REFUSED:
        assert ended.error_code in documented_codes(), ended.err


def documented_codes() -> frozenset[str]:
    """Return the codes that docs/bundles.md lists."""
    return frozenset(re.findall(r"^\| `((?:bundle|graph)-[\w-]+)` \|", DOCUMENT.read_text(), re.M))


@pytest.mark.criterion("B1")
@pytest.mark.parametrize("rehashed", [False, True], ids=["plain", "rehashed"])
@pytest.mark.parametrize("kind", WAYS)
def test_a_spoilt_bundle(
    kind: str, rehashed: bool, check: Check, cases: Cases, nightly: bool
) -> None:
    cases.run(check, [Case(kind, seed, rehashed) for seed in range(SEEDS[nightly])])


def work_and_work() -> None:
    once = bundle_format._require_digest

    def slowly(*arguments: object) -> None:
        for _ in map(lambda n: n, range(100_000)):
            pass
        once(*arguments)  # type: ignore[arg-type]

    bundle_format._require_digest = slowly


@pytest.mark.seeded("B1")
def test_too_much_work_is_seen(check: Check) -> None:
    with pytest.raises(AssertionError, match="calls"):
        check(Case("bit_flip", 0, rehashed=True), work_and_work)


def skip_the_digest() -> None:
    bundle_format._require_digest = lambda *_: None


@pytest.mark.seeded("B1")
def test_a_skipped_digest_is_seen(check: Check, cases: Cases) -> None:
    flips = [Case("bit_flip", seed, rehashed=False) for seed in range(10)]
    with pytest.raises(AssertionError, match="exit code 0"):
        cases.run(partial(check, defect=skip_the_digest), flips)
