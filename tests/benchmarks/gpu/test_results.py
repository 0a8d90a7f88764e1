"""The verdicts on what was measured on a GPU."""

from common.candidates import COMPILE, PIPELINE
from gpu.candidates import OURS
from gpu.results import Cell, Results, figures

GRAPHS = "onnxruntime-cuda, graphs"


def speeds(**ms: float) -> Results:
    """Results of the U-Net for CIFAR-10: candidate -> ms in fp16 at batches 1 and 256."""
    results = Results(flops={"cifar10": 12_000_000_000}, matmul=8e14, ulps=2.0)
    for name, value in ms.items():
        for size in (1, 256):
            cell = Cell(ms=[value, value], host_us=[15.0, 15.0], step_error=1e-3, step_limit=5e-3)
            results.cells["cifar10", size, name, "fp16"] = cell
    return results


def verdicts(results: Results) -> list[str]:
    """Of the four limits on speed: pipeline, compile, host time, part of the bf16 rate."""
    return [figure.verdict for figure in figures(results)[-4:]]


def test_verdicts_are_of_the_best_candidate_against_the_best_peer() -> None:
    ours = {"tensorrt, graphs": 2.0, GRAPHS: 3.0}
    assert verdicts(speeds(**ours, **{PIPELINE: 10.0, COMPILE: 3.0})) == ["pass"] * 4
    assert verdicts(speeds(**ours, **{PIPELINE: 9.9, COMPILE: 2.9})) == [
        "FAIL", "FAIL", "pass", "pass",
    ]  # fmt: skip
    # 256 samples of 12 GFLOP in 7.7 ms are half of 8e14.
    assert verdicts(speeds(**{GRAPHS: 7.8}))[-1] == "FAIL"
    assert verdicts(speeds(**{GRAPHS: 7.6}))[-1] == "pass"
    assert verdicts(speeds(**{PIPELINE: 1.0})) == [""] * 4
    assert {"tensorrt, graphs", GRAPHS} <= OURS


def test_a_candidate_of_ours_that_computes_something_else_fails() -> None:
    results = speeds(**{GRAPHS: 2.0})
    found = {figure.name: figure for figure in figures(results)}
    assert found[f"{GRAPHS}, fp16: step error"].verdict == "pass"
    cell = results.cells["cifar10", 256, GRAPHS, "fp16"]
    for error in (6e-3, None):  # None stands for a number that is not finite
        cell.step_error = error
        found = {figure.name: figure for figure in figures(results)}
        assert found[f"{GRAPHS}, fp16: step error"].verdict == "FAIL"
