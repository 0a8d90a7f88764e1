"""score_sde_pytorch files against a plain walk over the published list of modules."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from difftool.diffusion.calls import SamplerCall
from difftool.errors import DifftoolError
from difftool.importers.format import Imported
from tests.importers.conftest import Save, missing, near, read, refusal, run_network
from tests.oracles.plain_score_sde import Plain

LEVELS = 12
SIGMAS = torch.from_numpy(np.exp(np.linspace(np.log(50), np.log(0.01), LEVELS)))
DDPMPP = {
    "embedding_type": "positional",
    "fir": False,
    "scale_by_sigma": False,
    "centered": True,
    "progressive_input": "none",
    "sigmas": SIGMAS,
}
VP = {"training.sde": "vpsde", "training.continuous": True}

# The published networks at a reduced width: what is said beside the tensors, and the SDE.
NETWORKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "NCSN++ of CIFAR-10": ({"num_res_blocks": 2, "ch_mult": (1, 2, 2)}, {}),
    "NCSN++ of LSUN and faces": (
        {"ch_mult": (1, 1, 2), "progressive": "output_skip", "progressive_input": "input_skip"},
        {"model.fir": True},
    ),
    "residual both ways": ({"progressive": "residual", "ch_mult": (1, 2, 3)}, {}),
    "concatenated input": (
        {"progressive": "output_skip", "progressive_input": "input_skip"}
        | {"progressive_combine": "cat", "fir": False},
        {"model.fir": False},
    ),
    "without rescaling or attention": (
        {"skip_rescale": False, "attn_resolutions": (), "num_channels": 1, "nf": 8},
        {"model.skip_rescale": False},
    ),
    "NCSN++ of discrete levels": (
        {"embedding_type": "positional", "sigmas": SIGMAS},
        {"training.sde": "vesde"},
    ),
    "DDPM++": (DDPMPP | {"num_res_blocks": 2}, VP | {"model.fir": False}),
    "DDPM++ of discrete levels": (
        DDPMPP,
        {"training.sde": "vpsde", "training.continuous": False, "model.fir": False}
        | {"model.beta_max": 5},  # for so few levels
    ),
    "NCSN++ of sub-VP": (
        DDPMPP | {"fir": True, "progressive_input": "residual"},
        {"training.sde": "subvpsde"},
    ),
    "blocks of DDPM": (
        DDPMPP | {"resblock_type": "ddpm", "ch_mult": (1, 2, 2)},
        VP,
    ),
    "blocks of DDPM, residual and filtered": (
        {"resblock_type": "ddpm", "progressive": "residual"},
        {},
    ),
}


def said(network: str) -> dict[str, Any]:
    plain = NETWORKS[network][0]
    levels = {} if "sigmas" in plain else {"model.sigma_max": 50, "model.num_scales": LEVELS}
    return {"data.image_size": 8, **levels, **NETWORKS[network][1]}


@pytest.fixture(params=NETWORKS)
def plain(request: pytest.FixtureRequest) -> Plain:
    return Plain(**NETWORKS[request.param][0])


@pytest.fixture
def imported(request: pytest.FixtureRequest, plain: Plain, save: Save) -> Imported:
    return read(save(plain.file()), **said(request.node.callspec.params["plain"]))


def expected_output(plain: Plain, imported: Imported, x: Tensor, levels: list[int]) -> Tensor:
    """Return the authors' output, times sigma if they divide by it."""
    spec = imported.spec
    _, sigma = (torch.from_numpy(value).float() for value in spec.schedule.at(levels))
    conds = torch.from_numpy(spec.conds(levels)).float()
    if spec.cond == "quarter_log_sigma":
        assert torch.allclose(conds.mul(4).exp(), sigma)
        conds = sigma
    output = plain(x, conds)
    return output * sigma[:, None, None, None] if plain.scale_by_sigma else output


@torch.no_grad()
def test_the_network_is_that_of_the_file(plain: Plain, imported: Imported) -> None:
    assert (imported.weights, imported.step) == ("ema", 70)
    assert imported.spec.data_range == ((-1, 1) if plain.centered else (0, 1))
    assert len(imported.spec.schedule) == LEVELS
    levels = [0, LEVELS - 1, 5]
    conds = torch.from_numpy(imported.spec.conds(levels)).float()
    x = torch.randn(3, plain.num_channels, 8, 8, generator=torch.Generator().manual_seed(1))
    assert near(run_network(imported, x, conds), expected_output(plain, imported, x, levels))


@pytest.mark.parametrize("network", ["NCSN++ of CIFAR-10", "DDPM++"])
def test_averages_are_not_the_weights(network: str, save: Save) -> None:
    """Without averages the weights are taken, which differ; the frequencies are not averaged."""
    plain = Plain(**NETWORKS[network][0])
    file = plain.file()
    averaged = read(save(file), **said(network))
    del file["ema"]
    raw = read(save(file), **said(network))
    assert raw.weights == "raw"
    for name, value in averaged.tensors.items():
        shift = 0.0 if name == "embedding.frequencies" else 0.1
        assert torch.allclose(raw.tensors[name], value + shift, atol=1e-6), name


def test_averages_of_another_number_are_refused(save: Save) -> None:
    file = Plain().file()
    file["ema"]["shadow_params"].pop()
    said_of_it = refusal(save(file), **said("NCSN++ of CIFAR-10"))
    assert re.search(r"\d+ moving averages for \d+ trained tensors", said_of_it)


def test_all_that_must_be_said_is_asked_for_at_once(save: Save) -> None:
    plain = Plain(**NETWORKS["DDPM++"][0])
    asked = ["data.image_size", "training.sde", "training.continuous", "model.fir"]
    assert missing(save(plain.file())) == asked
    assert missing(save(Plain().file())) == ["data.image_size", "model.sigma_max"]


CONFIG = """
training: {sde: vesde, continuous: true}
sampling: {method: pc, predictor: reverse_diffusion, corrector: langevin, snr: 0.075}
data: {image_size: 8, centered: false}
model: {name: ncsnpp, nf: 16, ch_mult: [1, 2], num_res_blocks: 1, attn_resolutions: [4, 16],
  resblock_type: BigGAN, progressive: none, progressive_input: residual, progressive_combine: sum,
  embedding_type: fourier, fir: true, fir_kernel: [1, 3, 3, 1], skip_rescale: true,
  scale_by_sigma: true, sigma_min: 0.01, sigma_max: 380, num_scales: 12}
"""


def test_a_configuration_beside_the_file(save: Save) -> None:
    imported = read(save(Plain().file(), CONFIG))
    assert str(imported.spec.schedule) == "geometric(levels=12, sigma_min=0.01, sigma_max=380)"
    assert imported.spec.parameterization == "scaled_score"
    assert imported.sampler.arguments["snr"] == 0.075
    assert "training.sde" not in imported.chosen.assumed


def test_a_configuration_of_another_network_is_refused(save: Save) -> None:
    config = CONFIG.replace("nf: 16", "nf: 128").replace("ch_mult: [1, 2]", "ch_mult: [1, 2, 2]")
    message = refusal(save(Plain().file(), config))
    assert "model.nf is 128, and the tensors' 16" in message
    assert "model.ch_mult is [1, 2, 2], and the tensors' [1, 2]" in message
    message = refusal(save(Plain(sigmas=SIGMAS).file(), CONFIG))
    assert "own noise levels are not geometric" in message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model.fir": False}, "model.fir is False"),
        ({"training.sde": "vpsde"}, "training.sde is 'vpsde'.*vesde"),
        ({"model.conditional": False}, "model.conditional is False"),
        ({"model.nonlinearity": "elu"}, "model.nonlinearity is 'elu'"),
        ({"sampling.predictor": "none"}, "sampling.predictor is 'none'"),
        ({"data.image_size": 9}, "cannot take samples of"),
    ],
)
def test_what_is_not_imported(flags: dict[str, Any], message: str, save: Save) -> None:
    with pytest.raises(DifftoolError, match=message):
        read(save(Plain().file()), **(said("NCSN++ of CIFAR-10") | flags))


def test_tensors_that_do_not_fit_are_named(save: Save) -> None:
    file = Plain().file()
    del file["ema"]
    state = file["model"]
    for name in ("4.Conv_1.weight", "8.NIN_1.W", "2.bias"):
        del state[f"module.all_modules.{name}"]
    state["module.all_modules.99.weight"] = torch.zeros(2, 2)
    state["module.all_modules.6.Conv2d_0.weight"] = torch.zeros(16, 3, 1, 1)
    state["module.all_modules.3.bias"][2] = torch.inf
    assert (
        "missing: all_modules.2.bias, all_modules.4.Conv_1.weight, all_modules.8.NIN_1.W; "
        "surplus: all_modules.99.weight; of another shape: all_modules.6.Conv2d_0.weight "
        "[16, 3, 1, 1] for [16, 3, 3, 3]; not finite: all_modules.3.bias"
    ) in refusal(save(file), **said("NCSN++ of CIFAR-10"))


@pytest.mark.parametrize(
    ("kept", "added"),
    [
        (6, ()),  # the last module changes the resolution
        (99, ("98.weight.x",)),
        (99, (f"{'9' * 5000}.weight",)),
    ],
)
def test_wild_names_are_refused(kept: int, added: tuple[str, ...], save: Save) -> None:
    file = Plain(resblock_type="ddpm", progressive_input="none").file()
    del file["ema"]
    prefix = "module.all_modules."
    state = {
        name: value
        for name, value in file["model"].items()
        if int(name.removeprefix(prefix).split(".")[0]) < kept
    }
    state |= {f"{prefix}{name}": torch.zeros(1) for name in added}
    message = refusal(save(file | {"model": state}), **said("NCSN++ of CIFAR-10"))
    assert message.startswith("the tensors do not fit the network that they describe; ")


LANGEVIN = {"clip": False, "corrections": 1, "snr": 0.16, "predictor": "reverse_diffusion"}


@pytest.mark.parametrize(
    ("network", "flags", "sampler", "arguments"),
    [
        ("NCSN++ of CIFAR-10", {}, "predictor_corrector", LANGEVIN | {"corrector": "reference"}),
        (
            "NCSN++ of CIFAR-10",
            {"sampling.corrector": "ald", "sampling.predictor": "ancestral_sampling"},
            "predictor_corrector",
            LANGEVIN | {"predictor": "ancestral", "corrector": "fixed"},
        ),
        ("DDPM++", {}, "reverse_diffusion", {"clip": False}),
        ("DDPM++", {"sampling.probability_flow": True}, "probability_flow", {"clip": False}),
        (
            "DDPM++",
            {"sampling.predictor": "ancestral_sampling"},
            "ddpm",
            {"clip": False, "variance": "large"},
        ),
    ],
)
def test_the_default_program(
    network: str, flags: dict[str, Any], sampler: str, arguments: dict[str, Any], save: Save
) -> None:
    plain = Plain(**NETWORKS[network][0])
    imported = read(save(plain.file()), **(said(network) | flags))
    assert imported.sampler == SamplerCall(sampler, arguments)


def test_continuous_times_are_labelled_up_to_999(save: Save) -> None:
    """Song et al. 2021, equation 29, at the times of the authors' sampler."""
    times = np.linspace(1e-3, 1, LEVELS)
    alpha = np.exp(-(times**2) * (20 - 0.1) / 4 - times * 0.1 / 2)
    for network, sigma in (
        ("DDPM++", np.sqrt(1 - alpha**2)),
        ("NCSN++ of sub-VP", 1 - alpha**2),
    ):
        spec = read(save(Plain(**NETWORKS[network][0]).file()), **said(network)).spec
        assert np.allclose(spec.conds(np.arange(LEVELS)), 999 * times, rtol=1e-12)
        assert np.allclose(spec.schedule.alpha, alpha, rtol=1e-12)
        assert np.allclose(spec.schedule.sigma, sigma, rtol=1e-9)
        assert spec.parameterization == "epsilon"
