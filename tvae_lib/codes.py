"""Chapter 6: what the rate is spent on - what codes say, how their coordinates depend, how far each is from the prior.

Every density of the aggregate posterior is a sum over all operations; the outer mean, over codes, is sampled.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tvae_lib.evaluation import log_aggregate
from tvae_lib.operations import SIZE
from tvae_lib.vae import Posterior, reparameterise


class RateSplit(NamedTuple):
    """Parts of the rate in nats: [I(x; z), total correlation, dimension-wise KL], and standard errors, (3,) each."""

    parts: Tensor
    errors: Tensor


def log_gaussians(z: Tensor, posterior: Posterior) -> Tensor:
    """log q(z_k | x) of every code under every operation's posterior, by coordinate: (N, d), (n, d) -> (d, N, n)."""
    mean, log_variance = (part.double().T.unsqueeze(1) for part in posterior)
    squares = (z.double().T.unsqueeze(2) - mean).square_().mul_(torch.exp(-log_variance))
    return squares.add_(log_variance + math.log(2 * math.pi)).mul_(-0.5)


def log_marginals(z: Tensor, posterior: Posterior) -> Tensor:
    """log q_k(z_k) of each coordinate's aggregate density, the mean over all n operations: (N, d) -> (N, d), float64.

    Equation: eq-marginal-density. Source: ours.
    """
    columns = []
    for k in range(z.shape[1]):
        own = Posterior(*(part[:, k : k + 1] for part in posterior))
        columns.append(log_aggregate(z[:, k : k + 1], own))
    return torch.stack(columns, 1)


def sampled(posterior: Posterior, samples: int, generator) -> tuple[Posterior, Tensor]:
    """The posteriors (N, d) of N operations drawn uniformly from the n of `posterior`, and a code of each (N, d)."""
    chosen = torch.randint(len(posterior.mean), (samples,), generator=generator, device=posterior.mean.device)
    own = Posterior(*(part[chosen] for part in posterior))
    noise = torch.randn(own.mean.shape, generator=generator, device=own.mean.device)
    return own, reparameterise(own, noise)


@torch.no_grad()
def rate_split(posterior: Posterior, samples: int, generator) -> RateSplit:
    """The three parts of the rate of codes from their posteriors (n, d), which sum to it up to sampling.

    Equation: eq-rate-split. Source: Chen et al. (2018).
    """
    own, z = sampled(posterior, samples, generator)
    given = -0.5 * ((z - own.mean).double().square() / own.log_variance.double().exp() + own.log_variance.double())
    log_own = (given - 0.5 * math.log(2 * math.pi)).sum(1)
    log_joint, log_each = log_aggregate(z, posterior), log_marginals(z, posterior).sum(1)
    log_prior = -0.5 * (z.double().square() + math.log(2 * math.pi)).sum(1)
    parts = torch.stack([log_own - log_joint, log_joint - log_each, log_each - log_prior])
    return RateSplit(parts.mean(1), parts.std(1) / math.sqrt(samples))


@torch.no_grad()
def shared_information(first: Posterior, second: Posterior, samples: int, generator) -> tuple[float, float]:
    """I(z_A; z_B) of codes of the same operations, (n, d) and (n, d'), which are independent given x; standard error.

    Equation: eq-shared-information. Source: ours. In nats, at most log n.
    """
    both = Posterior(*(torch.cat(parts, 1) for parts in zip(first, second, strict=True)))
    _, z = sampled(both, samples, generator)
    d = first.mean.shape[1]
    gain = log_aggregate(z, both) - log_aggregate(z[:, :d], first) - log_aggregate(z[:, d:], second)
    return gain.mean().item(), gain.std().item() / math.sqrt(samples)


def active_units(posterior: Posterior) -> int:
    """Coordinates whose posterior mean varies over the operations, by more than 0.01: the codes are (n, d).

    Source: Burda, Grosse and Salakhutdinov (2016).
    """
    return int((posterior.mean.var(0) > 0.01).sum())


def stratified(log_densities: Tensor, size: int = SIZE) -> Tensor:
    """log q(z_i) from a batch, log_densities[..., i, j] = log q(z_i | x_j): (..., n, n) -> (..., n).

    The code's own operation counts for one of the `size` operations, the n - 1 others of the batch for the rest; the
    estimate of q(z_i) is unbiased over the others, that of its logarithm too low.
    Equation: eq-stratified. Source: Chen et al. (2018).
    """
    n = log_densities.shape[-1]
    weights = torch.full((n, n), math.log((size - 1) / (size * (n - 1))), dtype=log_densities.dtype)
    weights.fill_diagonal_(-math.log(size))
    return torch.logsumexp(log_densities + weights.to(log_densities.device), -1)


def batch_mean(log_densities: Tensor) -> Tensor:
    """log of the batch's own mixture, the mean over its n operations: (..., n, n) -> (..., n).

    Minibatch-weighted sampling is this less log M, a constant. Equation: eq-batch-mean. Source: Chen et al. (2018).
    """
    return torch.logsumexp(log_densities, -1) - math.log(log_densities.shape[-1])
