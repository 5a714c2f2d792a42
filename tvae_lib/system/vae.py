"""The variational autoencoder - encoder, the two decoders, reparameterisation, ELBO."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tvae_lib.operations import TRITS, VALUES
from tvae_lib.system.fusible import fusible

LATENT = 16  # d, the number of latent coordinates
LAST_RELU = False  # whether decoder B has a ReLU after its last residual block
NEGLIGIBLE = 1e-17  # a factor of p(x|z) that counts as zero


class Posterior(NamedTuple):
    """Diagonal Gaussian q(z|x): mean and log variance, both (N, d)."""

    mean: Tensor
    log_variance: Tensor


class Encoder(nn.Module):
    """q_phi(z|x): (N, 9) trits as floats -> Posterior with (N, d) mean and log variance.

    Layers 9-256-128-64 with ReLU, then one linear head each; tables of another length have `trits`.
    Source: Foundations, "Standard VAE Formulation"; sizes as published for v5.5."""

    def __init__(self, latent: int = LATENT, trits: int = TRITS):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(trits, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()
        )
        self.mean = nn.Linear(64, latent)
        self.log_variance = nn.Linear(64, latent)

    def forward(self, x: Tensor) -> Posterior:
        features = self.body(x)
        return Posterior(self.mean(features), self.log_variance(features))


class DecoderA(nn.Module):
    """p_theta(x|z) of pathway A: (N, d) -> logits (N, 9, 3). Layers d-32-64-27 with ReLU."""

    def __init__(self, latent: int = LATENT, trits: int = TRITS):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(latent, 32), nn.ReLU(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, trits * VALUES)
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z).unflatten(-1, (-1, VALUES))


class ResidualBlock(nn.Module):
    """h -> act(h + W2 ReLU(W1 h)), biases included: two layers of equal width around a skip connection.

    act is ReLU, or nothing where `relu` is False."""

    def __init__(self, width: int, relu: bool = True):
        super().__init__()
        self.relu = relu
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        out = h + self.second(torch.relu(self.first(h)))
        return torch.relu(out) if self.relu else out


class DecoderB(nn.Module):
    """p_theta(x|z) of pathway B: (N, d) -> logits (N, 9, 3). Layer d-128, two residual blocks, 27 out.

    A ReLU after the first block, and after the second where `last_relu`."""

    def __init__(self, latent: int = LATENT, width: int = 128, last_relu: bool = LAST_RELU, trits: int = TRITS):
        super().__init__()
        self.last_relu = last_relu
        blocks = ResidualBlock(width), ResidualBlock(width, last_relu)
        self.body = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), *blocks, nn.Linear(width, trits * VALUES))

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z).unflatten(-1, (-1, VALUES))


class VAE(nn.Module):
    """An encoder and a decoder; `dual.DualVAE` holds two of these."""

    def __init__(self, decoder: nn.Module, latent: int = LATENT, trits: int = TRITS):
        super().__init__()
        self.encoder = Encoder(latent, trits)
        self.decoder = decoder

    def forward(self, x: Tensor, noise: Tensor, temperature: Tensor | float = 1.0) -> tuple[Posterior, Tensor]:
        """One pass alone, uncoupled: x (N, 9) trits as floats, noise (N, d) -> posterior, logits (N, 9, 3)."""
        posterior = self.encoder(x)
        return posterior, self.decoder(reparameterise(posterior, noise, temperature))


@fusible
def reparameterise(posterior: Posterior, noise: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """z = mu + tau sigma * noise with noise ~ N(0, I): (N, d).

    tau = 1 is the usual sample, tau = 0 the mean, and a negative tau samples like |tau|.
    Equation: eq-temperature. Source: Foundations, "Temperature-Scaled Sampling"."""
    return posterior.mean + temperature * torch.exp(0.5 * posterior.log_variance) * noise


def tempered(posterior: Posterior, temperature: float) -> Posterior:
    """The Gaussian that `reparameterise` draws from at this temperature, N(mu, tau^2 sigma^2).

    Its `kl_to_prior` is the honest rate, that of the codes which the decoder reads. ValueError where tau is 0.
    Equation: eq-tempered. Source: ours."""
    if temperature == 0:
        raise ValueError("temperature is 0; it must not be 0, where codes have no density and an infinite rate.")
    return posterior._replace(log_variance=posterior.log_variance + 2 * math.log(abs(temperature)))


def log_likelihood(logits: Tensor, indicators: Tensor) -> Tensor:
    """log p(x|z), the sum over the nine independent trits, in nats: logits and one-hot (N, 9, 3) -> (N,).
    Equation: eq-likelihood. Source: Foundations, "Cross-Entropy"."""
    log_p = torch.log_softmax(logits.movedim(0, -1), -2)  # batch last: softmax along rows of three is slow
    return (log_p * indicators.movedim(0, -1)).sum((0, 1))


def joint_factors(p: Tensor) -> tuple[Tensor, Tensor]:
    """Products of the trits' probabilities, each combination of values once: (9, 3, n) -> (243, n), (81, n).

    Their outer products, read row by row, are p(x|z) in the order of the operations' index. Factors below 1e-17 are set
    to zero, since their products would be denormal numbers, which are slow. Equation: eq-factors. Source: ours."""
    p = torch.threshold(p, NEGLIGIBLE, 0)

    def product(first: int, last: int) -> Tensor:
        out = p[last - 1]
        for j in range(last - 2, first - 1, -1):  # the last trit is the innermost digit
            out = torch.threshold_((p[j].unsqueeze(1) * out).flatten(0, 1), NEGLIGIBLE, 0)
        return out

    half = -(-len(p) // 2)
    return product(0, half), product(half, len(p))


def kl_to_prior(posterior: Posterior) -> Tensor:
    """KL(q(z|x) || N(0, I)) in nats, the rate of each operation: (N,), never negative.
    Equation: eq-kl. Source: Foundations, "KL Divergence"."""
    mean, log_variance = posterior
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(-1)


@fusible
def mean_kl(posterior: Posterior) -> Tensor:
    """R, the mean over the batch of `kl_to_prior`, in nats: scalar."""
    return kl_to_prior(posterior).mean()


def elbo(logits: Tensor, indicators: Tensor, posterior: Posterior) -> Tensor:
    """log p(x|z) - KL(q(z|x) || p(z)) for one sample z of each posterior: (N,), in nats.

    Its mean over z ~ q is a lower bound of log p(x) when z was drawn at temperature 1.
    Equation: eq-elbo. Source: Foundations, "Standard VAE Formulation"."""
    return log_likelihood(logits, indicators) - kl_to_prior(posterior)
