"""The peers that run in PyTorch on a GPU."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from common.models import Setting
from gpu import in_torch
from gpu.parity import Reference


def replayed(work: Callable[[], Any]) -> tuple[Any, Any]:
    """As a CUDA graph: what the work returns lies in the same memory after every replay."""
    out = work()

    def replay() -> None:
        found = work()
        if out is not None:
            for kept, value in zip(out, found, strict=True):
                kept.copy_(value)

    return SimpleNamespace(replay=replay), out


@pytest.mark.usefixtures("torch_as_it_was")
@pytest.mark.parametrize(
    ("candidate", "seam", "precision"),
    [
        ("captured", {"capture": replayed}, "fp16"),
        ("aot_inductor", {"compiler": lambda module, *_: module, "capture": replayed}, "bf16"),
        ("compiled", {"compiler": lambda *_, **options: lambda module: module}, "fp32"),
    ],
)
def test_the_peers_with_graphs_take_the_steps_of_eager_torch(
    candidate: str, seam: dict[str, Any], precision: str, prepared: Setting
) -> None:
    """With the CUDA graph replaced by its work, and what compilers make by the module itself."""
    setting = replace(prepared, size=2)
    runner = getattr(in_torch, candidate)(setting, precision, **seam)
    eager = in_torch.eager(setting, precision)
    assert Reference(setting).step_error(runner) <= 5e-2
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
    for batch in (runner.batch, eager.batch):
        batch.start(x)
        for _ in range(3):
            batch.step(x)
    assert np.array_equal(runner.batch.x, eager.batch.x)
    for _ in range(2):  # more rows than the program has, were it not for the new beginning
        runner.begin()
        runner.steps(19)
