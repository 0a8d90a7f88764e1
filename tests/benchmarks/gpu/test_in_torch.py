"""The peers that run in PyTorch on a GPU, and the order in which all candidates are opened."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from common.candidates import COMPILE, PIPELINE
from common.models import Setting
from gpu import in_torch
from gpu.candidates import all_candidates, stages
from gpu.parity import Reference

GRAPHS = "onnxruntime-cuda, graphs"


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
        ("compiled", {"compiler": lambda *_, **options: lambda module: module}, "fp32"),
    ],
)
def test_the_peers_with_graphs_take_the_steps_of_eager_torch(
    candidate: str, seam: dict[str, Any], precision: str, prepared: Setting
) -> None:
    """With the CUDA graph replaced by its work, and torch.compile by the module itself."""
    setting = replace(prepared, size=2)
    runner = getattr(in_torch, candidate)(setting, precision, **seam)
    eager = in_torch.eager(setting, precision)
    assert Reference(setting).step_error(runner) <= 5e-3
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
    for batch in (runner.batch, eager.batch):
        batch.start(x)
        for _ in range(3):
            batch.step(x)
    assert np.array_equal(runner.batch.x, eager.batch.x)
    for _ in range(2):  # more rows than the program has, were it not for the new beginning
        runner.begin()
        runner.steps(19)


def test_every_candidate_is_opened_once_and_what_decides_comes_first() -> None:
    order = [candidate for stage in stages() for candidate in stage]
    assert sorted(order, key=str) == sorted(all_candidates(), key=str)
    names = [[(kind.name, precision) for kind, precision in stage] for stage in stages()]
    assert {(GRAPHS, "fp32"), (PIPELINE, "fp16"), ("tensorrt, graphs", "fp16")} <= set(names[0])
    assert names[1] == [(COMPILE, "fp16")]
