"""S6 over HTTP: a backend that raises or gives NaN fails the requests that it ran, and no other.

tests/serve/test_refusals.py has a backend that hangs.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from difftool.diffusion.samplers import ddim
from difftool.runtime import Model
from difftool.runtime.scheduling.scheduler import Scheduler
from tests.reliability.criteria import Cases
from tests.reliability.test_scheduler_faults import Broken, Faulty
from tests.serve.conftest import client_of, digits, events_of, run  # noqa: F401

IMAGES, SAMPLES = "/v1/images/generations", "/v1/samples"


@dataclass
class Breaks:
    """A backend whose slots fail at random, for requests that `hurt` then knows by their seeds."""

    backend: Any
    seed: int
    made: list[Faulty] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def slots(self, count: int, most: int) -> Faulty:
        inner = self.backend.slots(count, most)
        self.made.append(Faulty(inner, np.random.default_rng(self.seed)))
        return self.made[0]


@dataclass(frozen=True)
class Crowd:
    """Requests that come at once."""

    seed: int
    asked: tuple[dict[str, Any], ...]


def crowds(count: int) -> Iterator[Crowd]:
    random = np.random.default_rng(0)
    for seed in range(count):
        yield Crowd(
            seed,
            tuple(
                {
                    "sampler": "ddim",
                    "num_inference_steps": int(random.integers(2, 6)),
                    "n": int(random.integers(1, 3)),
                    "seed": i,
                }
                for i in range(random.integers(3, 7))
            ),
        )


def answered_alone(digits: Model) -> Callable[[Crowd], int]:  # noqa: F811
    """Return the check of S6, which returns how many requests failed."""
    alone = Model(digits.bundle, digits.backend, max_batch=1)

    def check(case: Crowd) -> int:
        broken = Breaks(digits.backend, case.seed)
        model = Model(digits.bundle, broken, max_batch=4)  # type: ignore[arg-type]
        client = client_of(digits=model)

        async def ask(fields: dict[str, Any]) -> Any:
            if fields["seed"] % 3:
                return await client.ask("POST", SAMPLES, json=fields)
            return await client.ask("POST", IMAGES, json={**fields, "stream": True})

        async def ask_all() -> list[Any]:
            return await asyncio.gather(*map(ask, case.asked))

        answers, failed = run(ask_all()), 0
        for fields, answer in zip(case.asked, answers, strict=True):
            if fields["seed"] % 3:
                ok = answer.status_code == 200
                assert answer.status_code in (200, 500)
            else:
                ok = events_of(answer.text)[-1][0] != "error"
            hurt = fields["seed"] in broken.made[0].hurt
            assert ok or hurt, f"{fields} failed for others"
            assert not (ok and hurt), f"{fields} was answered by a backend that failed"
            failed += hurt
            if ok and fields["seed"] % 3:
                program = ddim(alone.spec, steps=fields["num_inference_steps"])
                wanted = alone.sample(program, n=fields["n"], seed=fields["seed"])
                found = np.array(answer.json()["samples"], np.float32)
                assert found.tobytes() == wanted.tobytes(), f"{fields} has other bits"
        running = model.scheduler()
        assert running.close()
        counts = running.counts
        assert (counts.accepted, counts.failed) == (len(case.asked), failed)
        assert counts.ok == len(case.asked) - failed
        return failed

    return check


@pytest.mark.criterion("S6")
def test_requests_over_http_fail_alone(
    digits: Model,  # noqa: F811
    cases: Cases,
    nightly: bool,
    note: Callable[[str], None],
) -> None:
    failed = cases.run(answered_alone(digits), crowds(300 if nightly else 15))
    assert sum(failed) > len(failed) / 4
    note(
        f"S6, over HTTP: {sum(failed)} requests failed with their backend, in {len(failed)} crowds"
    )


@pytest.mark.seeded("S6")
def test_an_answer_of_a_step_that_failed_is_seen(
    digits: Model,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail = Scheduler._fail

    def swallow(running: Scheduler, jobs: object, error: BaseException, *more: object) -> None:
        if not isinstance(error, Broken):
            fail(running, jobs, error, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Scheduler, "_fail", swallow)
    # a step that did run before it raised runs twice, and its request can then lack noise
    told = "answered by a backend that failed|failed for others"
    with pytest.raises(AssertionError, match=told):
        [answered_alone(digits)(case) for case in crowds(30)]
