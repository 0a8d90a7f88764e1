"""The time of a step graph, operator by operator, as ONNX Runtime itself counts it."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import numpy as np
from onnxruntime import InferenceSession

from common.inside import cpu_options, takes_one_row
from common.sessions import session
from difftool import Bundle
from difftool.bundle import step_name
from difftool.runtime import Preparation

SMALL = 0.01  # of the whole: what takes less is counted together


def profile(
    bundle: Bundle, precision: str, size: int, *, steps: int, threads: int | None = None
) -> dict[str, float]:
    """Measure milliseconds of a step by kind of operator, the most expensive first, others last."""
    with tempfile.TemporaryDirectory() as folder:
        settings = cpu_options(threads)
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        graph = session(bundle.file(step_name(precision)), settings)
        inputs = step_inputs(graph, bundle, size)
        for _ in range(steps + 1):  # the first is not counted
            graph.run(None, inputs)
        events = json.loads(Path(graph.end_profiling()).read_text())
    return by_operator(events, steps)


def by_operator(events: list[Mapping], steps: int) -> dict[str, float]:
    """Sum the median of each node's last `steps` runs by kind, from ONNX Runtime's events."""
    runs: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            runs[event["args"]["op_name"], event["name"]].append(event["dur"])
    total: dict[str, float] = defaultdict(float)
    for (kind, _), microseconds in runs.items():
        total[kind] += median(microseconds[-steps:]) / 1e3
    whole = sum(total.values())
    large = {kind: ms for kind, ms in total.items() if ms >= SMALL * whole}
    ordered = dict(sorted(large.items(), key=lambda item: -item[1]))
    return {**ordered, "others": whole - sum(large.values())}


def step_inputs(graph: InferenceSession, bundle: Bundle, size: int) -> dict[str, np.ndarray]:
    """Make what a step graph takes, in the middle of the default program."""
    program = bundle.default_program()
    begin = Preparation(bundle, None)(program, size, None)
    generator = np.random.default_rng(0)
    inputs = {
        "x": generator.standard_normal(begin.shape, np.float32),
        "history": np.zeros((begin.slots, *begin.shape), np.float32),
        "row": begin.rows.first[: 1 if takes_one_row(graph) else size] + len(program) // 2,
        "noise": generator.standard_normal(begin.shape, np.float32),
        "table": begin.rows.table.astype(np.float32),
        "cond_table": begin.cond_table,
        **dict.fromkeys(("known", "mask"), np.zeros(begin.shape, np.float32)),
    }
    return {node.name: inputs[node.name] for node in graph.get_inputs()}
