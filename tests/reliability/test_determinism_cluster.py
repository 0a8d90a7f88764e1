"""D5 in bulk: one process or a cluster, in shards of any size, killed or not: the same digests."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import difftool
from difftool.diffusion.program import Program
from difftool.scale import work
from tests.fresh import python
from tests.reliability.criteria import Cases
from tests.reliability.moments import Calls
from tests.scale.cluster import CORES, cluster  # noqa: F401

pytestmark = pytest.mark.timeout(3600)  # against what hangs: Ray's processes take long to start

ROOT: Final = Path(__file__).resolve().parents[2]
N: Final = {False: 12, True: 2000}
SHARDS: Final = {False: (5, 4), True: (50, 333)}
KILLS: Final = {False: 2, True: 20}
# Of a driver, from a shard on until the next one is written; and of a worker, until its shard is
# drawn. Both make more calls than that.
CALLS: Final = {"driver": 30, "worker": 100}

# A driver that kills itself at a number of calls after a number of shards.
DRIVER: Final = """
import os, signal
from pathlib import Path
from tests.reliability.moments import Calls
from tests.reliability.test_determinism_cluster import Bulk, dying, work

shards = []
calls = Calls({{{at}: None}}, lambda _: os.kill(os.getpid(), signal.SIGKILL))

def on_shard(done, n):
    shards.append(done)
    if len(shards) == {after}:
        calls.__enter__()

work.draw = dying({marks!r}, {deaths})
Bulk({nightly}, {size}, cores=1, ray={ray!r}).draw(Path({folder!r}), on_shard)
"""


@dataclass(frozen=True)
class Bulk:
    """A way to draw the samples: in shards of a size, with so many cores for each."""

    nightly: bool
    size: int
    cores: int = 1
    ray: str | None = None

    def draw(
        self, folder: Path, on_shard: Callable[[int, int], None] | None = None
    ) -> dict[int, str]:
        """Draw into a folder, or go on with it; return the digest of each sample."""
        difftool.scale.sample(
            "ddpm-mnist",
            folder,
            n=N[self.nightly],
            program=program(),
            seed=11,
            shard_size=self.size,
            ray=self.ray,
            cpus_per_task=self.cores,
            threads=1,
            max_batch=4,
            on_shard=on_shard,
        )
        return difftool.scale.digests(folder)


@dataclass(frozen=True)
class Kill:
    """When a driver is killed, and its workers."""

    size: int
    after: int
    at: int
    deaths: Mapping[int, int]


def program() -> Program:
    spec = difftool.runtime.open_bundle("ddpm-mnist").spec
    return difftool.samplers.ddim(spec, steps=3)


def ways(nightly: bool) -> Iterator[Bulk]:
    """Yield two workers and one, in shards of each size."""
    for size in SHARDS[nightly]:
        for cores in (1, CORES):  # of a task, and so many tasks at a time have room
            yield Bulk(nightly, size, cores, "local")


def kills(nightly: bool) -> Iterator[Kill]:
    """Yield random ones: some workers die once each, and the driver while they are at work."""
    random = np.random.default_rng(0)
    for number in range(KILLS[nightly]):
        size = SHARDS[nightly][number % 2]
        firsts = range(0, N[nightly], size)
        chosen = random.choice(firsts, min(3, len(firsts)), replace=False).tolist()
        yield Kill(
            size,
            int(random.integers(1, len(firsts))),
            int(random.integers(1, CALLS["driver"])),
            {first: int(random.integers(1, CALLS["worker"])) for first in chosen},
        )


def dying(marks: str, deaths: Mapping[int, int]) -> Callable[..., bytes]:
    """Return `work.draw` whose process kills itself, once for each of these shards."""

    def draw(job: Any, first: int, n: int) -> bytes:
        from difftool.scale import work as there

        mark = Path(marks, str(first))
        if first not in deaths or mark.exists():
            return there.draw(job, first, n)
        mark.touch()
        with Calls({deaths[first]: None}, lambda _: os.kill(os.getpid(), signal.SIGKILL)):
            return there.draw(job, first, n)

    return draw


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, nightly: bool) -> dict[int, str]:
    """The digests of what one process draws."""
    found = Bulk(nightly, SHARDS[nightly][0]).draw(tmp_path_factory.mktemp("alone"))
    assert sorted(found) == list(range(N[nightly]))
    assert len(set(found.values())) == N[nightly]
    return found


@pytest.mark.criterion("D5")
@pytest.mark.usefixtures("cluster")
def test_workers_and_shards(
    alone: dict[int, str], nightly: bool, cases: Cases, tmp_path: Path
) -> None:
    def check(way: Bulk) -> None:
        assert way.draw(tmp_path / f"{way.size}-{way.cores}") == alone

    cases.run(check, ways(nightly))


@pytest.mark.criterion("D5")
def test_killed_and_gone_on_with(
    cluster: str,  # noqa: F811
    alone: dict[int, str],
    nightly: bool,
    cases: Cases,
    tmp_path: Path,
) -> None:
    def check(kill: Kill) -> None:
        around = tmp_path / f"{kill.size}-{kill.after}-{kill.at}"
        marks, folder = around / "marks", around / "samples"
        marks.mkdir(parents=True)
        code = DRIVER.format(
            at=kill.at,
            after=kill.after,
            marks=str(marks),
            deaths=dict(kill.deaths),
            nightly=nightly,
            size=kill.size,
            ray=cluster,
            folder=str(folder),
        )
        done = python("-c", code, folder=ROOT, fails=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        kept = sum(shard.n for shard in difftool.scale.read_manifest(folder).shards)
        assert kept >= kill.size
        drawn: list[int] = []
        way = Bulk(nightly, kill.size, ray="local")
        assert way.draw(folder, lambda there, n: drawn.append(there)) == alone
        assert len(drawn) <= -(-(N[nightly] - kept) // kill.size), "a whole shard is drawn again"
        assert not [file for file in folder.rglob(".*")], "a part of a file is left"

    cases.run(check, kills(nightly))


@pytest.mark.seeded("D5")
@pytest.mark.usefixtures("cluster")
def test_a_seed_for_each_worker_is_seen(
    alone: dict[int, str], nightly: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(job: Any, first: int, n: int) -> bytes:
        from difftool.scale import work as there

        return there.draw(replace(job, seed=job.seed + os.getpid()), first, n)

    monkeypatch.setattr(work, "draw", draw)
    found = Bulk(nightly, SHARDS[nightly][0], ray="local").draw(tmp_path / "seeded")
    assert found.keys() == alone.keys()
    assert not set(found.values()) & set(alone.values())
