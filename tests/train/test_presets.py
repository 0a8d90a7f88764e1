"""The presets are whole, and those of papers say what the papers say."""

import math
from pathlib import Path

import pytest
import torch

from difftool.diffusion.samplers import compile_program
from difftool.errors import UsageError
from difftool.networks import build_network, num_parameters
from difftool.networks.trained import load_checkpoint
from difftool.train.config import model_spec, network_call
from difftool.train.distillation.distillation import Distillation
from difftool.train.ncsnv2 import level_count, step_size
from difftool.train.presets import distill_preset, preset, preset_names

SHAPES = {"toy": (2,), "digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_describes_a_model_and_its_sampler(name: str) -> None:
    config = preset(name)
    shape = next(shape for key, shape in SHAPES.items() if key in name)
    spec = model_spec(config, shape, classes=10 if config.data.labels else 0)
    assert compile_program(spec, config.sampler.call).nfe >= 1
    with torch.device("meta"):
        network = build_network(network_call(config, spec))
    assert num_parameters(network) > 0


def test_the_fast_model_is_distilled_from_the_shipped_one() -> None:
    config = distill_preset("ddpm-mnist-fast")
    teacher = load_checkpoint(Path(__file__).parents[2] / config.teacher)
    distillation = Distillation(config, teacher, torch.device("cpu"))
    assert distillation.sampler.arguments["steps"] == 4
    assert distillation.record()["levels"] == [999, 749, 499, 249]
    with pytest.raises(UsageError, match=r"'digits'.*ddpm-mnist-fast"):
        distill_preset("digits")


def test_unknown_presets_are_named() -> None:
    with pytest.raises(UsageError, match=r"'ddpm-cifar'.*ddpm-cifar10"):
        preset("ddpm-cifar")


def test_digits_with_classes_is_digits_and_labels() -> None:
    plain, labelled = (preset(name).model_dump() for name in ("digits", "digits-classes"))
    assert (labelled["data"].pop("labels"), plain["data"].pop("labels")) == ("label", None)
    assert (labelled["loss"].pop("label_dropout"), plain["loss"].pop("label_dropout")) == (0.1, 0)
    assert labelled == plain


def test_ddpm_on_cifar10_is_the_paper() -> None:
    config = preset("ddpm-cifar10")
    spec = model_spec(config, (3, 32, 32))
    with torch.device("meta"):
        network = build_network(network_call(config, spec))
    assert num_parameters(network) == pytest.approx(35.746e6, rel=1e-4)
    settings, run = config.optimizer, config.run
    assert (settings.lr, settings.warmup, settings.clip) == (2e-4, 5000, 1.0)
    assert (run.batch, config.ema.decay, config.ema.warmup) == (128, 0.9999, False)
    assert config.data.flip
    assert network_call(config, spec).arguments["dropout"] == 0.1
    alpha_bar = spec.schedule.alpha**2
    assert len(alpha_bar) == 1000
    assert [1 - alpha_bar[0], 1 - alpha_bar[-1] / alpha_bar[-2]] == pytest.approx([1e-4, 0.02])


@pytest.mark.parametrize(("name", "width"), [("ncsn-mnist", 64), ("ncsn-cifar10", 128)])
def test_ncsn_is_the_paper(name: str, width: int) -> None:
    config = preset(name)
    assert config.network.arguments == {"channels": width}
    assert (config.optimizer.lr, config.run.batch, config.run.steps) == (1e-3, 128, 200_000)
    sigma = model_spec(config, (1, 28, 28)).schedule.sigma
    assert sigma == pytest.approx([10 ** (-2 + 2 * i / 9) for i in range(10)])
    assert config.sampler.arguments["step_size"] == 2e-5
    assert config.data.dequantize


def test_ncsnv2_is_the_paper() -> None:
    config = preset("ncsnv2-cifar10")
    schedule = model_spec(config, (3, 32, 32)).schedule
    assert len(schedule) == 232
    assert math.exp(math.log(50 / 0.01) / 231) == pytest.approx(1.03756, abs=1e-5)
    assert (config.optimizer.lr, config.optimizer.eps, config.ema.decay) == (1e-4, 1e-8, 0.999)
    assert config.sampler.arguments == {"steps": 1160, "step_size": 6.2e-6, "denoise": True}


def test_ncsnv2_on_mnist_has_the_rules_numbers() -> None:
    """The largest distance of two of its digits is 16.0; without MNIST itself that is given."""
    config = preset("ncsnv2-mnist")
    sigma, arguments = model_spec(config, (1, 28, 28), 10).schedule.sigma, config.sampler.arguments
    assert len(sigma) == level_count(28 * 28, 16.0, 0.01)
    assert arguments["steps"] == len(sigma) * math.ceil(1000 / len(sigma))
    rule = step_size(sigma[1] / sigma[0], arguments["steps"] // len(sigma), sigma[0])
    assert arguments["step_size"] == pytest.approx(rule, rel=1e-3)


@pytest.mark.parametrize(
    ("second", "first"),
    [("ddpm-mnist-classes", "ddpm-mnist-small"), ("ncsnv2-mnist", "ncsn-mnist-small")],
)
def test_a_second_stage_has_the_network_of_the_first(second: str, first: str) -> None:
    networks = [preset(name).network for name in (second, first)]
    assert networks[0].arguments == networks[1].arguments
