"""The mathematics of docs/ddpm.md against plain quadrature and the toolkit, and the page itself."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from ddpm_story import bound, chain, measured, page, vae
from PIL import Image

import difftool
from difftool.diffusion import schedules, visited
from difftool.networks.trained import load_checkpoint
from difftool.runtime import Reference
from difftool.train import variational
from difftool.train.likelihood import without_label
from examples import ddpm as story

DOCS = Path(__file__).resolve().parents[2] / "docs"
GRID = np.linspace(-8, 8, 8001)
STEPS = [(999, 500), (400, 399), (400, 100), (60, 59), (300, 0)]


def normal(x: np.ndarray, mean: Any, variance: float) -> np.ndarray:
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def moments(density: np.ndarray) -> tuple[float, float]:
    """Return mean and variance of a density on the grid, which need not be scaled."""
    share = density / density.sum()
    mean = (share * GRID).sum()
    return mean, (share * (GRID - mean) ** 2).sum()


def test_the_steps_one_by_one_are_the_closed_form() -> None:
    betas = np.linspace(1e-4, 0.02, 1000)  # the paper's, section 4
    alpha, sigma = chain.composed(betas)
    assert alpha == pytest.approx(chain.SPEC.schedule.alpha, rel=1e-12)
    assert sigma == pytest.approx(chain.SPEC.schedule.sigma, rel=1e-12)


def test_the_data_keep_mean_0_and_variance_1() -> None:
    for t in (0, 250, 999):
        mean, variance = chain.forward(chain.DATA, chain.level_at(t)).moments()
        assert (float(mean), float(variance)) == pytest.approx((0, 1), abs=1e-12)


@pytest.mark.parametrize(("source", "target"), STEPS)
def test_the_posterior_is_bayes(source: int, target: int) -> None:
    """q(x_target | x, x0) is q(x | x_target) q(x_target | x0), scaled."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = chain.level_at(source), chain.level_at(target)
    ratio = alpha_s / alpha_t
    for x, x0 in ((0.3, 0.8), (-1.1, -1.4)):
        likelihood = normal(x, ratio * GRID, sigma_s**2 - ratio**2 * sigma_t**2)
        mean, variance = moments(likelihood * normal(GRID, alpha_t * x0, sigma_t**2))
        a, b, found = chain.posterior((alpha_s, sigma_s), (alpha_t, sigma_t))
        assert (a * x + b * x0, found) == pytest.approx((mean, variance), rel=1e-6)


@pytest.mark.parametrize(("source", "target"), STEPS)
def test_the_exact_step_back_is_bayes(source: int, target: int) -> None:
    """p(x_target | x) is q(x | x_target) q(x_target), scaled."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = chain.level_at(source), chain.level_at(target)
    ratio, data = alpha_s / alpha_t, chain.DATA
    variances = alpha_t**2 * data.stds**2 + sigma_t**2
    prior = sum(
        weight * normal(GRID, alpha_t * mean, variance)
        for weight, mean, variance in zip(data.weights, data.means, variances, strict=True)
    )
    density = prior * normal(0.25, ratio * GRID, sigma_s**2 - ratio**2 * sigma_t**2)
    density /= density.sum() * (GRID[1] - GRID[0])
    exact = chain.reverse(data, 0.25, (alpha_s, sigma_s), (alpha_t, sigma_t))
    np.testing.assert_allclose(np.exp(exact.log_density(GRID)), density, rtol=1e-6, atol=1e-8)


def test_the_bits_lost_are_those_of_a_plain_sum_over_two_grids() -> None:
    source, target = chain.level_at(999), chain.level_at(500)  # of a chain of three levels
    steps = [(source, target), (target, chain.level_at(0))]
    expected = dict.fromkeys(("best", "large"), 0.0)
    for first, second in steps:
        noisy = chain.forward(chain.DATA, first)
        xs = np.linspace(-5, 5, 201)
        chances = np.exp(noisy.log_density(xs)) * (xs[1] - xs[0])
        ratio = first[0] / second[0]
        large = first[1] ** 2 - ratio**2 * second[1] ** 2
        for x, chance in zip(xs, chances, strict=True):
            logs = chain.reverse(chain.DATA, x, first, second).log_density(GRID)
            density = np.exp(logs)
            mean, variance = moments(density)
            for name, chosen in (("best", variance), ("large", large)):
                other = np.log(normal(GRID, mean, chosen) + 1e-300)
                gap = (density * (logs - other))[density > 1e-30].sum() * (GRID[1] - GRID[0])
                expected[name] += chance * gap / np.log(2)
    found = chain.lost(chain.DATA, 3)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-3)


def test_the_perfect_network_predicts_the_slope_of_the_log_density() -> None:
    x = np.linspace(-2, 2, 31)
    for level in (0, 120, 700):
        alpha, sigma = chain.level_at(level)
        noisy = chain.forward(chain.DATA, (alpha, sigma))
        slope = (noisy.log_density(x + 1e-6) - noisy.log_density(x - 1e-6)) / 2e-6
        found = chain.true_epsilon(x[:, None], np.array([float(level)]))[:, 0]
        assert found == pytest.approx(-sigma * slope, rel=1e-5, abs=1e-5)


def test_a_perfect_network_draws_the_data() -> None:
    program = difftool.samplers.ddpm(chain.SPEC, steps=200, variance="large")
    drawn = chain.sampled(program, 4000)
    assert chain.distance(drawn, chain.DATA) < 0.06
    assert chain.distance(drawn + 0.3, chain.DATA) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("variance", bound.VARIANCES)
def test_the_terms_sum_to_the_toolkits_bound(
    variance: str, tiny_bundle: Path, tiny_checkpoint: Path
) -> None:
    model, trained = difftool.load(tiny_bundle), load_checkpoint(tiny_checkpoint)
    spec = trained.spec
    images = np.random.default_rng(0).integers(0, 256, (3, *spec.shape), dtype=np.uint8)
    errors = bound.measure_errors(model, images, seed=5)
    whole = bound.chain(spec, np.arange(len(spec.schedule)))
    found = bound.terms(errors, spec, whole, variance)
    assert len(found) == len(spec.schedule) + 1
    assert (found > 0).all()
    x0 = torch.from_numpy(difftool.data.prepared(images, spec.data_range))
    network = without_label(trained.network, spec)
    expected = variational.bits_per_dim(network, x0, spec, variance=variance, seed=5)
    assert found.sum() == pytest.approx(float(expected.mean()), rel=1e-4)


def guess(sigma: float) -> float:
    """Guess 0.1 at the least noise, and else a little more, which errs more."""
    return 0.1 if sigma < 0.0101 else 0.12


def blind(spec: difftool.ModelSpec) -> Any:
    """A model that always guesses the same x0, by its noise (x - alpha * x0) / sigma."""

    def network(x: np.ndarray, cond: np.ndarray) -> np.ndarray:
        alpha, sigma = (float(value) for value in spec.schedule.at(float(cond[0])))
        return (x - alpha * guess(sigma)) / sigma

    class Model:
        backend = Reference(network, spec.shape)

    Model.spec = spec
    return Model


@pytest.mark.parametrize("steps", [7, 200])
@pytest.mark.parametrize("variance", bound.VARIANCES)
def test_a_chain_has_the_bound_of_a_schedule_of_its_levels(variance: str, steps: int) -> None:
    spec = difftool.ModelSpec(
        shape=(1, 4, 4),
        schedule=schedules.linear(steps=200),
        parameterization="epsilon",
        cond="timestep",
        data_range=(-1.0, 1.0),
    )
    levels = np.array(visited(spec.schedule, steps)[::-1]).astype(int)
    squares = spec.schedule.alpha_bar[levels]
    short = schedules.from_betas(1 - squares / np.append(1.0, squares[:-1]))
    # Near the guess of level 0, as float32 in the toolkit has no masses far from it.
    images = np.random.default_rng(1).integers(136, 145, (2, *spec.shape), dtype=np.uint8)
    errors = bound.measure_errors(blind(spec), images)
    found = bound.terms(errors, spec, bound.chain(spec, levels), variance)

    def network(x: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        alpha, sigma = short.at(cond[0].item())
        return (x - float(alpha) * guess(float(sigma))) / float(sigma)

    shorter = difftool.ModelSpec(
        shape=spec.shape,
        schedule=short,
        parameterization="epsilon",
        cond="timestep",
        data_range=spec.data_range,
    )
    x0 = torch.from_numpy(difftool.data.prepared(images, spec.data_range))
    expected = variational.bits_per_dim(network, x0, shorter, variance=variance)
    assert found.sum() == pytest.approx(float(expected.mean()), rel=2e-5)


def test_the_weights_are_those_of_the_paper() -> None:
    betas = np.linspace(1e-4, 0.02, 1000)
    kept = np.cumprod(1 - betas)
    small = betas[1:] * (1 - kept[:-1]) / (1 - kept[1:])
    for name, variance in (("small", small), ("large", betas[1:])):
        expected = betas[1:] ** 2 / (2 * variance * (1 - betas[1:]) * (1 - kept[1:]))
        found = bound.weights(chain.SPEC, name)
        assert found == pytest.approx(expected / expected.mean(), rel=1e-9)


def test_a_network_that_is_told_the_right_level_errs_as_measured() -> None:
    spec = difftool.ModelSpec(
        shape=(1, 4, 4),
        schedule=schedules.linear(steps=20),
        parameterization="epsilon",
        cond="timestep",
        data_range=(-1.0, 1.0),
    )
    images = np.random.default_rng(1).integers(0, 256, (2, *spec.shape), dtype=np.uint8)
    levels = [2, 9, 19]
    told = bound.told(blind(spec), images, levels)
    assert np.diag(told) == pytest.approx(bound.measure_errors(blind(spec), images).noise[levels])
    # Told another level, it still returns (x - alpha * 0.12) / sigma, of that level.
    x0 = difftool.data.prepared(images, spec.data_range)
    noise = difftool.runtime.Draws(0, np.arange(2), spec.shape).normal(9)
    x = spec.schedule.alpha[9] * x0 + spec.schedule.sigma[9] * noise
    wrong = (x - spec.schedule.alpha[2] * 0.12) / spec.schedule.sigma[2]
    assert told[1, 0] == pytest.approx(float(np.square(wrong - noise).mean()), rel=1e-4)


def test_the_masses_of_a_vaes_grey_levels_sum_to_one() -> None:
    grey = torch.arange(256) / 127.5 - 1
    for mean, log_scale in ((-1.2, -3.0), (0.1, -5.0), (0.99, 0.5)):
        masses = vae.log_mass(grey, torch.tensor(mean), torch.tensor(log_scale)).exp()
        assert masses.sum().item() == pytest.approx(1, abs=1e-4)
        inner = [torch.sigmoid((grey[100] + s / 255 - mean) / np.exp(log_scale)) for s in (1, -1)]
        assert masses[100].item() == pytest.approx(float(inner[0] - inner[1]), rel=1e-2, abs=1e-7)


def test_a_vae_learns() -> None:
    images = np.zeros((64, 1, 4, 4), np.uint8)
    images[::2] = 255
    untrained, _ = vae.train(images, 0)
    trained, seconds = vae.train(images, 60)
    assert seconds > 0
    assert vae.bits(trained, images).mean() < 0.5 * vae.bits(untrained, images).mean()
    drawn = vae.sample(trained, 200).mean(axis=1) > 127
    assert 0.2 < drawn.mean() < 0.8  # both kinds are drawn


def test_the_script_draws_every_picture(tmp_path: Path) -> None:
    assert story.main(["--quick", "--docs", str(tmp_path)]) == 0
    drawn = {path.name for path in (tmp_path / "images/ddpm").iterdir()}
    text = (DOCS / "ddpm.md").read_text(encoding="utf-8")
    assert drawn == set(re.findall(r"\(images/ddpm/(.+?)\)", text))
    figures = json.loads((tmp_path / "data/ddpm.json").read_text(encoding="utf-8"))
    assert figures.keys() == _figures().keys()
    written = (tmp_path / "ddpm.md").read_text(encoding="utf-8")
    assert written == page.renewed(text, figures)
    assert written != text


def test_mnist_is_read_from_a_folder_or_from_one_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "HELD_OUT", 1)
    for split, greys in (("train", (10, 20, 30)), ("test", (40, 50))):
        images = [Image.new("L", (28, 28), grey) for grey in greys]
        table = datasets.Dataset.from_dict(
            {"image": images}, datasets.Features({"image": datasets.Image()})
        )
        table.to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    for source in (tmp_path, tmp_path / "train-00000-of-00001.parquet"):
        found = measured.read_images(str(source))
        assert [part[:, 0, 0, 0].tolist() for part in found] == [[10, 20], [30], [40, 50]]
        assert all(part.shape[1:] == (1, 28, 28) for part in found)


def test_the_script_refuses_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert story.main(["--data", str(tmp_path / "none"), "--docs", str(tmp_path)]) == 1
    assert "give MNIST's parquet files as --data" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # a quick run must not overwrite the page
        story.main(["--quick"])


def test_the_pages_tables_are_the_measured_ones() -> None:
    text = (DOCS / "ddpm.md").read_text(encoding="utf-8")
    assert page.renewed(text, _figures()) == text, "write it again: python examples/ddpm.py"


def test_the_pages_figures_tell_the_story() -> None:
    found = _figures()
    lost = list(found["gaussian"].values())
    assert all(a["best"] > b["best"] for a, b in pairwise(lost))
    assert all(each["best"] < each["large"] < each["small"] for each in lost)
    for terms in found["bound"].values():
        assert terms["first"] + terms["middle"] + terms["last"] == pytest.approx(terms["total"])
    shares = found["weights"]["2 to 10"]
    assert shares["bound_weight"] > 5 * shares["levels"]
    assert shares["bound_loss"] > 2 * shares["simple_loss"]
    told = np.array(found["told"]["errors"])
    assert (told.argmin(axis=1) == np.arange(len(told))).all()
    assert (told[3:, 0] > 2 * told[3:, -1]).all()
    few, many = min(found["drawn"]["small"], key=int), max(found["drawn"]["small"], key=int)
    assert found["bits"]["small"][few] > 3 * found["bits"]["large"][few]
    assert found["bits"]["small"]["1000"] < found["bits"]["large"]["1000"]
    distances = {name: found["drawn"][name][few]["frechet_distance"] for name in bound.VARIANCES}
    assert distances["small"] < 0.5 * distances["large"]
    best = found["drawn"]["small"][many]
    for drawn in ("means", "draws"):
        assert best["frechet_distance"] < found["vae"][drawn]["frechet_distance"]
        assert best["coverage"] > found["vae"][drawn]["coverage"]
    assert found["vae"]["bits"] < min(bits["1000"] for bits in found["bits"].values())
    assert found["vae"]["means"]["sure"] < best["sure"] < found["real"]["sure"]
    assert found["vae"]["milliseconds"] < found["milliseconds"][few]


def test_the_pictures_are_small() -> None:
    pictures = sorted((DOCS / "images" / "ddpm").glob("*.png"))
    assert pictures
    for path in pictures:
        assert path.stat().st_size < 120_000
        with Image.open(path) as image:
            assert 700 <= image.width <= 1300


def _figures() -> dict[str, Any]:
    return json.loads((DOCS / "data" / "ddpm.json").read_text(encoding="utf-8"))
