"""Summing a profile by operator."""

from pathlib import Path

import onnx
import pytest
from common.operators import by_operator, profile

from difftool.bundle import STEP, read_bundle


def _event(kind: str, node: str, microseconds: int) -> dict:
    return {
        "cat": "Node",
        "name": f"{node}_kernel_time",
        "dur": microseconds,
        "args": {"op_name": kind},
    }


def test_the_usual_time_of_each_node_is_summed_over_its_kind() -> None:
    events = [
        {"cat": "Session", "name": "model_run", "dur": 10**6},
        *(_event("Conv", "a", us) for us in (9000, 1000, 8000, 2000)),
        *(_event("Conv", "b", us) for us in (9000, 2000, 2000, 2000)),
        *(_event("Add", "c", us) for us in (9000, 1000, 1000, 1000)),
        *(_event("Mul", "d", us) for us in (9000, 20, 20, 20)),
    ]
    found = by_operator(events, steps=3)
    assert list(found) == ["Conv", "Add", "others"]
    assert found == {"Conv": 4.0, "Add": 1.0, "others": pytest.approx(0.02)}


def test_a_step_graph_s_operators_are_found(tiny_bundle: Path) -> None:
    found = profile(read_bundle(tiny_bundle), "fp32", 2, steps=2, threads=1)
    known = {node.op_type for node in onnx.load(tiny_bundle / STEP).graph.node}
    assert "Conv" in known
    assert any("Conv" in kind for kind in found)  # or FusedConv
    assert all(ms >= 0 for ms in found.values())
