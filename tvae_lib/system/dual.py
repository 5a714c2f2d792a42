"""The dual VAE: two pathways, and the stop-gradient injection that couples them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tvae_lib.operations import TRITS
from tvae_lib.system.fusible import fusible
from tvae_lib.system.vae import LAST_RELU, LATENT, VAE, DecoderA, DecoderB, Posterior, reparameterise


class DualOutput(NamedTuple):
    """What one forward pass of the pair yields: posteriors, own codes z, and logits of the codes that were read.

    `partner_A` are decoder A's logits of codes of B, `prior_A` those of codes from the prior; (0, 9, 3) where none."""

    posterior_A: Posterior
    posterior_B: Posterior
    z_A: Tensor
    z_B: Tensor
    logits_A: Tensor
    logits_B: Tensor
    partner_A: Tensor
    partner_B: Tensor
    prior_A: Tensor
    prior_B: Tensor


@fusible
def cross_inject(own: Tensor, other: Tensor, rho: Tensor | float) -> Tensor:
    """The code that a decoder reads: (1 - rho) own + rho sg(other), all (N, d).

    sg is the stop-gradient: nothing flows back into `other`. rho = 0 isolates, 1/2 averages, 1 swaps.
    Equation: eq-injection. Source: Dynamics, "Solution: Stop-Gradient Cross-Injection"."""
    return (1 - rho) * own + rho * other.detach()


def in_turn(decoder: nn.Module, own: Tensor, partner: Tensor, prior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of own codes (N, d), of the partner's (n, d), through which nothing flows back, and of the prior's (K, d).

    One pass of the decoder; n and K may be 0. Equation: eq-in-turn. Source: ours, for Dynamics, "Solution:
    Stop-Gradient Cross-Injection"."""
    read = [codes for codes in (own, partner.detach(), prior) if len(codes)]
    logits = decoder(torch.cat(read) if len(read) > 1 else own)
    return logits.split([len(own), len(partner), len(prior)])


def injected(own: Posterior, other: Posterior, rho: float, tau_own: float, tau_other: float) -> Posterior:
    """The Gaussian of the injected code given x, whose `kl_to_prior` is the honest rate of a coupled pathway: (N, d).

    N((1-rho) mu + rho mu', (1-rho)^2 tau^2 sigma^2 + rho^2 tau'^2 sigma'^2), the partner's parts with a prime.
    Equation: eq-honest. Source: ours."""
    variance = ((1 - rho) * tau_own) ** 2 * own.log_variance.exp() + (rho * tau_other) ** 2 * other.log_variance.exp()
    return Posterior((1 - rho) * own.mean + rho * other.mean, variance.log())


class DualVAE(nn.Module):
    """VAE-A (plain decoder) and VAE-B (residual decoder), coupled by cross-injection.

    50,203 and 117,499 parameters at d = 16 and the nine trits of an operation. Source: Foundations, "Dual-VAE
    Architecture"."""

    def __init__(self, latent: int = LATENT, last_relu: bool = LAST_RELU, trits: int = TRITS):
        super().__init__()
        self.trits = trits
        self.A = VAE(DecoderA(latent, trits), latent, trits)
        self.B = VAE(DecoderB(latent, last_relu=last_relu, trits=trits), latent, trits)

    def forward(self, x: Tensor, noise: Tensor, rho, tau_A, tau_B, turns: int = 0) -> DualOutput:
        """One pass: x (N, 9) trits as floats, noise (2, N + K, d) standard normal, for A and for B.

        With `turns` nothing is injected: each decoder reads its own codes, and after them the partner's codes of so
        many of the operations. The last K rows of the noise are codes from the prior, which each decoder reads, too."""
        n = len(x)
        posterior_A, posterior_B = self.A.encoder(x), self.B.encoder(x)
        z_A = reparameterise(posterior_A, noise[0, :n], tau_A)
        z_B = reparameterise(posterior_B, noise[1, :n], tau_B)
        read_A, read_B = (z_A, z_B) if turns else self.couple(posterior_A, posterior_B, z_A, z_B, rho)
        logits_A, partner_A, prior_A = in_turn(self.A.decoder, read_A, z_B[:turns], noise[0, n:])
        logits_B, partner_B, prior_B = in_turn(self.B.decoder, read_B, z_A[:turns], noise[1, n:])
        logits = logits_A, logits_B, partner_A, partner_B, prior_A, prior_B
        return DualOutput(posterior_A, posterior_B, z_A, z_B, *logits)

    def couple(self, posterior_A: Posterior, posterior_B: Posterior, z_A: Tensor, z_B: Tensor, rho):
        """What the two decoders read, (N, d) each: by `cross_inject`. Other couplings override it."""
        return cross_inject(z_A, z_B, rho), cross_inject(z_B, z_A, rho)
