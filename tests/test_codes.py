"""What the rate is spent on, against laws that are known and sums written out."""

import itertools
import math

import pytest
import torch

from tvae_lib import codes
from tvae_lib.vae import Posterior, kl_to_prior


@pytest.fixture
def posterior(rng) -> Posterior:
    """Five operations' posteriors in three coordinates."""
    mean, log_variance = (torch.randn(5, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    return Posterior(mean, log_variance)


def at(*means: list[float], variance: float = 1.0) -> Posterior:
    mean = torch.tensor(means, dtype=torch.float64)
    return Posterior(mean, torch.full_like(mean, math.log(variance)))


def test_densities_are_those_of_normal_distributions(posterior, rng):
    _, z = codes.sampled(posterior, 20, rng)
    normal = torch.distributions.Normal(posterior.mean, (posterior.log_variance / 2).exp())
    each = normal.log_prob(z.unsqueeze(1))  # (N, n, d)
    torch.testing.assert_close(codes.log_gaussians(z, posterior), each.permute(2, 0, 1))
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


def test_two_noisy_readings_of_one_number_share_what_gaussians_share(rng):
    x = torch.distributions.Normal(0.0, 2.0).icdf((torch.arange(2000) + 0.5) / 2000).double().unsqueeze(1)
    reading = Posterior(x, torch.zeros_like(x))  # signal of variance 4, noise of variance 1: correlation 4/5
    value, error = codes.shared_information(reading, reading, 4000, rng)
    assert value == pytest.approx(-0.5 * math.log(1 - 0.64), abs=4 * error + 0.01)
    assert error < 0.03


def test_a_bit_in_both_codes_is_shared_and_two_different_bits_are_not(rng):
    bit, other = at([50.0], [50.0], [-50.0], [-50.0]), at([50.0], [-50.0], [50.0], [-50.0])
    assert codes.shared_information(bit, bit, 200, rng)[0] == pytest.approx(math.log(2))
    assert codes.shared_information(bit, other, 200, rng)[0] == pytest.approx(0, abs=1e-9)


def test_active_units_are_those_whose_mean_varies():
    assert codes.active_units(at([1.0, 5.0, 0.0], [-1.0, 5.0, 0.05])) == 1


def test_stratified_density_is_unbiased_over_the_batch(posterior, rng):
    _, z = codes.sampled(posterior, 1, rng)
    given = codes.log_gaussians(z, posterior).sum(0)[0]  # log q(z | x) of the five
    for n in (2, 3):
        estimates = []
        for others in itertools.combinations(range(1, 5), n - 1):
            chosen = torch.tensor([0, *others])
            estimates.append(codes.stratified(given[chosen].repeat(n, 1), size=5)[0].exp())
        assert torch.stack(estimates).mean().item() == pytest.approx(given.exp().mean().item())


def test_batch_mean_caps_the_information_at_the_log_of_the_batch():
    far = codes.log_gaussians(torch.tensor([[0.0], [900.0]]), at([0.0], [900.0])).sum(0)
    assert (far.diagonal() - codes.batch_mean(far)).tolist() == pytest.approx([math.log(2)] * 2)
    assert (far.diagonal() - codes.stratified(far, size=100)).tolist() == pytest.approx([math.log(100)] * 2)
