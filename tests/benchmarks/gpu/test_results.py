"""The verdicts on what was measured on a GPU."""

from common.candidates import COMPILE, PIPELINE
from gpu.candidates import GRAPHED, OURS
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


def verdicts(results: Results) -> dict[str, str]:
    """Return the verdicts on speed by a word of the title."""
    words = ("pipeline", GRAPHED, COMPILE, "host time", "bf16 product")
    found = [figure for figure in figures(results) if figure.limit]
    return {word: f.verdict for word in words for f in reversed(found) if word in f.name}


def test_verdicts_are_of_the_best_candidate_against_the_best_peer() -> None:
    ours = {"tensorrt, graphs": 2.0, GRAPHS: 3.0}
    rivals = {PIPELINE: 10.0, GRAPHED: 3.0, COMPILE: 2.0}
    assert set(verdicts(speeds(**ours, **rivals)).values()) == {"pass"}
    slower = {PIPELINE: 9.9, GRAPHED: 2.9, COMPILE: 1.9}
    found = verdicts(speeds(**ours, **slower))
    assert {found["pipeline"], found[GRAPHED], found[COMPILE]} == {"FAIL"}
    # 256 samples of 12 GFLOP in 7.7 ms are half of 8e14.
    assert verdicts(speeds(**{GRAPHS: 7.8}))["bf16 product"] == "FAIL"
    assert verdicts(speeds(**{GRAPHS: 7.6}))["bf16 product"] == "pass"
    assert set(verdicts(speeds(**{PIPELINE: 1.0})).values()) == {""}
    assert {"tensorrt, graphs", GRAPHS} <= OURS


def test_like_is_compared_with_like() -> None:
    """TF32 is the peers' default and not ours: each row says which it is."""
    results = speeds()
    for precision, ours, peer in (("fp32", 4.0, 6.0), ("tf32", 2.0, 5.0)):
        for name, ms in ((GRAPHS, ours), (GRAPHED, peer)):
            results.cells["cifar10", 1, name, precision] = Cell(ms=[ms])
    found = {figure.name: figure.median for figure in figures(results)}
    assert found[f"cifar10, batch 1: {GRAPHED} fp32 / {GRAPHS} fp32"] == 1.5
    assert found[f"cifar10, batch 1: {GRAPHED} tf32 / {GRAPHS} tf32"] == 2.5


def test_a_cell_keeps_its_time_if_a_later_stage_had_none_left() -> None:
    results, key = Results(), {"model": "cifar10", "batch": 1, "candidate": GRAPHS}
    cell = {"event": "cell", **key, "precision": "fp16"}
    results.take({**cell, "ms": [1.0]})
    results.take({**cell, "absent": "no time left"})
    results.take({**cell, "psnr": 70.0})
    (kept,) = results.cells.values()
    assert (kept.ms, kept.absent, kept.psnr) == ([1.0], "", 70.0)


def test_a_candidate_of_ours_that_computes_something_else_fails() -> None:
    results = speeds(**{GRAPHS: 2.0})
    found = {figure.name: figure for figure in figures(results)}
    assert found[f"{GRAPHS}, fp16: step error"].verdict == "pass"
    cell = results.cells["cifar10", 256, GRAPHS, "fp16"]
    for error in (6e-3, None):  # None stands for a number that is not finite
        cell.step_error = error
        found = {figure.name: figure for figure in figures(results)}
        assert found[f"{GRAPHS}, fp16: step error"].verdict == "FAIL"
