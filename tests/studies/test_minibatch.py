"""Densities of codes estimated from a batch of operations."""

import itertools
import math

import pytest
import torch

from studies import minibatch
from tvae_lib.system.vae import Posterior


@pytest.fixture
def posterior(rng) -> Posterior:
    """Five operations' posteriors in three coordinates."""
    mean, log_variance = (torch.randn(5, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    return Posterior(mean, log_variance)


def test_densities_are_those_of_normal_distributions(posterior, rng):
    z = torch.randn(20, 3, generator=rng, dtype=torch.float64)
    normal = torch.distributions.Normal(posterior.mean, (posterior.log_variance / 2).exp())
    each = normal.log_prob(z.unsqueeze(1))  # (N, n, d)
    torch.testing.assert_close(minibatch.log_gaussians(z, posterior), each.permute(2, 0, 1))


def test_stratified_density_is_unbiased_over_the_batch(posterior, rng):
    z = torch.randn(1, 3, generator=rng, dtype=torch.float64)
    given = minibatch.log_gaussians(z, posterior).sum(0)[0]  # log q(z | x) of the five
    for n in (2, 3):
        estimates = []
        for others in itertools.combinations(range(1, 5), n - 1):
            chosen = torch.tensor([0, *others])
            estimates.append(minibatch.stratified(given[chosen].repeat(n, 1), size=5)[0].exp())
        assert torch.stack(estimates).mean().item() == pytest.approx(given.exp().mean().item())


def test_batch_mean_caps_the_information_at_the_log_of_the_batch():
    far = minibatch.log_gaussians(
        torch.tensor([[0.0], [900.0]]), Posterior(torch.tensor([[0.0], [900.0]]), torch.zeros(2, 1))
    ).sum(0)
    assert (far.diagonal() - minibatch.batch_mean(far)).tolist() == pytest.approx([math.log(2)] * 2)
    assert (far.diagonal() - minibatch.stratified(far, size=100)).tolist() == pytest.approx([math.log(100)] * 2)
