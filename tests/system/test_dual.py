import hypothesis.strategies as st
import torch
from hypothesis import given

from tvae_lib.operations import all_operations
from tvae_lib.system.dual import DualVAE, cross_inject, injected
from tvae_lib.system.statenet import StateNet
from tvae_lib.system.vae import Posterior, tempered


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_are_the_published_ones():
    pair, net = DualVAE(), StateNet()
    assert count(pair.A) == 50_203
    assert count(pair.B) == 117_499
    assert count(net) == 1_068
    assert count(pair) + count(net) == 168_770


@given(st.floats(0, 1))
def test_injection_mixes_values_and_stops_the_gradient(rho):
    own = torch.tensor([[1.0, -2.0]], requires_grad=True)
    other = torch.tensor([[3.0, 5.0]], requires_grad=True)
    mixed = cross_inject(own, other, rho)
    torch.testing.assert_close(mixed, (1 - rho) * own + rho * other)
    mixed.sum().backward()
    assert other.grad is None
    torch.testing.assert_close(own.grad, torch.full_like(own, 1 - rho))


@given(st.floats(0.1, 3), st.floats(0, 0.99))
def test_codes_of_a_pathway_have_the_stated_gaussian(tau, rho):
    rng = torch.Generator().manual_seed(1)
    own, other = (Posterior(*torch.randn(2, 1, 3, generator=rng, dtype=torch.float64)) for _ in range(2))
    used = injected(own, other, rho, tau, 0.7)
    scale = ((1 - rho) * tau * torch.exp(own.log_variance / 2), rho * 0.7 * torch.exp(other.log_variance / 2))
    torch.testing.assert_close(used.log_variance.exp(), scale[0] ** 2 + scale[1] ** 2)
    torch.testing.assert_close(used.mean, (1 - rho) * own.mean + rho * other.mean)
    alone = tempered(own, -tau)
    torch.testing.assert_close(alone.log_variance, injected(own, other, 0.0, tau, 0.7).log_variance)


def test_pathways_take_their_own_noise_and_temperature(rng):
    pair, x = DualVAE(), all_operations()[:5].float()
    noise = torch.randn(2, 5, 16, generator=rng)
    with torch.no_grad():
        output = pair(x, noise, 0.0, 0.9, 0.3)
        for pathway, z, own, tau in (("A", output.z_A, noise[0], 0.9), ("B", output.z_B, noise[1], 0.3)):
            mean, log_variance = getattr(pair, pathway).encoder(x)
            torch.testing.assert_close(z, mean + tau * torch.exp(log_variance / 2) * own)
