"""What codes say, estimated from a batch of operations alone: chapter 6 measures how far that is off."""

import math

import torch
from torch import Tensor

from tvae_lib.operations import SIZE
from tvae_lib.system.vae import Posterior


def log_gaussians(z: Tensor, posterior: Posterior) -> Tensor:
    """log q(z_k | x) of every code under every operation's posterior, by coordinate: (N, d), (n, d) -> (d, N, n)."""
    mean, log_variance = (part.double().T.unsqueeze(1) for part in posterior)
    squares = (z.double().T.unsqueeze(2) - mean).square_().mul_(torch.exp(-log_variance))
    return squares.add_(log_variance + math.log(2 * math.pi)).mul_(-0.5)


def stratified(log_densities: Tensor, size: int = SIZE) -> Tensor:
    """log q(z_i) from a batch, log_densities[..., i, j] = log q(z_i | x_j): (..., n, n) -> (..., n).

    The code's own operation counts for one of the `size` operations, the n - 1 others of the batch for the rest; the
    estimate of q(z_i) is unbiased over the others, that of its logarithm too low.
    Equation: eq-stratified. Source: Chen et al. (2018)."""
    n = log_densities.shape[-1]
    weights = torch.full((n, n), math.log((size - 1) / (size * (n - 1))), dtype=log_densities.dtype)
    weights.fill_diagonal_(-math.log(size))
    return torch.logsumexp(log_densities + weights.to(log_densities.device), -1)


def batch_mean(log_densities: Tensor) -> Tensor:
    """log of the batch's own mixture, the mean over its n operations: (..., n, n) -> (..., n).

    Minibatch-weighted sampling is this less log M, a constant. Equation: eq-batch-mean. Source: Chen et al. (2018)."""
    return torch.logsumexp(log_densities, -1) - math.log(log_densities.shape[-1])
