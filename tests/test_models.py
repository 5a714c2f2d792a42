import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as npst

from tvae_lib import dual, statenet, vae
from tvae_lib.dual import DualVAE, cross_inject, histogram_entropy, soft_entropy
from tvae_lib.operations import all_operations, one_hot
from tvae_lib.vae import Posterior, elbo, kl_to_prior, log_likelihood, reparameterise


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_are_the_published_ones():
    pair, net = DualVAE(), statenet.StateNet()
    assert count(pair.A) == 50_203
    assert count(pair.B) == 117_499
    assert count(net) == 1_068
    assert count(pair) + count(net) == 168_770


def test_temperature_scales_the_noise_alone(rng):
    posterior = Posterior(torch.randn(7, 16, generator=rng), torch.randn(7, 16, generator=rng))
    noise = torch.randn(7, 16, generator=rng)
    for tau in (0.0, 0.3, 1.0, -0.2):
        direct = posterior.mean + tau * torch.sqrt(torch.exp(posterior.log_variance)) * noise
        torch.testing.assert_close(reparameterise(posterior, noise, tau), direct)


arrays = npst.arrays("float64", (3, 4), elements=st.floats(-6, 6))


@given(arrays, arrays)
def test_kl_is_the_closed_form_and_never_negative(mean, log_variance):
    mean, log_variance = torch.from_numpy(mean), torch.from_numpy(log_variance)
    kl = kl_to_prior(Posterior(mean, log_variance))
    q = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
    direct = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(kl, direct, atol=1e-9, rtol=1e-9)
    assert (kl >= -1e-12).all()


def test_log_likelihood_sums_the_chosen_log_probabilities(rng):
    operations = all_operations()[::1000]
    logits = torch.randn(len(operations), 9, 3, generator=rng)
    p = torch.softmax(logits, -1)
    for row, operation in enumerate(operations):
        direct = sum(math.log(p[row, j, int(operation[j]) + 1]) for j in range(9))
        assert log_likelihood(logits, one_hot(operations))[row].item() == pytest.approx(direct, abs=1e-5)


def test_elbo_is_below_log_p_of_a_decoder_that_ignores_its_code(rng):
    operations = all_operations()[::500]
    posterior = Posterior(torch.randn(len(operations), 16, generator=rng), torch.zeros(len(operations), 16))
    logits = torch.zeros(len(operations), 9, 3)
    bound = elbo(logits, one_hot(operations), posterior)
    torch.testing.assert_close(bound, -9 * math.log(3) - kl_to_prior(posterior))


def test_decoders_and_encoder_have_the_stated_shapes():
    x = all_operations()[:5].float()
    for d in (2, 16):
        mean, log_variance = vae.Encoder(d)(x)
        assert mean.shape == log_variance.shape == (5, d)
        assert vae.DecoderA(d)(mean).shape == vae.DecoderB(d)(mean).shape == (5, 9, 3)


def test_residual_block_with_zero_branch_is_a_rectifier():
    block = vae.ResidualBlock(4)
    torch.nn.init.zeros_(block.second.weight), torch.nn.init.zeros_(block.second.bias)
    h = torch.tensor([[-1.0, 0.0, 2.0, 3.0]])
    assert block(h).tolist() == [[0, 0, 2, 3]]


@given(st.floats(0, 1))
def test_injection_mixes_values_and_stops_the_gradient(rho):
    own = torch.tensor([[1.0, -2.0]], requires_grad=True)
    other = torch.tensor([[3.0, 5.0]], requires_grad=True)
    mixed = cross_inject(own, other, rho)
    torch.testing.assert_close(mixed, (1 - rho) * own + rho * other)
    mixed.sum().backward()
    assert other.grad is None
    torch.testing.assert_close(own.grad, torch.full_like(own, 1 - rho))


def test_histogram_entropy_is_a_riemann_sum_over_bins(rng):
    z = torch.randn(400, 3, generator=rng, dtype=torch.float64) * 1.5
    direct = 0.0
    for column in z.T:
        counts = torch.histc(column, bins=50, min=-3, max=3)
        p = counts / counts.sum()
        direct -= sum(q * math.log(q / dual.BIN_WIDTH) for q in p.tolist() if q > 0)
    assert histogram_entropy(z).item() == pytest.approx(direct, abs=1e-9)


def test_soft_entropy_is_the_direct_kernel_histogram(rng):
    z = torch.randn(200, 3, generator=rng, dtype=torch.float64)
    width = 6 / 50
    centres = torch.linspace(-3 + width / 2, 3 - width / 2, 50, dtype=torch.float64)
    weights = torch.exp(-((z.unsqueeze(-1) - centres) ** 2) / (2 * width**2)).sum(0)
    p = weights / weights.sum(-1, keepdim=True)
    direct = -(p * torch.log(p / width)).sum()
    assert soft_entropy(z).item() == pytest.approx(direct.item(), abs=1e-9)


def test_soft_entropy_of_a_wide_gaussian_is_near_the_closed_form(rng):
    z = 0.6 * torch.randn(100_000, 2, generator=rng)
    closed = math.log(2 * math.pi * math.e * (0.6**2 + dual.BIN_WIDTH**2))  # two coordinates, half a log each
    assert soft_entropy(z).item() == pytest.approx(closed, abs=0.01)


def test_only_the_soft_histogram_has_a_gradient(rng):
    z = torch.randn(64, 2, generator=rng, dtype=torch.float64, requires_grad=True)
    assert not histogram_entropy(z).requires_grad
    assert torch.autograd.gradcheck(soft_entropy, z)
    assert torch.autograd.grad(soft_entropy(z), z)[0].abs().max() > 1e-4


def test_entropies_stay_finite_when_every_code_is_out_of_range():
    z = torch.full((8, 2), 50.0)
    assert torch.isfinite(histogram_entropy(z))
    assert torch.isfinite(soft_entropy(z))


@given(st.floats(0.1, 3), st.floats(0, 0.99))
def test_codes_of_a_pathway_have_the_stated_gaussian(tau, rho):
    rng = torch.Generator().manual_seed(1)
    own, other = (Posterior(*torch.randn(2, 1, 3, generator=rng, dtype=torch.float64)) for _ in range(2))
    used = dual.injected(own, other, rho, tau, 0.7)
    scale = ((1 - rho) * tau * torch.exp(own.log_variance / 2), rho * 0.7 * torch.exp(other.log_variance / 2))
    torch.testing.assert_close(used.log_variance.exp(), scale[0] ** 2 + scale[1] ** 2)
    torch.testing.assert_close(used.mean, (1 - rho) * own.mean + rho * other.mean)
    alone = vae.tempered(own, -tau)
    torch.testing.assert_close(alone.log_variance, dual.injected(own, other, 0.0, tau, 0.7).log_variance)


def test_a_temperature_of_zero_has_no_density():
    with pytest.raises(ValueError, match="temperature is 0"):
        vae.tempered(Posterior(torch.zeros(1, 2), torch.zeros(1, 2)), 0.0)


def test_pathways_take_their_own_noise_and_temperature(rng):
    pair, x = DualVAE(), all_operations()[:5].float()
    noise = torch.randn(2, 5, 16, generator=rng)
    with torch.no_grad():
        output = pair(x, noise, 0.0, 0.9, 0.3)
        for pathway, z, own, tau in (("A", output.z_A, noise[0], 0.9), ("B", output.z_B, noise[1], 0.3)):
            mean, log_variance = getattr(pair, pathway).encoder(x)
            torch.testing.assert_close(z, mean + tau * torch.exp(log_variance / 2) * own)
