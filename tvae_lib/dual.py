"""Chapters 3 and 4: two VAEs, the stop-gradient injection that couples them, the entropy of their codes."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tvae_lib.vae import LATENT, VAE, DecoderA, DecoderB, Posterior, reparameterise

BINS = 50
REACH = 3.0  # the histograms cover [-REACH, REACH]
BIN_WIDTH = 2 * REACH / BINS


class DualOutput(NamedTuple):
    """What one forward pass of the pair yields: posteriors, own codes z, and logits of the injected codes."""

    posterior_A: Posterior
    posterior_B: Posterior
    z_A: Tensor
    z_B: Tensor
    logits_A: Tensor
    logits_B: Tensor


def cross_inject(own: Tensor, other: Tensor, rho: Tensor | float) -> Tensor:
    """The code that a decoder reads: (1 - rho) own + rho sg(other), all (N, d).

    sg is the stop-gradient: nothing flows back into `other`. rho = 0 isolates, 1/2 averages, 1 swaps.
    Equation: eq-injection. Source: Dynamics, "Solution: Stop-Gradient Cross-Injection".
    """
    return (1 - rho) * own + rho * other.detach()


def injected(own: Posterior, other: Posterior, rho: float, tau_own: float, tau_other: float) -> Posterior:
    """The Gaussian of the injected code given x, whose `kl_to_prior` is the honest rate of a coupled pathway: (N, d).

    N((1-rho) mu + rho mu', (1-rho)^2 tau^2 sigma^2 + rho^2 tau'^2 sigma'^2), the partner's parts with a prime.
    Equation: eq-honest. Source: ours.
    """
    variance = ((1 - rho) * tau_own) ** 2 * own.log_variance.exp() + (rho * tau_other) ** 2 * other.log_variance.exp()
    return Posterior((1 - rho) * own.mean + rho * other.mean, variance.log())


class DualVAE(nn.Module):
    """VAE-A (plain decoder) and VAE-B (residual decoder), coupled by cross-injection.

    50,203 and 117,499 parameters at d = 16. Source: Foundations, "Dual-VAE Architecture".
    """

    def __init__(self, latent: int = LATENT):
        super().__init__()
        self.A = VAE(DecoderA(latent), latent)
        self.B = VAE(DecoderB(latent), latent)

    def forward(self, x: Tensor, noise: Tensor, rho, tau_A, tau_B) -> DualOutput:
        """One pass: x (N, 9) trits as floats, noise (2, N, d) standard normal, for A and for B."""
        posterior_A, posterior_B = self.A.encoder(x), self.B.encoder(x)
        z_A = reparameterise(posterior_A, noise[0], tau_A)
        z_B = reparameterise(posterior_B, noise[1], tau_B)
        read_A, read_B = self.couple(posterior_A, posterior_B, z_A, z_B, rho)
        return DualOutput(posterior_A, posterior_B, z_A, z_B, self.A.decoder(read_A), self.B.decoder(read_B))

    def couple(self, posterior_A: Posterior, posterior_B: Posterior, z_A: Tensor, z_B: Tensor, rho):
        """What the two decoders read, (N, d) each: by `cross_inject`. Other couplings override it."""
        return cross_inject(z_A, z_B, rho), cross_inject(z_B, z_A, rho)


def histogram_entropy(z: Tensor) -> Tensor:
    """Differential entropy of a batch of codes, 50 bins on [-3, 3] for each coordinate: (N, d) -> scalar.

    Summed over coordinates, in nats; values outside the range are left out. Piecewise constant in z, so its
    gradient is zero wherever it exists; `soft_entropy` is the version that trains.
    Equation: eq-entropy. Source: Foundations, "Mathematical Formulation", entropy alignment.
    """
    bins = ((z + REACH) / BIN_WIDTH).floor().long()
    inside = (bins >= 0) & (bins < BINS)
    counts = z.new_zeros(z.shape[-1], BINS)
    counts.scatter_add_(1, bins.clamp(0, BINS - 1).T, inside.T.to(z.dtype))
    p = counts / counts.sum(-1, keepdim=True).clamp_min(1)
    return -torch.xlogy(p, p / BIN_WIDTH).sum()


def soft_entropy(z: Tensor) -> Tensor:
    """`histogram_entropy` with each code spread over the bins by a Gaussian one bin wide: (N, d) -> scalar.

    The kernel adds about its own variance (0.12^2) to each coordinate's. Its gradient is given in closed form: with
    g_b = -(log p_b + H_i) / sum_b m_b the derivative of a coordinate's entropy H_i by the mass m_b of a bin, that by
    a code is sum_b g_b times the slope of its kernel at the bin. Exponents are held above -40, since smaller weights
    are denormal numbers, slow and without effect.
    Equation: eq-soft-entropy. Source: ours, for Foundations, "Entropy Alignment".
    """
    scale = 1 / (BIN_WIDTH * math.sqrt(2))
    u = scale * z.detach().T.contiguous().unsqueeze(1)  # (d, 1, N)
    c = scale * torch.linspace(-REACH + BIN_WIDTH / 2, REACH - BIN_WIDTH / 2, BINS, dtype=z.dtype, device=z.device)
    weights = (u - c.unsqueeze(-1)).pow_(2).neg_().clamp_min_(-40).exp_()  # (d, BINS, N)
    masses = weights.sum(-1)
    total = masses.sum(-1, keepdim=True)
    log_p = (masses / total).log()
    entropy = -(masses / total * log_p).sum(-1, keepdim=True)
    g = -(log_p + entropy) / total
    sums = torch.stack([g, g * c], 1) @ weights  # (d, 2, N)
    gradient = -2 * scale * (u.squeeze(1) * sums[:, 0] - sums[:, 1])
    return with_gradient(entropy.sum() + z.shape[-1] * math.log(BIN_WIDTH), z, gradient.T)


def with_gradient(value: Tensor, inputs: Tensor, gradient: Tensor) -> Tensor:
    """The scalar `value`, with `gradient` as its derivative by `inputs`: for terms whose gradient is cheap by hand."""
    return value + ((inputs - inputs.detach()) * gradient).sum()
