"""S1 and S2: a server with more work than it can do, and one that works for long, keep their size.

The limits of time, such as how soon a refusal comes, are measured by `benchmarks/serving.py`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from difftool.diffusion.samplers import ddim
from difftool.runtime import Model, load
from tests.reliability.served import Held, Load, counts, held, reading
from tests.serve.served import serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MIB = 1 << 20
BATCH, QUEUE = 1, 1
CLIENTS = 10 * (4 * BATCH + QUEUE)  # each always has a request; as many as four batches run
SEEDS = 5
MOST_GROWTH = 64 * MIB
LEAK = """
from difftool.serve import drawing
kept, numbers = [], drawing._numbers
def leaking(*arguments):
    kept.append(bytearray(b"." * (8 << 20)))
    return numbers(*arguments)
drawing._numbers = leaking
"""
UNCOUNTED = """
from difftool.runtime.scheduling.scheduler import Scheduler
count = Scheduler._count
def forgetful(self, name):
    if name != "cancelled":
        count(self, name)
Scheduler._count = forgetful
"""


def asked(i: int) -> dict[str, Any]:
    return {"sampler": "ddim", "num_inference_steps": 2 + i % 3, "seed": i % SEEDS}


class Own:
    """The samples that each request must be answered with."""

    def __init__(self) -> None:
        self._model: Model = load("ddpm-mnist", max_batch=1, threads=1)
        self._known: dict[tuple[int, int], list[Any]] = {}

    def __call__(self, i: int, answer: dict[str, Any]) -> None:
        fields = asked(i)
        steps, seed = fields["num_inference_steps"], fields["seed"]
        if (steps, seed) not in self._known:
            program = ddim(self._model.spec, steps=steps)
            self._known[steps, seed] = self._model.sample(program, n=1, seed=seed).tolist()
        assert answer["samples"] == self._known[steps, seed], "other bits than alone"


def grown(before: Held, after: Held) -> None:
    memory = after.memory - before.memory
    assert memory <= MOST_GROWTH, f"{memory / MIB:.1f} MiB more"


def overloaded(folder: Path, requests: int, defect: str = "") -> str:
    """Demand what S1 does, of a server that so many requests are accepted by; return a note."""
    words = ("--max-batch", str(BATCH), "--queue", str(QUEUE))
    with serving(folder, *words, defect=defect) as served, reading(served):
        load = Load(served, asked, Own())

        def answered(many: int) -> Callable[[], bool]:
            return lambda: load.ended[200] + load.ended[0] >= many

        load.run(CLIENTS, answered(requests // 4))
        before = held(served)
        load.run(CLIENTS, answered(requests))
        load.settle()
        ended, after = counts(served), held(served)
        assert set(load.ended) == {0, 200, 429}, f"other answers: {load.ended}"
        assert ended["refused"] == load.ended[429] > load.ended[200], "it was no overload"
        assert ended["accepted"] == load.ended[200] + load.ended[0], "some were not counted"
        done = ended["ok"] + ended["cancelled"] + ended["timeout"] + ended["failed"]
        assert ended["accepted"] == done, "some have no end"
        assert ended["cancelled"] > 0
        assert (ended["timeout"], ended["failed"]) == (0, 0)
        grown(before, after)
        return (
            f"S1: {ended['accepted']} requests accepted and {ended['refused']} refused; "
            f"{(after.memory - before.memory) / MIB:.1f} MiB more at the end"
        )


@pytest.mark.criterion("S1")
@pytest.mark.timeout(3600)
def test_ten_times_what_it_can_do(
    tmp_path: Path, nightly: bool, note: Callable[[str], None]
) -> None:
    note(overloaded(tmp_path, 20_000 if nightly else 40))


@pytest.mark.seeded("S1")
@pytest.mark.parametrize(("defect", "said"), [(LEAK, "MiB more"), (UNCOUNTED, "some have no end")])
def test_answers_that_are_kept_or_not_counted_are_seen(
    tmp_path: Path, defect: str, said: str
) -> None:
    with pytest.raises(AssertionError, match=said):
        overloaded(tmp_path, 40, defect)


def soaked(folder: Path, requests: int, defect: str = "") -> str:
    """Keep 0.7 of a server's places busy for so many requests; return a note.

    One of four clients leaves early. Threads and files must not be more than at the busiest moment
    of the first quarter.
    """
    slots = 10
    with serving(folder, "--max-batch", str(slots), defect=defect) as served, reading(served):
        load = Load(served, asked, Own())
        seen: list[Held] = []

        def over() -> bool:
            done = load.ended.total()
            if done >= len(seen) * requests / 40:
                seen.append(held(served))
            return done >= requests

        load.run(7 * slots // 10, over)
        load.settle()
        ended = counts(served)
        assert set(load.ended) == {0, 200}, f"other answers: {load.ended}"
        assert ended["accepted"] == ended["ok"] + ended["cancelled"] == load.ended.total()
        assert ended["cancelled"] > 0
        early, late = seen[: len(seen) // 4], seen[len(seen) // 4 :]
        grown(max(early, key=lambda each: each.memory), max(late, key=lambda each: each.memory))
        for name in ("threads", "files"):
            most = [max(getattr(each, name) for each in part) for part in (early, late)]
            assert most[1] <= most[0] + slots, f"{most[1]} {name}, and {most[0]} at first"
        last = np.array([(each.memory / MIB, each.threads, each.files) for each in seen])
        memory, threads, files = last.max(0)
        return (
            f"S2: {ended['ok']} requests done and {ended['cancelled']} left at 0.7 of the places; "
            f"at most {memory:.0f} MiB, {threads:.0f} threads and {files:.0f} files"
        )


@pytest.mark.criterion("S2")
@pytest.mark.timeout(7200)
def test_a_long_time_at_work(tmp_path: Path, nightly: bool, note: Callable[[str], None]) -> None:
    note(soaked(tmp_path, 40_000 if nightly else 60))


FILES = """
from difftool.serve import drawing
kept, numbers = [], drawing._numbers
def leaking(*arguments):
    kept.append(open("/dev/null"))
    return numbers(*arguments)
drawing._numbers = leaking
"""


@pytest.mark.seeded("S2")
def test_files_that_stay_open_are_seen(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="files, and"):
        soaked(tmp_path, 60, FILES)
