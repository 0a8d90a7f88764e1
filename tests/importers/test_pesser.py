"""pesser/pytorch_diffusion and ermongroup/ddim: what is inferred, and what must be said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difftool.diffusion.calls import SamplerCall
from difftool.importers import import_checkpoint
from difftool.networks.trained import load_checkpoint
from tests.importers.conftest import Save, missing, read, refusal

DDIM = """
data: {image_size: 16, rescaled: true}
model: {var_type: fixedsmall, ema: true}
diffusion: {beta_schedule: quad, beta_start: 0.0001, beta_end: 0.02, num_diffusion_timesteps: 50}
"""


@pytest.fixture
def state(shared: Path) -> dict[str, torch.Tensor]:
    """The golden weights."""
    [path] = (shared / "golden/ddpm_pesser16").glob("*.ckpt")
    return torch.load(path, weights_only=True)


def test_what_the_tensors_tell(state: dict[str, torch.Tensor], save: Save) -> None:
    assert missing(save(state)) == ["resolution"]
    imported = read(save(state), resolution=16)
    assert imported.network.arguments == {
        "in_channels": 3,
        "out_channels": 3,
        "channels": 32,
        "multipliers": [1, 2],
        "blocks": 1,
        "attention": [1],
    }
    assert imported.spec.data_range == (-1, 1)
    assert imported.sampler == SamplerCall("ddpm", {"variance": "large"})
    assert "var_type" in imported.chosen.assumed


def test_a_training_of_ddim(state: dict[str, torch.Tensor], save: Save) -> None:
    raw = {f"module.{name}": value + 1 for name, value in state.items()}
    imported = read(save([raw, {}, 2, 700, state], DDIM))
    assert (imported.weights, imported.step) == ("ema", 700)
    assert torch.equal(imported.tensors["conv_in.weight"], state["conv_in.weight"])
    betas = np.linspace(1e-4**0.5, 0.02**0.5, 50) ** 2
    assert np.allclose(imported.spec.schedule.alpha_bar, np.cumprod(1 - betas), rtol=1e-12)
    assert imported.sampler.arguments == {"variance": "small"}
    assert imported.chosen.assumed == ()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"beta_schedule": "jsd"}, "'jsd'.*linear, quad"),
        ({"var_type": "learned"}, "'learned'.*fixedlarge, fixedsmall"),
        ({"resolution": 0}, "resolution is 0"),
    ],
)
def test_what_is_not_imported(
    said: dict[str, Any], message: str, state: dict[str, torch.Tensor], save: Save
) -> None:
    with pytest.raises(Exception, match=message):
        read(save(state), **{"resolution": 16, **said})


def test_tensors_that_do_not_fit_are_named(state: dict[str, torch.Tensor], save: Save) -> None:
    """In their authors' words, even if a tensor of ours is made of several."""
    for name in ("up.0.block.0.conv1.bias", "mid.attn_1.k.weight", "temb.dense.1.weight"):
        del state[name]
    state["ema.decay"] = torch.zeros(())
    state["up.1.block.1.temb_proj.weight"] = torch.zeros(64, 5)
    state["conv_out.bias"] = torch.zeros(3, 2)
    state["norm_out.weight"][4] = torch.nan
    message = refusal(save(state), resolution=16)
    assert (
        "missing: mid.attn_1.k.weight, temb.dense.1.weight, up.0.block.0.conv1.bias; "
        "surplus: ema.decay; of another shape: "
    ) in message
    assert "up.1.block.1.temb_proj.weight [64, 5] for [64, 128]" in message
    assert "conv_out.bias [3, 2] for [3]" in message
    assert "not finite: norm_out.weight" in message


def test_a_name_with_an_endless_number_is_refused(
    state: dict[str, torch.Tensor], save: Save
) -> None:
    state[f"down.{'9' * 5000}.x"] = torch.zeros(1)
    assert "surplus: down.999" in refusal(save(state), resolution=16)


def test_an_image_size_must_halve(state: dict[str, torch.Tensor], save: Save) -> None:
    assert "cannot take samples of (3, 15, 15)" in refusal(save(state), resolution=15)


def test_a_tensor_of_two_names(state: dict[str, torch.Tensor], save: Save, tmp_path: Path) -> None:
    shared = torch.nn.Parameter(torch.randn(64))
    for block in (0, 1):
        state[f"up.1.block.{block}.conv2.bias"] = shared
    import_checkpoint(save(state), tmp_path / "mine", settings={"resolution": "16"})
    loaded = load_checkpoint(tmp_path / "mine").network.state_dict()
    for row in (0, 1):
        assert torch.equal(loaded[f"up.{row}.0.conv2.bias"], shared.detach())
