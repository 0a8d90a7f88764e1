"""InstanceNorm++ against its formula, and what the two NCSN networks are made of."""

import pytest
import torch

from difftool.networks.ncsn import NCSN, NCSNv2
from difftool.networks.refinenet import ConditionalInstanceNormPlus, instance_norm_plus


def test_instance_norm_plus_is_its_formula() -> None:
    """Song & Ermon 2019, eq. 10 and 11, in float64, with the published code's two differences."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 4, 3, generator=generator, dtype=torch.float64) * 3 + 1
    gamma, alpha, beta = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64)
    actual = instance_norm_plus(x, 5, (gamma, alpha, beta))
    for n in range(2):
        means = [float(x[n, k].mean()) for k in range(5)]
        m = sum(means) / 5
        v = sum((mean - m) ** 2 for mean in means) / 4  # unbiased
        for k in range(5):
            s = float(((x[n, k] - means[k]) ** 2).mean())
            normalized = (x[n, k] - means[k]) / (s + 1e-5) ** 0.5
            relative = (means[k] - m) / (v + 1e-5) ** 0.5
            expected = gamma[n, k] * (normalized + alpha[n, k] * relative) + beta[n, k]
            assert torch.allclose(actual[n, k], expected, rtol=0, atol=1e-12)


def test_norms_divide_the_conditioning_in_running_order() -> None:
    network = NCSN(in_channels=1, levels=3, channels=4)
    norms = [m for m in network.modules() if isinstance(m, ConditionalInstanceNormPlus)]
    assert [norm.first for norm in norms] == list(range(0, len(network.sizes), 3))
    assert [norm.channels for norm in norms for _ in range(3)] == network.sizes


@torch.no_grad()
def test_conditional_norms_start_near_instance_norm() -> None:
    torch.manual_seed(0)
    network = NCSN(in_channels=1, levels=3, channels=4)
    gammas, alphas, betas = (
        torch.cat(network.condition(torch.arange(3.0)).split(network.sizes, dim=1)[part::3], dim=1)
        for part in range(3)
    )
    for scale in (gammas, alphas):
        assert float(scale.mean()) == pytest.approx(1, abs=0.01)
        assert float(scale.std()) == pytest.approx(0.02, rel=0.1)
    assert not betas.any()


@torch.no_grad()
def test_centered_input_is_not_centered_again() -> None:
    torch.manual_seed(0)
    network = NCSNv2(in_channels=1, channels=2)
    x, c = torch.rand(1, 1, 8, 8), torch.zeros(1, 0)
    expected = network(x, c)
    network.centered = True
    assert torch.equal(network(2 * x - 1, c), expected)


@torch.no_grad()
def test_deeper_variants_pool_once_more_per_stage() -> None:
    network = NCSNv2(in_channels=1, channels=2, multipliers=(1, 2, 2, 2, 4, 4))
    sizes: list[int] = []
    for stage in network.net.stages:
        stage[1].register_forward_hook(lambda module, inputs, h: sizes.append(h.shape[-1]))
    x = torch.rand(1, 1, 16, 16)
    assert network(x, torch.zeros(1, 0)).shape == x.shape
    assert sizes == [16, 8, 4, 2, 2, 2]
