"""The loop in PyTorch is annealed Langevin dynamics as this runtime compiles it."""

from pathlib import Path

import pytest
import toy
from toy import STEP_SIZE, compare, disagreement, prepare

from difftool.diffusion.samplers import annealed_langevin


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    return prepare(tmp_path_factory.mktemp("toy"), None, 1)


def test_both_end_at_the_same_points(both: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    model, source = both
    program = annealed_langevin(
        model.spec, steps=100, step_size=STEP_SIZE, convention="paper", denoise=False
    )
    assert disagreement(source, model, program, points=16) < 1e-5
    monkeypatch.setattr(toy, "STEP_SIZE", 1.1 * STEP_SIZE)
    assert disagreement(source, model, program, points=16) > toy.AGREEMENT_LIMIT


def test_the_ratio_is_that_of_the_rounds(both: tuple, tmp_path: Path) -> None:
    model, source = both
    found = {f.name: f for f in compare(source, model, points=8, steps=10, rounds=2)}
    rounds = zip(found["torch loop"].values, found["difftool"].values, strict=True)
    assert found[toy.RATIO].values == pytest.approx([theirs / ours for theirs, ours in rounds])
    assert found["difference on the same noise"].verdict == "pass"
