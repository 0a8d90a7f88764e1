"""How many replicas there are to be, by what they report; and what a replica reports."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from difftool.errors import ResourceError
from difftool.runtime import Model
from difftool.runtime.scheduling.runner import Runner
from tests.serve.conftest import Gate, wait_at

pytest.importorskip("starlette")

from difftool.serve import Application, QueueWait, RayArguments
from difftool.serve.asked import Asked
from difftool.serve.replicas import Replica


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """Take from the server's log what a replica, which is a process elsewhere, gave it."""
    log = logging.getLogger("difftool.serve")
    level, handlers = log.level, list(log.handlers)
    yield
    log.setLevel(level)
    log.handlers[:] = handlers


def context(
    waits: Sequence[float], busy: Sequence[float], running: int, target: int | None = None
) -> SimpleNamespace:
    """Return what a policy is told of `running` replicas, of which some have reported."""
    return SimpleNamespace(
        aggregated_metrics={"wait": dict(enumerate(waits)), "busy": dict(enumerate(busy))},
        current_num_replicas=running,
        target_num_replicas=running if target is None else target,
    )


@pytest.mark.parametrize(
    ("waits", "busy", "running", "target", "wanted"),
    [
        ((), (), 2, 3, 3),  # nobody has reported
        ((0.0, 0.0), (0.7, 0.7), 2, None, 2),
        ((2.0, 2.0), (1.0, 1.0), 2, None, 3),  # they wait for 4/3 of the time that they may
        ((60.0, 60.0), (1.0, 1.0), 2, None, 4),  # at most twice as many at a time
        ((4.0, 0.0), (1.0, 1.0), 2, None, 3),  # the mean counts
        ((1.5, 1.5), (1.0, 1.0), 2, None, 2),  # full, but nobody waits for too long
        ((0.0,) * 4, (0.1,) * 4, 4, None, 1),
        ((0.0,) * 4, (0.5,) * 4, 4, None, 3),  # two are full, and three then 2/3
        ((0.0,) * 4, (0.0,) * 4, 4, None, 1),
        ((0.0,), (1.0,), 3, None, 3),  # the two that are new may be as busy
    ],
)
def test_replicas_by_what_they_report(
    waits: Sequence[float],
    busy: Sequence[float],
    running: int,
    target: int | None,
    wanted: int,
) -> None:
    assert QueueWait(wait=1.5)(context(waits, busy, running, target)) == (wanted, {})


def test_ray_copies_the_policy_with_its_arguments() -> None:
    """As its controller does, which gets it as bytes."""
    pytest.importorskip("ray.serve", exc_type=ImportError)
    from difftool.serve import on_ray

    arguments = RayArguments(models={"m": "ddpm-mnist"}, max_replicas=3, wait=1.5)
    config = on_ray(arguments)._bound_deployment._deployment_config.autoscaling_config
    assert (config.min_replicas, config.max_replicas) == (1, 3)
    policy = config.policy.get_policy()(**config.policy.policy_kwargs)
    assert policy(context((2.0, 2.0), (1.0, 1.0), 2)) == (3, {})


def test_the_longest_wait_is_that_of_who_has_not_begun(gated: Model, gate: Gate) -> None:
    service = Application({"gated": gated}).service

    async def look() -> None:
        assert service.longest_wait() == 0
        async with service.drawing(Asked(), "first"):
            await wait_at(gate)
            assert service.longest_wait() == 0  # it has begun
            async with service.drawing(Asked(), "second"):
                before = service.longest_wait()
                assert service.longest_wait() > before > 0
            assert service.longest_wait() == 0
        gate.open()

    asyncio.run(look())


def test_a_replica_whose_step_hangs_is_not_healthy(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica(RayArguments(models={"tiny": str(tiny_bundle)}, hang=7.0))
    asyncio.run(replica.check_health())
    assert asyncio.run(replica.record_autoscaling_stats()) == {"wait": 0.0, "busy": 0.0}
    monkeypatch.setattr(Runner, "healthy", lambda self, limit: limit > 7)
    with pytest.raises(ResourceError, match="tiny has stopped"):
        asyncio.run(replica.check_health())


def test_a_replica_has_the_models_of_its_arguments(tiny_bundle: Path) -> None:
    replica = Replica(RayArguments(models={"tiny": str(tiny_bundle)}, max_batch=2))
    assert asyncio.run(replica.cancel("nothing")) is None
    (load,) = asyncio.run(replica.status())["models"]
    assert (load["id"], load["max_batch"], load["slots"]) == ("tiny", 2, 8)
