"""What was measured of a bundle's programs, and which one a quality means."""

import json
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from difftool import load
from difftool.bundle import MANIFEST, Measured, MeasuredProgram, read_bundle
from difftool.bundle.amend import with_files
from difftool.errors import UsageError


def measured(*figures: tuple[int, float]) -> Measured:
    """Return programs of so many evaluations, each with its distance."""
    programs = tuple(
        MeasuredProgram(
            sampler="ddim", arguments={"steps": cost}, evaluations=cost, distance=distance
        )
        for cost, distance in figures
    )
    return Measured(
        figure="sliced_wasserstein", extractor_sha256=None, n=5, seed=0, programs=programs
    )


def test_a_quality_is_the_cheapest_program_that_is_near_enough_to_the_best() -> None:
    found = measured((50, 1.0), (10, 2.0), (5, 2.1), (20, 1.2), (15, 2.5), (100, 1.1))
    assert [each.evaluations for each in found.front] == [5, 10, 20, 50]
    picked = {quality: found.pick(quality).evaluations for quality in ("draft", "good", "best")}
    assert picked == {"draft": 10, "good": 20, "best": 50}
    with pytest.raises(KeyError):
        found.pick("superb")


def test_of_equal_costs_the_nearer_one_counts() -> None:
    assert measured((5, 2.0), (5, 1.0)).pick("draft").distance == 1.0


def test_a_bundle_keeps_it_and_other_bundles_do_not_name_it(
    points_bundle: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(points_bundle, tmp_path / "points")
    assert "measured" not in json.loads((path / MANIFEST).read_text())
    with pytest.raises(UsageError, match="no program of points was measured"):
        load(path).program_of("good")
    before = read_bundle(path)
    kept = with_files(before, {}, measured=measured((3, 1.0), (2, 1.5)))
    assert kept.manifest.files == before.manifest.files
    model = load(path)
    assert [len(model.program_of(each)) for each in ("draft", "good", "best")] == [2, 3, 3]
    assert len(with_files(kept, {}).manifest.measured.programs) == 2  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="unknown quality 'superb'"):
        model.program_of("superb")


@pytest.mark.parametrize("wrong", [{"n": 0}, {"programs": ()}, {"figure": "beauty"}, {"more": 1}])
def test_a_table_without_a_meaning_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Measured.model_validate({**measured((1, 1.0)).model_dump(), **wrong})
