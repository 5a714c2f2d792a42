"""The best code for uniform trits, by quadrature, and a decoder written by hand that meets the bound.

Both are product codes: each trit has a latent coordinate of its own, so that one trit is all there is to compute."""

from typing import NamedTuple

import torch
from torch import Tensor

from tvae_lib.operations import TRITS, VALUES
from tvae_lib.system.vae import LATENT, DecoderA, Posterior, kl_to_prior

START = torch.tensor([[-1.0, 0.0, 1.0], [-1.4, -2.4, -1.4]], dtype=torch.float64)  # a code: means, log variances
NODES = 2001  # of the trapezoidal rule on [-9, 9]; twice as many change no digit that the book shows


class Code(NamedTuple):
    """A code of one trit and what nine such trits cost: posterior (3, 1), distortion and rate in nats."""

    posterior: Posterior
    distortion: float
    rate: float


def normal_nodes() -> tuple[Tensor, Tensor]:
    """Nodes and weights with which a sum is the expectation under N(0, 1), float64 (NODES,) each."""
    nodes = torch.linspace(-9, 9, NODES, dtype=torch.float64)
    weights = torch.exp(-0.5 * nodes.square())
    return nodes, weights / weights.sum()


def bayes(z: Tensor, posterior: Posterior) -> Tensor:
    """log q(x_j = k | z), what the best decoder of a one-trit code answers: z (...,) -> (..., 3).
    Equation: eq-bayes. Source: ours."""
    mean, log_variance = (part.squeeze(-1) for part in posterior)
    log_q = -0.5 * ((z.unsqueeze(-1) - mean).square() * torch.exp(-log_variance) + log_variance)
    return torch.log_softmax(log_q, -1)


def distortion_and_rate(posterior: Posterior, decoder=None) -> tuple[Tensor, Tensor]:
    """D and R of nine uniform trits, each with the code N(mean_k, sigma_k^2) for value k: scalars, in nats.

    `decoder` maps z (...,) to log p(k|z) (..., 3); without one it is `bayes`, the best for this code.
    Equation: eq-product-code. Source: ours."""
    nodes, weights = normal_nodes()
    z = posterior.mean + torch.exp(0.5 * posterior.log_variance) * nodes  # (3, nodes)
    log_p = decoder(z) if decoder else bayes(z, posterior)
    distortion = -(log_p.diagonal(dim1=0, dim2=2) * weights.unsqueeze(-1)).sum() / VALUES
    return TRITS * distortion, TRITS * kl_to_prior(posterior).mean()


def optimal_code(beta: float, decoder=None) -> Code:
    """The product code with the least D + beta R, by quasi-Newton descent in mean and variance of each value.

    With `decoder` it is the best for that decoder. ValueError unless 0 < beta <= 0.999999, where rounding allows it.
    Equation: eq-frontier. Source: ours."""
    if not 0 < beta <= 0.999999:
        raise ValueError(f"beta is {beta}; it must be over 0 and at most 0.999999.")

    def cost(posterior: Posterior) -> Tensor:
        distortion, rate = distortion_and_rate(posterior, decoder)
        return distortion + beta * rate

    posterior = minimise(cost, Posterior(*(START * (1 - beta) ** 0.1).unsqueeze(-1)))
    distortion, rate = distortion_and_rate(posterior, decoder)
    return Code(posterior, distortion.item(), rate.item())


def minimise(cost, start: Posterior) -> Posterior:
    """The code, mean and log variance (3, 1), with the least `cost`, by quasi-Newton descent from `start`."""
    parameters = torch.stack(list(start)).detach().clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [parameters], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = cost(Posterior(*parameters))
        loss.backward()
        return loss

    optimiser.step(closure)
    return Posterior(*parameters.detach())


def linear_logits(z: Tensor, slope: float) -> Tensor:
    """Logits (-a z - a c, 0, a z - a c) of one trit, with slope a and c = `offset(a)`: z (...,) -> (..., 3).
    Equation: eq-hand-written. Source: ours."""
    shift = slope * offset(slope)
    return torch.stack([-slope * z - shift, torch.zeros_like(z), slope * z - shift], -1)


def offset(slope: float) -> float:
    """c with which each value has probability 1/3 when z ~ N(0, 1), by bisection. ValueError unless slope > 0.
    Equation: eq-offset. Source: ours."""
    if not slope > 0:
        raise ValueError(f"slope is {slope}; it must be greater than 0.")
    nodes, weights = normal_nodes()
    low, high = 0.0, 10.0 + 10.0 / slope
    for _ in range(200):
        c = (low + high) / 2
        logits = torch.stack([-slope * (nodes + c), torch.zeros_like(nodes), slope * (nodes - c)], -1)
        middle = (torch.softmax(logits, -1)[:, 1] * weights).sum().item()
        low, high = (c, high) if middle < 1 / VALUES else (low, c)
    return c


def hand_written(slope: float) -> DecoderA:
    """A decoder A whose trit j reads the coordinate z_j alone, through `linear_logits`: KL(U||p) is 0 to rounding.

    A pair of rectifiers carries each coordinate, z = ReLU(z) - ReLU(-z), through both hidden layers.
    Equation: eq-hand-written. Source: ours."""
    decoder = DecoderA(LATENT)
    first, second, last = (layer for layer in decoder.body if isinstance(layer, torch.nn.Linear))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
        for j in range(TRITS):
            first.weight[2 * j, j], first.weight[2 * j + 1, j] = 1, -1
            for unit, sign in ((2 * j, slope), (2 * j + 1, -slope)):
                second.weight[unit, unit] = 1
                last.weight[VALUES * j, unit], last.weight[VALUES * j + 2, unit] = -sign, sign
            last.bias[VALUES * j] = last.bias[VALUES * j + 2] = -slope * offset(slope)
    return decoder
