"""Whole runs on a GPU through the public door, against the CPU: the same samples, and no leaks.

On the fake device the models are toys whose runs are short; on a GPU they are the shipped ones,
1000 steps each.
"""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import difftool
from difftool.runtime.comparison import BOUNDS
from tests.gpu.conftest import Open
from tests.gpu.opening import EXACT, OFFERED, SHIPPED, held_bytes, reference

ROOT = Path(__file__).resolve().parents[2]
MEMORY = {"fake": 1 << 16, "real": 64 << 20}  # bytes by which what is held may vary
COUNTS = {"fake": 80, "real": 200}
Named = Callable[[str], Path | str]


def psnr(found: np.ndarray, expected: np.ndarray, spec: Any) -> float:
    """Return the PSNR in dB; without a range of data, that of what was expected counts."""
    low, high = spec.data_range or (expected.min(), expected.max())
    error = float(np.mean((found.astype(np.float64) - expected) ** 2))
    return math.inf if error == 0 else 10 * math.log10((high - low) ** 2 / error)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize(("backend", "precision"), OFFERED)
def test_a_whole_run_ends_where_the_cpu_ends(
    opened: Open, named: Named, backend: str, precision: str, name: str
) -> None:
    model = opened(name, backend, precision)
    found = model.sample(n=4, seed=5)
    expected = reference(named(name)).sample(n=4, seed=5)
    assert psnr(found, expected, model.spec) >= BOUNDS[precision].psnr
    assert np.array_equal(found, model.sample(n=4, seed=5))  # and again, to the bit


@pytest.mark.parametrize(("backend", "precision"), OFFERED)
def test_sizes_that_alternate_do_not_disturb_each_other(
    opened: Open, named: Named, backend: str, precision: str
) -> None:
    """Batches of 16 and 4 by turns: a graph is replayed after another shape has run between."""
    model = opened("ddpm-mnist", backend, precision, max_batch=16)
    program = difftool.samplers.ddpm(model.spec, steps=20)
    expected = reference(named("ddpm-mnist")).sample(program, n=20, seed=2)
    runs = [model.sample(program, n=20, seed=2) for _ in range(3)]
    assert psnr(runs[0], expected, model.spec) >= BOUNDS[precision].psnr
    alone = model.sample(program, n=16, seed=2)
    for run in runs:
        assert np.array_equal(run, runs[0])
        assert np.array_equal(run[:16], alone)


@pytest.mark.parametrize(("backend", "precision"), EXACT)
def test_requests_that_share_steps_have_their_bits(
    opened: Open, backend: str, precision: str
) -> None:
    """With `deterministic`, since a GPU may round otherwise in a step of another size."""
    model = opened("ddpm-mnist", backend, precision, max_batch=8)
    samplers = difftool.samplers
    programs = [
        samplers.ddpm(model.spec, steps=12),
        samplers.ddim(model.spec, steps=7),
        samplers.unipc(model.spec, steps=9),
    ]
    asked = [
        {"program": program, "n": 2 + at, "seed": at, "first_sample": at, "deterministic": True}
        for at, program in enumerate(programs * 2)
    ]
    alone = [model.sample(**each) for each in asked]
    tickets = [model.submit(difftool.runtime.Request(**each)) for each in asked]
    for ticket, expected in zip(tickets, alone, strict=True):
        assert np.array_equal(ticket.result(), expected)
    assert model.scheduler().counts.ok == len(asked)
    assert model.scheduler().close()


@pytest.mark.parametrize(("backend", "precision"), EXACT)
def test_four_threads_draw_what_each_draws_alone(
    opened: Open, backend: str, precision: str
) -> None:
    """Of two sizes and two step counts, so that they cannot share all that is captured."""
    model = opened("ddpm-mnist", backend, precision, max_batch=8)
    programs = [difftool.samplers.ddim(model.spec, steps=steps) for steps in (7, 10)]

    def drawn(seed: int) -> np.ndarray:
        return model.sample(programs[seed % 2], n=5 + 4 * (seed % 3), seed=seed)

    alone = [drawn(seed) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(drawn, range(16)))
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(("backend", "precision"), EXACT)
def test_memory_stays_flat_over_many_step_counts(
    opened: Open, kind: str, device: Any, sessions: list[Any], backend: str, precision: str
) -> None:
    """A server's requests differ in steps: what each one captures must not pile up.

    The largest tables come early, so that what is held cannot grow for their sake.
    """
    model, counts = opened("ddpm-mnist", backend, precision, max_batch=4), COUNTS[kind]
    down, up = range(counts, counts // 2, -1), range(1, counts // 2 + 1)
    held = []
    for count in (count for pair in zip(down, up, strict=True) for count in pair):
        program = difftool.samplers.langevin(model.spec, steps=count)
        assert np.isfinite(model.sample(program, n=2, seed=count)).all()
        held.append(held_bytes(device))
    assert max(held[counts // 4 :]) <= max(held[: counts // 4]) + MEMORY[kind]
    for session in sessions:  # each graph id that ONNX Runtime has seen is a graph that it keeps
        assert len(set(session.graphs)) <= counts // 4


EXIT = """
import sys
from contextlib import ExitStack
from pathlib import Path
from tests.gpu.opening import a_device, a_model, fake_libraries

kind, bundle, backend = sys.argv[1:]
stack = ExitStack()
if kind == "fake":
    stack.enter_context(fake_libraries(a_device(kind)))
model = a_model(kind, bundle, backend, "fp32", Path(), max_batch=2)
held = model.stream(n=3, seed=1, every=2)  # a run that nobody ends
print(next(held).x.shape, model.sample(n=2, seed=0).shape)
"""


@pytest.mark.parametrize(("backend", "precision"), EXACT)
def test_a_process_ends_with_models_and_runs_still_open(
    opened: Open, kind: str, named: Named, backend: str, precision: str
) -> None:
    """At exit Python, the driver and the libraries go in an order that is nobody's choice."""
    opened("ddpm-mnist", backend, precision)  # or it is skipped
    done = subprocess.run(
        [sys.executable, "-c", EXIT, kind, str(named("ddpm-mnist")), backend],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("(2, ")
