"""Properties of every network, whatever its kind, and arguments that are refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difftool.diffusion.calls import NetworkCall
from difftool.errors import UsageError
from difftool.networks import NETWORKS, build_network, num_parameters

UNET = {"in_channels": 1, "channels": 8, "multipliers": [1, 2], "blocks": 1}
IMAGE = (1, 8, 8)
SMALL: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {  # arguments and sample shape
    "linear_attention_unet": (
        {"in_channels": 1, "out_channels": 1, "channels": 4, "multipliers": [1, 2]}
        | {"heads": 2, "head_channels": 3},
        IMAGE,
    ),
    "mlp": ({"dimensions": 2, "hidden": 8, "levels": 10}, (2,)),
    "ncsn": ({"in_channels": 1, "levels": 10, "channels": 2}, IMAGE),
    "ncsnpp": (
        UNET
        | {"input_pyramid": "input_skip", "output_pyramid": "output_skip"}
        | {"embedding": "positional"},
        IMAGE,
    ),
    "ncsnv2": ({"in_channels": 1, "channels": 2}, IMAGE),
    "unet": (UNET | {"out_channels": 1, "groups": 4}, IMAGE),
}
TOLERANCE = 1e-4  # outputs are of order 1


@pytest.fixture(params=SMALL)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def small(kind: str, **more: Any) -> tuple[nn.Module, Tensor, Tensor]:
    """A network whose every weight acts (none is at its zero start), with an x and a cond."""
    arguments, shape = SMALL[kind]
    torch.manual_seed(0)
    network = build_network(NetworkCall(kind, arguments | more)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network, torch.randn(3, *shape), torch.tensor([0.0, 4.0, 9.0])


def test_every_kind_is_tested() -> None:
    assert set(SMALL) == set(NETWORKS)


@torch.no_grad()
def test_conditioning_can_be_hoisted(kind: str) -> None:
    """A row of a table made beforehand serves as well as conditioning at the time."""
    network, x, cond = small(kind)
    table = network.condition(torch.arange(10.0))
    direct = network(x, network.condition(cond))
    assert torch.allclose(network(x, table[cond.long()]), direct, rtol=0, atol=TOLERANCE)
    assert direct.shape == x.shape


@torch.no_grad()
def test_samples_do_not_see_their_neighbours(kind: str) -> None:
    network, x, cond = small(kind)
    together = network(x, network.condition(cond))
    alone = network(x[1:2], network.condition(cond[1:2]))
    assert torch.allclose(together[1:2], alone, rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_output_depends_on_cond_unless_there_is_none(kind: str) -> None:
    network, x, cond = small(kind)
    c = network.condition(cond)
    changed = not torch.equal(network(x, c), network(x, network.condition(cond.flip(0))))
    assert changed == (c.shape[1] > 0) == (kind != "ncsnv2")


def test_every_parameter_learns(kind: str) -> None:
    network, x, cond = small(kind)
    network(x, network.condition(cond)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@torch.no_grad()
def test_exports_with_any_batch_size(kind: str) -> None:
    network, x, cond = small(kind)
    c = network.condition(cond)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network, (x, c), dynamic_shapes=({0: batch}, {0: batch}))
    x, c = torch.cat((x, x + 1)), torch.cat((c, c))
    assert torch.allclose(program.module()(x, c), network(x, c), rtol=0, atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # by torch's own size checks
@torch.no_grad()
def test_traces(kind: str) -> None:
    """As TorchScript, and for other batch sizes than the one it saw."""
    network, x, cond = small(kind)
    c = network.condition(cond)
    traced = torch.jit.trace(network, (x, c))
    x, c = torch.cat((x, x + 1)), torch.cat((c, c))
    assert torch.allclose(traced(x, c), network(x, c), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["linear_attention_unet", "ncsn", "ncsnv2", "unet"])
@torch.no_grad()
def test_same_in_channels_last(kind: str) -> None:
    network, x, cond = small(kind)
    c = network.condition(cond)
    expected = network(x, c)
    network = network.to(memory_format=torch.channels_last)
    actual = network(x.to(memory_format=torch.channels_last), c)
    assert torch.allclose(actual, expected, rtol=0, atol=TOLERANCE)


def test_num_parameters_counts_what_training_adjusts() -> None:
    network = build_network(NetworkCall("mlp", {"dimensions": 2}))
    assert num_parameters(network) == (2 * 128 + 128) + (128 * 128 + 128) + (128 * 2 + 2)
    network.out.requires_grad_(False)
    assert num_parameters(network) == (2 * 128 + 128) + (128 * 128 + 128)


# Whole arguments, or changes to those of a network in BASES.
BASES: dict[str, dict[str, Any]] = {
    "linear_attention_unet": {
        "in_channels": 1, "out_channels": 1, "channels": 4, "multipliers": [1, 2, 3],
    },
    "ncsnpp": {"in_channels": 3, "channels": 8, "multipliers": [1, 2], "blocks": 1},
    "unet": {
        "in_channels": 1, "out_channels": 1, "channels": 8, "multipliers": [1, 2, 2], "blocks": 1,
        "attention": [2], "groups": 4,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("resnet", {}, "unknown network 'resnet'.*mlp, ncsn, ncsnpp, ncsnv2, unet"),
        ("mlp", {"dimensions": 2, "width": 3}, "no argument 'width'.*hidden"),
        ("mlp", {"hidden": 2}, "needs the argument 'dimensions'"),
        ("mlp", {"dimensions": 2, "layers": 1}, "layers is 1"),
        ("mlp", {"dimensions": 2, "levels": 0}, "levels is 0"),
        ("ncsn", {"in_channels": 1, "levels": 0}, "levels is 0"),
        ("ncsn", {"in_channels": 1, "levels": 1, "channels": 1}, "channels is 1"),
        ("ncsnv2", {"in_channels": 0}, "in_channels is 0"),
        ("ncsnv2", {"in_channels": 1, "multipliers": [1, 2]}, "at least three"),
        ("mlp", {"dimensions": 2, "layers": 2.0}, "network mlp's layers is"),
        ("ncsn", {"in_channels": 3, "levels": "5"}, "network ncsn's levels is"),
        ("ncsnv2", {"in_channels": 3, "multipliers": "1222"}, "network ncsnv2's multipliers is"),
        ("ncsnpp", {"fir": 1}, "network ncsnpp's fir is"),
        ("linear_attention_unet", {"heads": [1, "x"]}, "linear_attention_unet's heads is"),
        ("unet", {"embedding": None}, "network unet's embedding is"),
        ("linear_attention_unet", {"channels": 3}, "channels is 3"),
        ("linear_attention_unet", {"channels": 7}, "channels is 7.*even"),
        ("linear_attention_unet", {"multipliers": []}, "the number of multipliers is 0"),
        ("linear_attention_unet", {"multipliers": [1, 0, 1]}, "a width is 0"),
        ("linear_attention_unet", {"full": [3]}, "full names level 3.*0 .full resolution. to 2"),
        ("linear_attention_unet", {"heads": [1, 2]}, r"heads is \[1, 2\] for 3 levels"),
        ("linear_attention_unet", {"head_channels": 0}, "head_channels is 0"),
        ("linear_attention_unet", {"memory": -1}, "memory is -1"),
        ("linear_attention_unet", {"groups": 3}, "groups=3 does not divide a width of 4"),
        ("linear_attention_unet", {"groups": 0}, "groups is 0"),
        ("ncsnpp", {"resample": "pool"}, "resample is 'pool'"),
        ("ncsnpp", {"input_pyramid": "skip"}, "input_pyramid is 'skip'"),
        ("ncsnpp", {"output_pyramid": "skip"}, "output_pyramid is 'skip'"),
        ("ncsnpp", {"combine": "mean"}, "combine is 'mean'"),
        ("ncsnpp", {"embedding": "learned"}, "embedding is 'learned'"),
        ("ncsnpp", {"attention": [2]}, "attention names level 2"),
        ("ncsnpp", {"multipliers": []}, "the number of multipliers is 0"),
        ("ncsnpp", {"multipliers": [1, 0]}, "a multiplier is 0"),
        ("ncsnpp", {"blocks": 0}, "blocks is 0"),
        ("ncsnpp", {"channels": 2}, "2 channels has 0 groups"),
        ("ncsnpp", {"channels": 132}, "132 channels has 32 groups"),
        ("ncsnpp", {"head_channels": 5}, "do not split into equal attention heads"),
        ("unet", {"groups": 3}, "groups=3 does not divide a width of 8"),
        ("unet", {"groups": 0}, "groups is 0"),
        ("unet", {"channels": 9, "groups": 9}, "channels is 9.*even"),
        ("unet", {"multipliers": []}, "the number of multipliers is 0"),
        ("unet", {"multipliers": [1, 0], "attention": []}, "does not divide a width of 0"),
        ("unet", {"attention": [3]}, "attention names level 3.*0 .full resolution. to 2"),
        ("unet", {"blocks": 0}, "blocks is 0"),
        ("unet", {"heads": 3}, "16 channels do not split"),
        ("unet", {"head_channels": 5}, "16 channels do not split"),
        ("unet", {"head_channels": 8, "heads": 2}, "both given"),
        ("unet", {"head_channels": 0}, "head_channels is 0"),
        ("unet", {"embedding": "fourier"}, "embedding is 'fourier'.*sin_cos, cos_sin"),
        ("unet", {"resample": "fir"}, "resample is 'fir'.*conv, block"),
        ("unet", {"downsample_padding": "same"}, "downsample_padding is 'same'"),
        ("unet", {"multipliers": [1, 1.55, 2]}, "multiplier 1.55 makes 12.4 channels of 8"),
        ("unet", {"up_attention": [3]}, "attention names level 3"),
        ("unet", {"middle_groups": 3}, "groups=3 does not divide a width of 16"),
        ("unet", {"frequency_shift": 4}, "a frequency_shift of 4 with 4 frequencies"),
    ],
)
def test_bad_arguments(kind: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_network(NetworkCall(kind, BASES.get(kind, {}) | arguments))
