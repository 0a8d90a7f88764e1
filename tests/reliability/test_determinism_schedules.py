"""D1 of requests that share steps: a sample has the bits that it has alone.

Other requests may join, leave or be cancelled at any row, and the sample may have any slot. On a
backend whose batches round differently, this is promised with `deterministic=True` only.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from difftool.bundle import Bundle
from difftool.diffusion.program import Program
from difftool.runtime.backends import host_slots
from difftool.runtime.cuda.slot_pool import SlotPool
from difftool.runtime.cuda.slots import DeviceSlots
from difftool.runtime.draws import Draws, row_noise
from difftool.runtime.model import Model
from difftool.runtime.protocols import Backend
from difftool.runtime.request import Request
from tests.reliability.backends import DEVICE, Floats, opened
from tests.reliability.criteria import Cases
from tests.reliability.schedules import Asked, Schedule, alone, play, programs, schedules

# Backends that give a sample the same bits in any slot of a batch of any size.
INVARIANT = ("onnxruntime-cpu", DEVICE)
SHORT = {"onnxruntime-cpu": 60, DEVICE: 30, "openvino": 10, "torchscript": 10}
FULL = 500


def same_in_any_company(backend: Backend, bundle: Bundle) -> Callable[[Schedule], int]:
    """Return the check of D1, which returns how many samples it compared."""

    def check(case: Schedule) -> int:
        tickets = play(backend, bundle, case)
        reference = Model(bundle, backend, max_batch=case.most)
        compared = 0
        for asked, ticket in zip(case.asked, tickets, strict=True):
            if not ticket.cancelled():
                found, wanted = ticket.result(0), alone(reference, asked.request)
                assert found.tobytes() == wanted.tobytes(), f"{asked} has other bits alone"
                compared += asked.request.n
        return compared

    return check


@pytest.mark.criterion("D1")
@pytest.mark.parametrize("name", SHORT)
def test_requests_that_share_steps(
    name: str, guided: Bundle, cases: Cases, nightly: bool, note: Callable[[str], None]
) -> None:
    deterministic = name not in INVARIANT
    asked = schedules(guided, FULL if nightly else SHORT[name], deterministic=deterministic)
    compared = cases.run(same_in_any_company(opened(guided, name), guided), asked)
    how = ", deterministic" if deterministic else ""
    note(f"D1, {name}{how}: {sum(compared)} samples of {len(compared)} schedules have their bits")


def single_and_joined(bundle: Bundle) -> tuple[Schedule, Schedule]:
    """Return schedules of one request that adds noise, and of one that another joins."""
    noisy = replace(next(schedules(bundle, 1, deterministic=False)), asked=())
    request = Request(programs(bundle)[0], n=2, seed=3)
    single = replace(noisy, asked=(Asked(request, 0, None),))
    return single, replace(noisy, asked=(*single.asked, Asked(replace(request, seed=4), 2, None)))


@pytest.mark.seeded("D1")
def test_one_stream_of_noise_for_a_batch_is_seen(
    guided: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = same_in_any_company(opened(guided, "onnxruntime-cpu"), guided)
    single, joined = single_and_joined(guided)
    seeds: list[int] = []

    def shared(program: Program, draws: Draws) -> Iterator[Floats | None]:
        seeds.append(draws.seed)
        return row_noise(program, replace(draws, seed=seeds[0]))

    check(joined)
    monkeypatch.setattr(host_slots, "row_noise", shared)
    check(single)
    with pytest.raises(AssertionError, match="other bits alone"):
        check(joined)


@pytest.mark.seeded("D1")
def test_one_seed_for_all_slots_of_a_device_is_seen(
    guided: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = same_in_any_company(opened(guided, DEVICE), guided)
    single, joined = single_and_joined(guided)
    check(joined)
    tell = DeviceSlots._tell

    def shared(slots: DeviceSlots, pool: SlotPool) -> None:
        slots._seeds[:] = slots._seeds[0]
        tell(slots, pool)

    monkeypatch.setattr(DeviceSlots, "_tell", shared)
    check(single)
    with pytest.raises(AssertionError, match="other bits alone"):
        check(joined)
