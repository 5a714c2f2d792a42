"""What codes say and what their rate is spent on, against laws that are known and sums written out."""

import math

import pytest
import torch

from tvae_lib.measures import codes
from tvae_lib.system.vae import Posterior, kl_to_prior


def gaussians(rng, n=40, d=3):
    return Posterior(
        torch.randn(n, d, generator=rng, dtype=torch.float64), torch.randn(n, d, generator=rng, dtype=torch.float64) - 1
    )


def test_aggregate_is_the_mean_of_all_densities(rng):
    posterior = gaussians(rng)
    z = torch.randn(300, 3, generator=rng, dtype=torch.float64)
    normal = torch.distributions.Normal(posterior.mean, torch.exp(posterior.log_variance / 2))
    direct = normal.log_prob(z.unsqueeze(1)).sum(2).exp().mean(1).log()
    torch.testing.assert_close(codes.log_aggregate(z, posterior), direct)


def test_information_has_its_two_limits_and_the_gaussian_value(rng):
    empty = Posterior(torch.zeros(50, 2), torch.zeros(50, 2))
    assert codes.information(empty, 200, rng)[0] == pytest.approx(0, abs=1e-6)
    apart = Posterior(100.0 * torch.arange(50.0).unsqueeze(1), torch.zeros(50, 1))
    assert codes.information(apart, 200, rng)[0] == pytest.approx(math.log(50), abs=1e-5)
    quantiles = torch.distributions.Normal(0.0, 2.0).icdf((torch.arange(2000) + 0.5) / 2000).unsqueeze(1)
    linear = Posterior(quantiles, torch.zeros(2000, 1))  # x of variance 4 and unit noise: log(5) / 2 nats
    value, error = codes.information(linear, 4000, rng)
    assert abs(value - math.log(5) / 2) < 4 * error + 0.01
    assert error < 0.03


def test_information_is_at_most_the_rate(rng):
    posterior = gaussians(rng, 300)
    value, error = codes.information(posterior, 2000, rng)
    assert value < kl_to_prior(posterior).mean() + 4 * error


def test_cka_is_one_for_a_rotation_and_small_for_noise(rng):
    x = torch.randn(2000, 5, generator=rng)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=rng))[0]
    assert codes.cka(x, 3 * x @ rotation + 1) == pytest.approx(1, abs=1e-6)
    assert codes.cka(x, torch.randn(2000, 4, generator=rng)) < 0.02


@pytest.fixture
def posterior(rng) -> Posterior:
    """Five operations' posteriors in three coordinates."""
    mean, log_variance = (torch.randn(5, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    return Posterior(mean, log_variance)


def at(*means: list[float], variance: float = 1.0) -> Posterior:
    mean = torch.tensor(means, dtype=torch.float64)
    return Posterior(mean, torch.full_like(mean, math.log(variance)))


def test_marginal_densities_are_means_of_normal_ones(posterior, rng):
    _, _, z = codes.sampled(posterior, 20, rng)
    normal = torch.distributions.Normal(posterior.mean, (posterior.log_variance / 2).exp())
    each = normal.log_prob(z.unsqueeze(1))  # (N, n, d)
    torch.testing.assert_close(codes.log_marginals(z, posterior), torch.logsumexp(each, 1) - math.log(5))


def test_parts_sum_to_the_rate(posterior, rng):
    split = codes.rate_split(posterior, 40_000, rng)
    assert split.parts.sum().item() == pytest.approx(kl_to_prior(posterior).mean().item(), abs=0.05)
    assert (split.parts > -3 * split.errors).all()


def test_posteriors_that_are_all_the_same_say_nothing(rng):
    split = codes.rate_split(at([1.0, 2.0], [1.0, 2.0], [1.0, 2.0], variance=0.5), 20_000, rng)
    rate = kl_to_prior(at([1.0, 2.0], variance=0.5)).item()
    assert split.parts.tolist() == pytest.approx([0, 0, rate], abs=0.05)


def test_a_bit_written_twice_is_one_bit_of_information_and_one_of_correlation(rng):
    split = codes.rate_split(at([50.0, 50.0], [-50.0, -50.0]), 500, rng)
    assert split.parts[:2].tolist() == pytest.approx([math.log(2), math.log(2)])
    split = codes.rate_split(at([50.0, 0.0], [-50.0, 0.0]), 500, rng)
    assert split.parts[:2].tolist() == pytest.approx([math.log(2), 0], abs=1e-9)


def test_active_units_are_those_whose_mean_varies():
    assert codes.active_units(at([1.0, 5.0, 0.0], [-1.0, 5.0, 0.05])) == 1


def test_codes_sampled_are_those_of_the_operations_that_were_drawn(posterior, rng):
    own, noise, z = codes.sampled(posterior, 30, rng)
    assert all((posterior.mean == mean).all(1).sum() == 1 for mean in own.mean)
    torch.testing.assert_close(z, own.mean + (own.log_variance / 2).exp() * noise)


def test_a_joint_code_says_the_sum_of_what_two_different_bits_say(rng):
    bit, other = at([50.0], [50.0], [-50.0], [-50.0]), at([50.0], [-50.0], [50.0], [-50.0])
    assert codes.information(codes.joint(bit, other), 200, rng)[0] == pytest.approx(2 * math.log(2))
    assert codes.information(codes.joint(bit, bit), 200, rng)[0] == pytest.approx(math.log(2))
