"""docs/benchmarks.md and README.md say what the results say."""

import pytest
from common.markdown import with_block
from common.peers_page import page, readme_block
from common.report import Figure


def _record(figures: list[Figure]) -> dict:
    setup = {"threads": 2, "program": "ddpm(steps=1000)", "points": 10, "steps": 100}
    return {
        "machine": {"cpu": "a CPU", "instructions": "AVX2 VNNI", "cores": 2, "torch": "2.0"},
        "setup": {**setup, "max_batch": 5},
        "figures": [figure.record() for figure in figures],
    }


RESULTS = {
    "peers-cifar10": _record(
        [
            Figure("batch 1: difftool fp32", [50.0], unit="ms/step"),
            Figure("batch 1: torch eager", [75.0], unit="ms/step"),
            Figure("batch 4: difftool fp32", [200.0], unit="ms/step"),
            Figure("batch 4: torch eager", [], absent="INVALID: 0.2 from PyTorch"),
            Figure("batch 1: torch.compile", [], absent="not compiled within 9 s"),
            Figure("batch 1: torch eager / difftool fp32", [1.5], at_least=2),
            Figure("batch 1: fp32 on onnxruntime-cpu, Conv: 80%", [40.0]),
        ]
    ),
    "toy": _record(
        [
            Figure("torch loop / difftool", [4.0], at_least=5),
            Figure("on onnxruntime-cpu, Gemm", [0.5]),
            Figure("on onnxruntime-cpu, Log", [0.3]),
        ]
    ),
}


def test_the_page_has_times_ratios_goals_and_where_the_time_goes() -> None:
    text = page(RESULTS)
    assert "| torch eager | 75 | INVALID |" in text
    assert "| torch eager | 1.50 | INVALID |" in text
    assert "| difftool fp32 | 50 | 200 |" in text
    assert "| torch.compile | – |  |" in text
    assert "- batch 1: torch.compile: not compiled within 9 s" in text
    assert "| cifar10 | batch 1: torch eager / difftool fp32 | at least 2 | 1.5 | FAIL |" in text
    assert "| toy | torch loop / difftool | at least 5 | 4 | FAIL |" in text
    assert "| Log | 0.3 | 37% |" in text
    assert "The matrix products alone are 62% of a step" in text
    assert "the ratio would be 6.4." in text
    assert "| 1 | fp32 | Conv | 40 | 80% |" in text


def test_the_readme_gets_the_ratios_of_what_was_measured() -> None:
    text = readme_block(RESULTS)
    assert "| torch eager | 1.50 | INVALID |" in text
    assert "torch.compile" not in text  # it has no time here; the page says why
    assert "a CPU with AVX2 VNNI, 2 cores, threads 2, torch 2.0" in text
    assert readme_block({}) == "Not measured yet."


def test_only_the_marked_part_of_a_text_is_replaced() -> None:
    begin, end = "<!-- ratios: benchmarks/pages.py -->", "<!-- /ratios -->"
    text = f"before\n{begin}\nold \\1\n{end}\nafter"
    assert with_block(text, "ratios", r"new \1") == f"before\n{begin}\nnew \\1\n{end}\nafter"
    with pytest.raises(ValueError, match="does not stand once"):
        with_block("nothing is marked", "ratios", "new")
