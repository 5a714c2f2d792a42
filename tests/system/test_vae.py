import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as npst

from tvae_lib.operations import all_operations, one_hot
from tvae_lib.system import vae
from tvae_lib.system.vae import Posterior, elbo, kl_to_prior, log_likelihood, reparameterise


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


def test_a_temperature_of_zero_has_no_density():
    with pytest.raises(ValueError, match="temperature is 0"):
        vae.tempered(Posterior(torch.zeros(1, 2), torch.zeros(1, 2)), 0.0)
