"""difftool likelihood: the library's figures, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difftool.data import toys
from difftool.networks.trained import load_checkpoint
from difftool.train import likelihood, variational
from tests.cli.conftest import Command


@pytest.fixture
def pictures(tmp_path: Path) -> torch.Tensor:
    """Five images in the folder `pictures`."""
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    (tmp_path / "pictures").mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{index}.png")
    return torch.from_numpy(images)[:, None]


def test_images_by_ode(difftool: Command, tiny_checkpoint: Path, pictures: torch.Tensor) -> None:
    line = ("likelihood", tiny_checkpoint, "--data", "pictures", "-n", 4, "--steps", 3, "--seed", 5)
    found = difftool(*line, "--probes", 2, "--json").json()
    loaded = load_checkpoint(tiny_checkpoint)
    network = likelihood.without_label(loaded.network, loaded.spec)
    bits = likelihood.bits_per_dim(network, pictures[:4], loaded.spec, steps=3, probes=2, seed=5)
    assert found["negative_log_likelihood"] == pytest.approx(float(bits.mean()), rel=1e-6)
    error = np.std(bits.numpy(), ddof=1) / 2
    assert found["standard_error"] == pytest.approx(error, rel=1e-4)
    expected = {"unit": "bits/dim", "n": 4, "seed": 5, "method": "ode", "steps": 3, "probes": 2}
    assert found.items() >= expected.items()
    assert found["weights"] == "ema"
    split = difftool(*line, "--probes", 2, "--max-batch", 3, "--json").json()
    assert split["negative_log_likelihood"] == pytest.approx(float(bits.mean()), rel=1e-5)
    raw = difftool(*line, "--probes", 2, "--raw", "--json").json()
    assert raw["weights"] == "raw"
    assert raw["negative_log_likelihood"] != found["negative_log_likelihood"]


def test_images_by_bound(difftool: Command, tiny_checkpoint: Path, pictures: torch.Tensor) -> None:
    line = ("likelihood", tiny_checkpoint, "--data", "pictures", "-n", 5, "--method", "bound")
    found = difftool(*line, "--max-batch", 2, "--seed", 3, "--json").json()
    loaded = load_checkpoint(tiny_checkpoint)
    network = likelihood.without_label(loaded.network, loaded.spec)
    x0 = pictures.float() / 127.5 - 1
    bits = variational.bits_per_dim(network, x0, loaded.spec, variance="small", seed=3)
    assert found["negative_log_likelihood"] == pytest.approx(float(bits.mean()), rel=1e-5)
    expected = {"unit": "bits/dim", "method": "bound", "steps": 20, "variance": "small"}
    assert found.items() >= expected.items()


def test_points_count_in_nats(difftool: Command, points_checkpoint: Path) -> None:
    line = ("likelihood", points_checkpoint, "--data", "moons", "-n", 6, "--seed", 2)
    done = difftool(*line, "--steps", 4)
    assert done.code == 0, done.err
    loaded = load_checkpoint(points_checkpoint)
    network = likelihood.without_label(loaded.network, loaded.spec)
    points = torch.from_numpy(toys.points("moons", 2, np.arange(6)))
    nats = -likelihood.log_likelihood(network, points, loaded.spec, steps=4, probes=0)
    fields = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert float(fields["negative_log_likelihood"]) == pytest.approx(float(nats.mean()), rel=1e-5)
    assert (fields["unit"], fields["probes"]) == ("nats/sample", "0")


def test_one_sample_has_no_standard_error(difftool: Command, points_checkpoint: Path) -> None:
    line = ("likelihood", points_checkpoint, "--data", "moons", "-n", 1, "--steps", 1, "--json")
    assert difftool(*line).json()["standard_error"] is None


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("{images}", 2, "Missing option '--data'"),
        ("nowhere --data digits", 3, "nowhere is not a checkpoint"),
        ("{images} --data moons", 2, "samples of shape (2,), the model of (1, 8, 8)"),
        ("{images} --data digits -n 1798", 2, "'digits' has 1797 samples, not 1798"),
        ("{images} --data digits -n 0", 2, "0 samples"),
        ("{images} --data digits --max-batch 0", 2, "batches of 0"),
        ("{images} --data digits -n 1 --steps 0", 2, "0 steps"),
        ("{images} --data digits -n 1 --probes -1", 2, "-1 probes"),
        ("{images} --data digits --seed -1", 2, "seed -1"),
        ("{images} --data digits --method guess", 2, "'guess' is not one of 'ode', 'bound'"),
        ("{images} --data digits --method bound --steps 9", 2, "only for --method ode"),
        ("{points} --data moons --method bound", 2, "variance-preserving model of images"),
    ],
)
def test_refusals(
    line: str, code: int, message: str, difftool: Command, request: pytest.FixtureRequest
) -> None:
    images, points = map(request.getfixturevalue, ("tiny_checkpoint", "points_checkpoint"))
    filled = line.format(images=images, points=points)
    difftool("likelihood", *filled.split()).refused(code, message)


def test_a_likelihood_that_is_no_number(
    difftool: Command, points_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(network: object, x0: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return torch.full((len(x0),), torch.nan)

    monkeypatch.setattr(likelihood, "log_likelihood", diverged)
    done = difftool("likelihood", points_checkpoint, "--data", "moons", "-n", 3)
    assert done.code == 1
    assert done.err.startswith("error: 3 of 3 likelihoods are not finite\n")
