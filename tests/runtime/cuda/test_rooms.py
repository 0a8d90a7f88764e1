"""The rooms of the driver: which buffers and graphs batches share, and what is sent to them."""

from pathlib import Path

import pytest

from difftool.diffusion.samplers import ddim, ddpm
from difftool.errors import ResourceError
from difftool.runtime import Model
from difftool.runtime.cuda.backend import padded_size
from tests.runtime.cuda.test_driver import (
    FILLED,
    PAIR,
    START,
    assert_alike,
    on_cpu,
    on_device,
)
from tests.runtime.test_request import adaptive


def test_a_second_run_allocates_and_captures_nothing(tiny_bundle: Path, cpu: Model) -> None:
    """For another seed, other samples and another program of as many rows, too."""
    model, device = on_device(tiny_bundle)
    programs = ddim(model.spec, steps=6, eta=1.0), ddpm(model.spec, steps=6)
    model.sample(programs[0], n=3)
    buffers = device.buffers
    device.log.clear()
    model.sample(programs[1], n=3, seed=8, first_sample=70)
    assert device.buffers == buffers
    launched = [entry for entry in device.log if entry not in FILLED]
    assert launched == [START, *[PAIR] * 3, "download"]
    assert_alike(model, cpu, programs[1], n=3, seed=8, first_sample=70)
    assert device.captures == 1


def test_sizes_that_differ_a_little_share_a_room(tiny_bundle: Path) -> None:
    """Tables of 20 and of 17 rows, 60 samples and 57. No row beyond them is read: those are NaN."""
    (model, device), cpu = on_device(tiny_bundle, max_batch=64), on_cpu(tiny_bundle, 64)
    programs = ddpm(cpu.spec, steps=20), ddim(cpu.spec, steps=17)
    assert_alike(model, cpu, programs[0], n=60, seed=1)
    buffers = device.buffers
    assert_alike(model, cpu, programs[1], n=57, seed=2)
    assert device.buffers == buffers


def test_the_best_size_runs_unpadded(tiny_bundle: Path) -> None:
    """Full batches have it, and ONNX Runtime's is seldom a rounded one."""
    model, _ = on_device(tiny_bundle, max_batch=64)
    model.backend.engine.best = 13
    for n in (13, 14, 11, 13):
        model.sample(n=n)
    assert model.backend.engine.bound == [13, 14, 12]


@pytest.mark.parametrize("steps", [4, 8, 1])
def test_padded_sizes(steps: int) -> None:
    for size in range(1, 3000):
        padded = padded_size(size, steps)
        assert size <= padded <= size * (1 + 1 / steps)
        assert padded == padded_size(padded, steps)
    octave = {padded_size(size, steps) for size in range(513, 1025)}
    assert len(octave) == steps


def test_a_mean_over_the_batch_is_not_taken_over_a_rounded_size(featured_bundle: Path) -> None:
    model, cpu = on_device(featured_bundle, max_batch=16)[0], on_cpu(featured_bundle, 16)
    program = adaptive(model.spec, batch_snr=0.2)
    assert_alike(model, cpu, program, n=9, atol=1e-3, rtol=1e-3)


def test_a_programs_rows_are_sent_once(tiny_bundle: Path, cpu: Model) -> None:
    model, device = on_device(tiny_bundle)
    programs = [ddim(model.spec, steps=steps) for steps in (5, 6)]
    sent = []
    for program in (programs[0], programs[0], programs[1], programs[0]):
        device.sent.clear()
        assert_alike(model, cpu, program, n=2)
        sent.append(device.sent.count(64 * program.table.shape[1] * 4))
    assert sent == [1, 0, 1, 1]


def test_a_conditioners_table_is_sent_once(tiny_bundle: Path, cpu: Model) -> None:
    model, device = on_device(tiny_bundle)
    programs = [ddim(model.spec, steps=steps) for steps in (5, 6)]
    sent = []
    for program in (programs[0], programs[0], programs[1]):
        device.sent.clear()
        assert_alike(model, cpu, program, n=2)
        sent.append(max(device.sent))
    assert sent[1] < sent[0] == sent[2]


def test_when_memory_is_short_the_rooms_that_are_kept_make_way(tiny_bundle: Path) -> None:
    model, device = on_device(tiny_bundle, max_batch=64)
    model.sample(n=16)
    held = device.bytes
    device.limit = held + held // 2
    assert model.sample(n=20).shape[0] == 20
    assert device.bytes > held
    with pytest.raises(ResourceError, match=r"no memory for a batch of 64 \(try max_batch 32"):
        model.sample(n=64)
