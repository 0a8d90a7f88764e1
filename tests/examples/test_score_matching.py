"""NCSN's toy experiment at its exact settings, and the page that tells of it.

Song and Ermon (2019, sections 3.2.2 and 4.3): Langevin dynamics on the true score gets the modes'
weights wrong, annealed Langevin dynamics gets them right.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difftool.diffusion.columns import Column
from difftool.train.config import TrainConfig, apply_overrides
from examples import score_matching as story

DOCS = Path(__file__).resolve().parents[2] / "docs"
# Enough for the weights, in a few seconds; the page's network is trained by the preset as it is.
SHORT = ("run.steps=2000", "optimizer.lr=1e-2", "ema.decay=0.99", "run.log_every=2000")
SHORTEST = ("run.steps=2", "run.batch=8")


def log_density(x: np.ndarray, sigma: float) -> float:
    """The logarithm of the density under noise at one point x [2], written out."""
    variance = 1 + sigma**2
    lower, upper = ((x + 5) ** 2).sum(), ((x - 5) ** 2).sum()
    both = 0.2 * np.exp(-lower / (2 * variance)) + 0.8 * np.exp(-upper / (2 * variance))
    return float(np.log(both / (2 * np.pi * variance)))


@pytest.mark.parametrize("sigma", [0.0, 0.1, 1.0, 20.0])
def test_the_true_score_is_the_slope_of_the_log_density(sigma: float) -> None:
    points = np.random.default_rng(0).uniform(-8, 8, (40, 2))
    step = 1e-5 * np.eye(2)
    slopes = [
        [(log_density(x + d, sigma) - log_density(x - d, sigma)) / 2e-5 for d in step]
        for x in points
    ]
    assert story.true_score(points, sigma) == pytest.approx(np.array(slopes), rel=1e-5, abs=1e-6)


def test_the_settings_are_the_papers() -> None:
    langevin = story.plain(story.TRUE_NOISELESS[1])
    annealed = story.annealed(story.TRUE_NOISY[1])
    assert story.POINTS == 1280
    for program in (langevin, annealed):
        assert (program.start.kind, program.start.low, program.start.high) == ("uniform", -8, 8)
        assert len(program) == 1000
    # x += epsilon / 2 * score + sqrt(epsilon) * z, with score = (D - x) / sigma^2
    assert langevin.table[:, Column.D] == pytest.approx(np.sqrt(0.1))
    assert langevin.table[:, Column.B] * 1e-3**2 == pytest.approx(0.1 / 2)
    sigmas = np.repeat(20.0 ** (1 - np.arange(10) / 9), 100)
    assert annealed.table[:, Column.D] == pytest.approx(np.sqrt(0.1) * sigmas)
    assert annealed.table[:, Column.B] == pytest.approx(0.1 / 2)


def test_langevin_gets_the_weights_wrong_on_the_true_score() -> None:
    backend, spec = story.TRUE_NOISELESS
    samples = story.states(backend, story.plain(spec), story.POINTS)[-1]
    assert samples.dtype == np.float64
    assert 0.45 <= story.mass(samples) <= 0.56


@pytest.fixture(scope="module")
def annealed_mass() -> float:
    backend, spec = story.TRUE_NOISY
    return story.mass(story.states(backend, story.annealed(spec), story.POINTS)[-1])


def test_annealed_langevin_gets_them_right_on_the_true_score(annealed_mass: float) -> None:
    assert 0.74 <= annealed_mass <= 0.84


def test_annealed_langevin_gets_them_right_on_a_learned_score(annealed_mass: float) -> None:
    backend, spec = story.learned_model(apply_overrides(story.NOISY, SHORT))
    assert spec.schedule.sigma == pytest.approx(story.TRUE_NOISY[1].schedule.sigma)
    found = story.mass(story.states(backend, story.annealed(spec), story.POINTS)[-1])
    assert abs(found - annealed_mass) <= 0.06
    assert 0.74 <= found <= 0.84


def test_the_script_draws_every_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shortest(recipe: TrainConfig) -> TrainConfig:
        return apply_overrides(recipe, SHORTEST)

    monkeypatch.setattr(story, "NOISY", shortest(story.NOISY))
    monkeypatch.setattr(story, "NOISELESS", shortest(story.NOISELESS))
    monkeypatch.setattr(story, "POINTS", 16)
    monkeypatch.setattr(story, "STRIP_ROWS", 4)
    story.main(tmp_path)
    drawn = {path.name for path in (tmp_path / "images/score-matching").iterdir()}
    page = (DOCS / "score-matching.md").read_text(encoding="utf-8")
    assert drawn == set(re.findall(r"\(images/score-matching/(.+?)\)", page))
    figures = json.loads((tmp_path / "data/score-matching.json").read_text())
    assert figures.keys() == _figures().keys()


def test_the_pages_figures_are_the_measured_ones() -> None:
    """Its numbers of three decimals are the measured ones, and it shows all of these."""
    page = (DOCS / "score-matching.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\b\d\.\d{3}\b", page)) == {f"{v:.3f}" for v in _figures().values()}


def test_the_pages_figures_tell_the_story() -> None:
    figures = _figures()
    assert 0.45 <= figures["mass_langevin"] <= 0.56
    assert 0.74 <= figures["mass_annealed"] <= 0.84
    assert abs(figures["mass_annealed_learned"] - figures["mass_annealed"]) <= 0.06
    assert figures["error_noiseless_empty"] > 4 * figures["error_noiseless_near"]
    assert figures["error_noiseless_empty"] > 4 * figures["error_noisy_empty"]


def test_the_pictures_are_small() -> None:
    pictures = sorted((DOCS / "images" / "score-matching").glob("*.png"))
    assert pictures
    for path in pictures:
        assert path.stat().st_size < 150_000
        with Image.open(path) as image:
            assert 700 <= image.width <= 1300


def _figures() -> dict[str, float]:
    return json.loads((DOCS / "data" / "score-matching.json").read_text(encoding="utf-8"))
