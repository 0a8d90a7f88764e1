"""Slots on a device: the bits of `Model.sample`, one launch a step, and nothing copied for it."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difftool import edits
from difftool.diffusion.noise import SAMPLING
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import ddim, ddpm, dpmpp_3m, predictor_corrector, unipc
from difftool.errors import ArtefactError, ResourceError, UsageError
from difftool.runtime import Model, Request
from difftool.runtime.cuda.host_device import HostDevice
from difftool.runtime.scheduling.scheduler import Scheduler
from difftool.runtime.scheduling.settings import SchedulerSettings
from difftool.runtime.scheduling.ticket import Ticket
from tests.runtime.cuda import host
from tests.runtime.cuda.test_driver import on_device
from tests.runtime.cuda.test_flat import on_negates, program
from tests.runtime.test_request import KNOWN, MASK

STEP = "graph(difftool_gather step0 difftool_scatter)"


def scheduler(model: Model, slots: int | None = None, most: int | None = None) -> Scheduler:
    settings = SchedulerSettings(slots=slots, queue=1000)
    backend: Any = model.backend
    return Scheduler(backend.slots, model.spec, backend.features, most or model.max_batch, settings)


def submit(running: Scheduler, of: Program, **asked: Any) -> Ticket:
    return running.submit(Request(of, **{"n": 1, **asked}), of)


def finish(running: Scheduler) -> None:
    while running.turn():
        pass


def check(model: Model, ticket: Ticket, of: Program, **asked: Any) -> None:
    wanted = model.sample(of, **{"n": 1, **asked})
    assert ticket.result(0).tobytes() == wanted.tobytes()


def test_what_joins_and_leaves_has_its_bits(tiny_bundle: Path) -> None:
    model, device = on_device(tiny_bundle, max_batch=3)
    spec, running = model.spec, scheduler(model)
    picture = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    asked: list[tuple[Program, dict[str, Any]]] = [
        (ddpm(spec, steps=6), {"n": 4, "seed": 2**64 - 1}),
        (ddim(spec, steps=5), {"seed": 1, "first_sample": 7}),
        (ddpm(spec, steps=4), {"n": 2, "between": (3, 8)}),
        (ddim(spec.up_to(0.5), steps=4), {"n": 2, "init": picture}),
        (unipc(spec, steps=5), {"n": 2, "deterministic": True}),
        (dpmpp_3m(spec, steps=6), {"seed": 2}),  # the history grows while others are on their way
    ]
    tickets = []
    for of, more in asked:
        tickets.append(submit(running, of, **more))
        running.turn()
    finish(running)
    for ticket, (of, more) in zip(tickets, asked, strict=True):
        check(model, ticket, of, **more)
    assert len(device.threads) == 1


def test_known_values_labels_and_guidance(featured_bundle: Path, classes_bundle: Path) -> None:
    model, _ = on_device(featured_bundle, max_batch=4)
    running, of = scheduler(model), unipc(model.spec, steps=6)
    edit = edits.inpaint(KNOWN, MASK)
    inpainted, plain = submit(running, of, n=2, edit=edit), submit(running, of, n=2)
    finish(running)
    check(model, inpainted, of, n=2, edit=edit)
    check(model, plain, of, n=2)
    model, _ = on_device(classes_bundle, max_batch=4)
    running, of = scheduler(model), ddpm(model.spec, steps=4)
    labelled = {"n": 5, "labels": [2, 0, 3, 1, 2], "guidance_scale": 3.0}
    tickets = submit(running, of, **labelled), submit(running, of, n=2)
    finish(running)
    check(model, tickets[0], of, **labelled)
    check(model, tickets[1], of, n=2)


def test_a_step_is_one_launch_that_nothing_is_sent_for(tiny_bundle: Path) -> None:
    model, device = on_device(tiny_bundle, max_batch=4)
    running, of = scheduler(model), ddpm(model.spec, steps=9)
    submit(running, of, n=3)
    running.turn()
    device.log.clear()
    running.turn()
    assert (device.log, device.captures) == ([STEP], 1)
    late = submit(running, of, seed=1)
    running.turn()
    assert device.log[-1] == STEP
    device.log.clear()
    running.turn()
    assert (device.log, device.captures) == ([STEP], 1), "four of four are the same step"
    late.cancel()
    running.turn()
    assert (device.log, device.sent[-1]) == ([STEP, "upload", STEP], 4 * 4), "only the places"


def test_previews_and_results_are_all_that_is_read(tiny_bundle: Path) -> None:
    model, device = on_device(tiny_bundle, max_batch=4)
    running, of = scheduler(model), ddim(model.spec, steps=6)
    seen, unseen = submit(running, of, seed=1, every=2), submit(running, of, n=2)
    previews = [seen.stream(what) for what in ("x", "denoised")]
    finish(running)
    one = int(np.prod(model.spec.shape)) * 4
    assert device.read == [one] * (2 * 3 + 3)
    states = {
        state.step: (state.x.copy(), state.denoised.copy())
        for state in model.stream(of, n=1, seed=1, every=2)
    }
    for which, reader in enumerate(previews):
        found = {preview.step: preview.array for preview in reader}
        assert sorted(found) == [2, 4, 6]
        for step, array in found.items():
            assert array.tobytes() == states[step][which][0].tobytes()
    check(model, unseen, of, n=2)


@pytest.mark.parametrize("fails", ["captured", ""])
def test_without_captures_the_parts_are_launched(tiny_bundle: Path, fails: str) -> None:
    model, device = on_device(tiny_bundle, max_batch=2, fails=fails, capturable=bool(fails))
    running, of = scheduler(model), ddpm(model.spec, steps=3)
    ticket = submit(running, of, n=2)
    finish(running)
    assert device.log[-5:] == [*STEP[6:-1].split(), "download", "download"]
    assert device.captures == 0
    check(model, ticket, of, n=2)


def test_steps_below_the_profile_are_padded(tiny_bundle: Path) -> None:
    model, _ = on_device(tiny_bundle, sizes=(4, 8), max_batch=8)
    running, of = scheduler(model), ddpm(model.spec, steps=4)
    assert running._slots.sizes == (4, 8)
    tickets = [submit(running, of, seed=seed, n=seed + 1) for seed in range(3)]
    finish(running)
    for seed, ticket in enumerate(tickets):
        check(model, ticket, of, seed=seed, n=seed + 1)
    with pytest.raises(UsageError, match="batch of 9, and the engine takes 4 to 8"):
        scheduler(model, most=9)


def test_a_full_step_has_the_size_of_a_full_batch(tiny_bundle: Path) -> None:
    """On a GPU another size may round in another way, and `deterministic` promises bits."""
    model, _ = on_device(tiny_bundle, max_batch=11)
    model.sample(n=11)
    assert scheduler(model)._slots.sizes[-1] == model.backend.engine.bound[-1] == 12


def test_what_adapts_to_the_batch_is_refused(featured_bundle: Path) -> None:
    model, _ = on_device(featured_bundle)
    coupled = predictor_corrector(model.spec, steps=2, corrector="reference")
    with pytest.raises(UsageError, match="shares its steps' sizes in a batch"):
        model.submit(Request(coupled, n=1))


def test_a_step_that_fails_takes_nobody_elses_sample(tiny_bundle: Path) -> None:
    model, _ = on_device(tiny_bundle, max_batch=1)
    engine: Any = model.backend.engine
    running, of = scheduler(model, slots=2), ddpm(model.spec, steps=5)
    tickets = [submit(running, of, seed=seed) for seed in range(2)]
    running.turn()
    model.backend._launching.graphs = "off"  # so that the engine is asked again
    running._slots._steps.clear()
    engine.fails = "always"
    running.turn()
    engine.fails = ""
    finish(running)
    lost = [ticket.exception(0) for ticket in tickets]
    assert [type(error) for error in lost].count(ArtefactError) == 1
    kept = lost.index(None)
    check(model, tickets[kept], of, seed=kept)


def test_memory_is_flat_whoever_joins_and_leaves(points_bundle: Path) -> None:
    model, device, _ = on_negates(points_bundle)
    running, random = scheduler(model, most=8), np.random.default_rng(0)
    programs = [program(rows) for rows in range(1, 10)]
    held = []
    for at in range(200):
        of = programs[random.integers(len(programs))]
        ticket = submit(running, of, n=int(random.integers(1, 6)), seed=at)
        for _ in range(random.integers(6)):
            running.turn()
        if random.random() < 0.2:
            ticket.cancel()
        held.append((device.bytes, device.graphs))
        device.log.clear()
        device.sent.clear()
    finish(running)
    counts = running.counts
    assert counts.ok + counts.cancelled == counts.accepted == 200 > counts.ok > 100
    assert len(set(held[100:])) == 1
    assert device.graphs == 4  # of 1, 2, 4 and 8


def test_memory_of_slots_that_are_gone_is_freed_by_the_next(tiny_bundle: Path) -> None:
    model, device = on_device(tiny_bundle, max_batch=4)
    for _ in range(3):
        running = scheduler(model)
        submit(running, ddim(model.spec, steps=2))
        finish(running)
        held = device.bytes
        del running
        gc.collect()
    gc.disable()  # nothing waits for a collection, which may come on any thread
    model.sample(n=1)
    gc.enable()
    assert device.bytes < held
    assert len(device.threads) == 1


def test_if_memory_is_short_rooms_make_way_and_others_stay(tiny_bundle: Path) -> None:
    model, device = on_device(tiny_bundle, max_batch=4)
    model.sample(n=4)
    running, of = scheduler(model), ddpm(model.spec, steps=5)
    good = submit(running, of)
    running.turn()
    device.limit = device.bytes - 1  # less than what the room of the batch and the slots take
    two = submit(running, of, seed=1)
    running.turn()
    assert device.bytes <= device.limit, "the room has made way for a step of two"
    device.limit = device.bytes
    longer = submit(running, dpmpp_3m(model.spec, steps=5))
    finish(running)
    with pytest.raises(ResourceError, match=r"no memory for a batch of"):
        longer.result(0)
    device.limit = float("inf")
    check(model, good, of)
    check(model, two, of, seed=1)


def arrays(n: int, k: int, e: int, slots: int) -> dict[str, np.ndarray]:
    """What the kernels read and write, in the order of `difftool_gather`."""
    random = np.random.default_rng(0)

    def real(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    return {
        "x": real(n, e),
        "history": real(k, n, e),
        "noise": real(n, e),
        "known": real(n, e),
        "mask": real(n, e),
        "row": np.zeros(n, np.int64),
        "slot_x": real(slots, e),
        "slot_history": real(slots, k, e),
        "slot_noise": real(slots, e),
        "slot_known": real(slots, 2, e),
        "slot_row": random.integers(0, 9, slots),
        "own": (np.arange(slots) % 3 == 0).astype(np.int32),
        "samples": random.integers(0, 1 << 32, slots, dtype=np.uint32),
        "seeds": random.integers(0, 1 << 64, slots, dtype=np.uint64),
        "draws": random.integers(0, 1 << 32, 9, dtype=np.uint32),
        "places": np.array([4, 0, ~4, 6, ~4], np.int32)[:n],
    }


def on_host_device(kernel: str, found: Sequence[Any]) -> None:
    device = HostDevice()
    buffers = []
    for value in found:
        if isinstance(value, np.ndarray):
            buffers.append(device.allocate(value.shape, value.dtype))
            device.upload(buffers[-1], value)
        else:
            buffers.append(value)
    device.launch(kernel, buffers, 1)
    for value, buffer in zip(found, buffers, strict=True):
        if isinstance(value, np.ndarray):
            device.download(buffer, value)


@pytest.mark.parametrize("e", [1, 4, 7])
@pytest.mark.parametrize("knows", [0, 1])
def test_the_kernels_do_what_numpy_does(e: int, knows: int) -> None:
    n, k = 5, 3
    sizes = np.int32(n), np.int32(k), np.int32(e)
    sides = [arrays(n, k, e, 7) for _ in range(2)]
    more = np.uint32(SAMPLING), np.int32(knows), *sizes
    before = arrays(n, k, e, 7)
    host.launch("difftool_gather", *sides[0].values(), *more)
    on_host_device("difftool_gather", [*sides[1].values(), *more])
    for name, found in sides[0].items():
        np.testing.assert_array_max_ulp(found, sides[1][name], maxulp=8 if name == "noise" else 0)
    own = np.array([False, True, False, True, False])  # slots 0 and 6
    assert (sides[0]["noise"][own] == before["slot_noise"][[0, 6]]).all()
    assert (sides[0]["known"] == before["known"]).all() != knows
    read = ("x", "history", "row")
    written = ("slot_x", "slot_history", "slot_row")
    for side in sides:
        side["x"] += 1
        side["row"] += 1
    passed = [[side[name] for name in (*written, *read, "places")] for side in sides]
    host.launch("difftool_scatter", *passed[0], *sizes)
    on_host_device("difftool_scatter", [*passed[1], *sizes])
    for name in written:
        assert np.array_equal(sides[0][name], sides[1][name])
        changed = [bool((sides[0][name][slot] != before[name][slot]).any()) for slot in range(7)]
        if name != "slot_history":
            assert changed == [slot in (0, 4, 6) for slot in range(7)], "idle places change none"
