"""Figures, their verdicts, and what is written of them."""

import json
import math
import platform
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
from common.machine import machine
from common.markdown import figures_page
from common.report import Figure, finish


@pytest.mark.parametrize(
    ("values", "at_most", "at_least", "verdict"),
    [
        ([1.05], 1.05, None, "pass"),
        ([1.051], 1.05, None, "FAIL"),
        ([0.9], None, 0.9, "pass"),
        ([0.89], None, 0.9, "FAIL"),
        ([math.nan], 1.05, None, "FAIL"),
        ([9.0, 1.0, 1.0], 1.05, None, "pass"),  # the median counts
        ([1.0], None, None, ""),
    ],
)
def test_the_median_decides(
    values: list[float], at_most: float | None, at_least: float | None, verdict: str
) -> None:
    figure = Figure("x", values, at_most=at_most, at_least=at_least)
    assert figure.verdict == verdict


def test_quartiles_are_those_of_several_values() -> None:
    assert Figure("x", [1, 2, 3, 4, 5]).quartiles == (2, 4)
    assert Figure("x", [1]).quartiles is None


def test_what_is_absent_says_why_and_fails_nothing(tmp_path: Path) -> None:
    figure = Figure("x", [], at_most=1, absent="not installed")
    assert (figure.median, figure.quartiles, figure.verdict) == (None, None, "")
    assert figure.cells() == ("x", "not installed", "", "at most 1", "")
    assert finish("speed", [figure], Namespace(out=tmp_path)) == 0
    judged = Figure("x", [2], at_most=1)
    assert (judged.verdict, replace(judged, unjudged="not judged").verdict) == ("FAIL", "")
    assert replace(judged, unjudged="not judged").cells()[-1] == "not judged"
    assert json.loads((tmp_path / "speed.json").read_text())["figures"][0]["median"] is None


def test_a_page_holds_a_row_for_each_figure() -> None:
    figures = [Figure("loop", [1, 2, 3], unit="ms").record()]
    record = {"benchmark": "speed", "setup": {"rounds": 3}, "machine": {"cores": 2}}
    page = figures_page({**record, "figures": figures})
    assert page.startswith("# speed\n\nSetup: rounds 3.\n\nMachine: cores 2.\n")
    assert "| loop | 2 ms | 1.5 .. 2.5 |  |  |\n" in page


def test_one_failure_fails_the_benchmark_and_all_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = Figure("good", [1.0, 2.0], at_most=2)
    bad = Figure("bad", [3.0], at_most=2)
    assert finish("speed", [good], Namespace(out=None)) == 0
    assert finish("speed", [good, bad], Namespace(out=tmp_path, rounds=2)) == 1
    assert "FAIL" in capsys.readouterr().out
    record = json.loads((tmp_path / "speed.json").read_text())
    assert [figure["verdict"] for figure in record["figures"]] == ["pass", "FAIL"]
    assert record["figures"][0]["values"] == [1.0, 2.0]
    assert (tmp_path / "speed.md").is_file()


def test_the_machine_is_described_but_not_named() -> None:
    described = machine()
    assert described["cores"] >= 1
    assert described["difftool"]
    assert platform.node() not in described.values()
    assert str(Path.home()) not in json.dumps(described)
