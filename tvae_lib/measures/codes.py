"""What codes say about their operation, how their coordinates depend, how far they are from the prior.

Every density of the aggregate posterior is a sum over all operations; the outer mean, over codes, is sampled."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tvae_lib.system.vae import Posterior, reparameterise


def joint(*posteriors: Posterior) -> Posterior:
    """The posterior of several codes of the same operations, independent given x: (n, d), ... -> (n, d + ...)."""
    return Posterior(*(torch.cat(parts, 1) for parts in zip(*posteriors, strict=True)))


def sampled(posterior: Posterior, samples: int, generator) -> tuple[Posterior, Tensor, Tensor]:
    """The posteriors of N operations drawn uniformly from the n of `posterior`, noise, and a code of each: (N, d)."""
    device = posterior.mean.device
    chosen = torch.randint(len(posterior.mean), (samples,), generator=generator, device=device)
    own = Posterior(*(part[chosen] for part in posterior))
    noise = torch.randn(own.mean.shape, generator=generator, device=device)
    return own, noise, reparameterise(own, noise)


def log_aggregate(z: Tensor, posterior: Posterior) -> Tensor:
    """log q(z) of the aggregate posterior, the mean of the Gaussians of all n operations: (N, d) -> (N,), float64.

    Squares expanded, the N x n exponents are one matrix product. Equation: eq-aggregate. Source: ours."""
    mean, log_variance = (part.double() for part in posterior)
    precision = torch.exp(-log_variance)
    features = torch.cat([-0.5 * precision, mean * precision], 1)
    constant = -0.5 * (mean.square() * precision + log_variance + math.log(2 * math.pi)).sum(1) - math.log(len(mean))
    z = z.double()
    parts = [torch.logsumexp(torch.addmm(constant, p, features.T), 1) for p in torch.cat([z.square(), z], 1).split(128)]
    return torch.cat(parts)


@torch.no_grad()
def information(posterior: Posterior, samples: int, generator) -> tuple[float, float]:
    """I(x; z) of uniform operations and codes from their posteriors (n, d), and its standard error, in nats.

    Exact in the n components of q(z), Monte Carlo in (x, z): the mean of log q(z|x) - log q(z). At most log n.
    Equation: eq-information. Source: ours."""
    own, noise, z = sampled(posterior, samples, generator)
    log_own = -0.5 * (noise.double().square() + own.log_variance.double() + math.log(2 * math.pi)).sum(1)
    gain = log_own - log_aggregate(z, posterior)
    return gain.mean().item(), gain.std().item() / math.sqrt(samples)


def cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of two codes of the same operations, (n, d) and (n, d'): 0 ... 1.

    1 where one is a rotation of the other times a factor. Equation: eq-cka. Source: Kornblith et al. (2019)."""
    a, b = (part.double() - part.double().mean(0) for part in (first, second))
    return ((a.T @ b).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm())).item()


class RateSplit(NamedTuple):
    """Parts of the rate in nats: [I(x; z), total correlation, dimension-wise KL], and standard errors, (3,) each."""

    parts: Tensor
    errors: Tensor


def log_marginals(z: Tensor, posterior: Posterior) -> Tensor:
    """log q_k(z_k) of each coordinate's aggregate density, the mean over all n operations: (N, d) -> (N, d), float64.
    Equation: eq-marginal-density. Source: ours."""
    each = (Posterior(*(part[:, k : k + 1] for part in posterior)) for k in range(z.shape[1]))
    return torch.stack([log_aggregate(z[:, k : k + 1], one) for k, one in enumerate(each)], 1)


@torch.no_grad()
def rate_split(posterior: Posterior, samples: int, generator) -> RateSplit:
    """The three parts of the rate of codes from their posteriors (n, d), which sum to it up to sampling.
    Equation: eq-rate-split. Source: Chen et al. (2018)."""
    own, _, z = sampled(posterior, samples, generator)
    given = -0.5 * ((z - own.mean).double().square() / own.log_variance.double().exp() + own.log_variance.double())
    log_own = (given - 0.5 * math.log(2 * math.pi)).sum(1)
    log_joint, log_each = log_aggregate(z, posterior), log_marginals(z, posterior).sum(1)
    log_prior = -0.5 * (z.double().square() + math.log(2 * math.pi)).sum(1)
    parts = torch.stack([log_own - log_joint, log_joint - log_each, log_each - log_prior])
    return RateSplit(parts.mean(1), parts.std(1) / math.sqrt(samples))


def active_units(posterior: Posterior) -> int:
    """Coordinates whose posterior mean varies over the operations, by more than 0.01: the codes are (n, d).
    Source: Burda, Grosse and Salakhutdinov (2016)."""
    return int((posterior.mean.var(0) > 0.01).sum())
