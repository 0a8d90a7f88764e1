"""The grid of samplers: its programs, what counts as measured, and the page that is written."""

import json
from pathlib import Path

import pytest
from common import sampler_cells
from common.sampler_cells import (
    BASELINES,
    GRID,
    KEPT,
    NFE,
    Found,
    cell_key,
    cells,
    find,
    keep,
    read_records,
)
from common.samplers_page import finding, front, page, plot
from PIL import Image
from samplers import chosen

from difftool import Bundle
from difftool.evaluate import open_extractor
from difftool.runtime import open_bundle

SETUP = sampler_cells.Setup(sampler_cells.N, sampler_cells.SEED, open_extractor().sha256)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("ddpm-mnist")


def _record(label: str, nfe: int, distance: float) -> dict[tuple[str, int], dict]:
    figures = {"sure": 0.5, "precision": 0.25, "recall": 0.125, "coverage": 1.0}
    program = f"{label}(steps={nfe})"
    record = {"frechet_distance": distance, "nfe": nfe, "program": program, **figures}
    return {(label, nfe): record}


@pytest.mark.parametrize("model", list(GRID))
def test_every_cell_has_as_many_evaluations_as_its_column(model: str) -> None:
    spec = open_bundle(model).spec
    for cell in cells(model):
        program = cell.program(spec)
        if cell.line.label == "annealed_langevin":  # the same number at each level, and a last one
            assert abs(len(program) - cell.nfe) < 0.15 * cell.nfe
        else:
            assert len(program) == cell.nfe, program.name


@pytest.mark.parametrize("model", list(GRID))
def test_a_baseline_is_the_shipped_default(model: str) -> None:
    shipped = open_bundle(model)
    label, _ = BASELINES[model]
    slow = next(c for c in cells(model) if (c.line.label, c.nfe) == (label, NFE[-1]))
    assert slow.program(shipped.spec).name == shipped.default_program().name


def test_lines_are_different_programs(bundle: Bundle) -> None:
    names = [cell.program(bundle.spec).name for cell in cells("ddpm-mnist")]
    assert len(set(names)) == len(names)


def test_options_choose_cells_and_cheap_ones_come_first() -> None:
    found = chosen(["ncsn-mnist", "ddpm-mnist"], [20, 10], ["ddim", "unipc"])
    assert [(cell.model, cell.line.label, cell.nfe) for cell in found] == [
        (model, label, nfe)
        for nfe in (10, 20)
        for model, label in [
            ("ncsn-mnist", "ddim"),
            ("ncsn-mnist", "unipc"),
            ("ddpm-mnist", "ddim"),
            ("ddpm-mnist", "unipc"),
        ]
    ]
    assert len(chosen(["ddpm-mnist"], list(NFE), None)) == len(cells("ddpm-mnist"))


def test_a_cell_is_found_again_under_the_same_digests_only(bundle: Bundle, tmp_path: Path) -> None:
    key = cell_key(SETUP, bundle, cells("ddpm-mnist")[0].program(bundle.spec))
    assert find(read_records(tmp_path / "none.json"), key) is None
    path = tmp_path / "results.json"
    keep(path, {"model": "other", **key, "n": 7})
    keep(path, {"model": "ddpm-mnist", **key})
    assert find(read_records(path), key)["model"] == "ddpm-mnist"
    for name in key:
        assert find(read_records(path), {**key, name: "changed"}) is None
    assert list(tmp_path.iterdir()) == [path]


def test_a_finding_compares_few_evaluations_with_the_slow_sampler() -> None:
    slow = _record(BASELINES["ddpm-mnist"][0], 1000, 3.0)
    few, more = _record("fast", 20, 3.2), _record("medium", 50, 1.0)
    text = finding("ddpm-mnist", {**few, **more, **slow})
    assert "1000 evaluations reaches 3.00" in text
    assert "`fast` reaches that: 3.20 with 20, 1.07 times as much" in text
    far = finding("ddpm-mnist", _record("fast", 20, 3.4) | slow)
    assert "`fast` comes closest to that: 3.40" in far
    assert "not measured yet" in finding("ddpm-mnist", few | more)


def test_the_best_of_a_column_is_bold_and_gaps_are_told_apart() -> None:
    real = {"n": 500, "seed": 0, "extractor_sha256": "ab" * 32, "frechet_distance": 1.4}
    measured = {**_record("a", 10, 3), **_record("b", 10, 2), ("b", 20): None}
    text = page(Found({"ddpm-mnist": measured}, {"ddpm-mnist": 1.234}, real))
    assert "takes one core 1.23 ms for an image of a batch of 64" in text
    assert "| a | 3.00 | – |" in text
    assert "| b | **2.00** |  | – |" in text
    assert "| 10 | b | 50.0 % | 0.25 | 0.12 | 1.00 |" in text
    assert "they reach\n1.40." in text


def test_the_front_has_what_nothing_beats_in_cost_and_distance() -> None:
    cells = [("a", 10, 3.0), ("b", 10, 4.0), ("a", 20, 3.5), ("b", 50, 2.0), ("a", 1000, 2.0)]
    measured = {key: record for cell in cells for key, record in _record(*cell).items()}
    assert front(measured) == [(10, 3.0), (50, 2.0)]
    assert front({}) == []


def test_a_plot_is_drawn_also_of_a_model_without_cells(tmp_path: Path) -> None:
    models = {"a": _record("x", 10, 3.0) | _record("x", 20, 2.0), "b": {}}
    path = tmp_path / "images/plot.png"
    plot(Found(models, {"a": 1.5}, {"frechet_distance": 1.0}), path)
    with Image.open(path) as picture:
        assert picture.size == (1210, 572)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10  # colours of lines and smoothing


def test_results_name_no_machine() -> None:
    text = KEPT.read_text(encoding="utf-8")
    assert "/" not in text
    assert find(json.loads(text), {"model": sampler_cells.REAL, **cell_key(SETUP)}) is not None
