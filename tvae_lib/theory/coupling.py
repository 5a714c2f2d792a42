"""When a small signal grows in two coupled pathways, and how much of it each of them pays for."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tvae_lib.operations import ENTROPY
from tvae_lib.system.dual import injected
from tvae_lib.system.vae import Posterior, tempered
from tvae_lib.theory.product_codes import START, distortion_and_rate, minimise

ROUNDS = 300  # of best responses, at most


def noise_power(rho: float, tau_own: float, tau_other: float) -> float:
    """nu, the variance of an injected code given x where both posteriors are the prior.
    Equation: eq-noise-power. Source: ours."""
    return ((1 - rho) * tau_own) ** 2 + (rho * tau_other) ** 2


def growth_matrix(rho: float, tau_A: float, tau_B: float, beta_A: float, beta_B: float) -> Tensor:
    """Rates at which small signals (mu_A, mu_B) in one coordinate grow, decoders being the best for them: (2, 2).

    d mu / dt = matrix @ mu. Equation: eq-growth. Source: ours. ValueError where no noise is left, nu = 0."""
    rows = []
    for tau, other in ((tau_A, tau_B), (tau_B, tau_A)):
        nu = noise_power(rho, tau, other)
        if not nu > 0:
            raise ValueError(f"noise power is {nu} at rho = {rho}, tau = {tau_A}, {tau_B}; it must be over 0.")
        rows.append([(1 - rho) ** 2 / nu, rho * (1 - rho) / nu])
    (own_A, from_B), (own_B, from_A) = rows
    return torch.tensor([[own_A - beta_A, from_B], [from_A, own_B - beta_B]], dtype=torch.float64)


def growth_rate(rho: float, tau_A: float, tau_B: float, beta_A: float, beta_B: float) -> float:
    """The larger eigenvalue of `growth_matrix`: collapse is unstable where it is positive.

    Both are real, since the entries off the diagonal have one sign. Equation: eq-growth. Source: ours."""
    matrix = growth_matrix(rho, tau_A, tau_B, beta_A, beta_B)
    half_trace = (matrix[0, 0] + matrix[1, 1]) / 2
    half_gap = (matrix[0, 0] - matrix[1, 1]) / 2
    return (half_trace + (half_gap.square() + matrix[0, 1] * matrix[1, 0]).sqrt()).item()


def critical_beta(rho: float, tau: float, ratio: float = 1.0) -> float:
    """beta_A at which `growth_rate` is zero, with beta_B = ratio beta_A and tau the same for both.

    (1 - rho) / nu where the ratio is 1. Equation: eq-critical. Source: ours."""
    nu = noise_power(rho, tau, tau)
    own, crossed = (1 - rho) ** 2 / nu, rho * (1 - rho) / nu
    half = own * (1 + ratio) / 2
    return (half + math.sqrt(half**2 - ratio * (own**2 - crossed**2))) / ratio


class Share(NamedTuple):
    """What a pathway of coupled product codes carries, in nats.

    What its decoder reads, what its own code says, its rate, and what it would win by another code, symmetric or not.
    """

    posterior: Posterior
    read: float
    own: float
    rate: float
    gain: float


def coupled_cost(own: Posterior, other: Posterior, rho, tau_own, tau_other, beta) -> Tensor:
    """D + beta R of one pathway of nine coupled one-trit codes (3, 1), its decoder being the best for them, in nats.

    The distortion is of the injected code, the rate of the own one. Equation: eq-coupled-cost. Source: ours."""
    distortion, _ = distortion_and_rate(injected(own, other, rho, tau_own, tau_other))
    return distortion + beta * distortion_and_rate(own)[1]


def symmetric(code: Posterior) -> Posterior:
    """The code with -1 and +1 treated alike: means (-m, 0, m), variances (v, v_0, v). Source: ours."""
    mean, log_variance = code
    return Posterior((mean - mean.flip(0)) / 2, (log_variance + log_variance.flip(0)) / 2)


def equilibrium(rho, tau_A, tau_B, beta_A, beta_B, shared: bool = False) -> tuple[Share, Share]:
    """Symmetric codes of A and B each of which minimises its own `coupled_cost` beside the other.

    With `shared` gradients both minimise the sum of the two costs instead. Found by best responses in turn from two
    equal codes. Equation: eq-equilibrium. Source: ours. RuntimeError where they do not settle."""
    start = Posterior(*START.unsqueeze(-1))

    def cost_A(own: Posterior, other: Posterior) -> Tensor:
        return coupled_cost(own, other, rho, tau_A, tau_B, beta_A)

    def cost_B(own: Posterior, other: Posterior) -> Tensor:
        return coupled_cost(own, other, rho, tau_B, tau_A, beta_B)

    def halves(both: Posterior) -> tuple[Posterior, Posterior]:
        first, second = (symmetric(Posterior(*(part[half] for part in both))) for half in (slice(3), slice(3, 6)))
        return first, second

    if shared:
        both = Posterior(*(torch.cat([part, part]) for part in start))
        both = minimise(lambda codes: cost_A(*halves(codes)) + cost_B(*reversed(halves(codes))), both)
        code_A, code_B = halves(both)
    else:
        code_A, code_B = _in_turn(cost_A, cost_B, start)
    found: list[Share] = []
    for own, other, cost, taus in ((code_A, code_B, cost_A, (tau_A, tau_B)), (code_B, code_A, cost_B, (tau_B, tau_A))):
        read, _ = distortion_and_rate(injected(own, other, rho, *taus))
        said, _ = distortion_and_rate(tempered(own, taus[0]))
        rate = distortion_and_rate(own)[1].item()
        lopsided = Posterior(own.mean + torch.tensor([[0.0], [0.2], [0.0]]), own.log_variance)
        better = minimise(lambda code: cost(code, other), lopsided)  # noqa: B023
        gain = (cost(own, other) - cost(better, other)).item()
        found.append(Share(own, ENTROPY - read.item(), ENTROPY - said.item(), rate, gain))
    return found[0], found[1]


def _in_turn(cost_A, cost_B, start: Posterior) -> tuple[Posterior, Posterior]:
    code_A = code_B = start
    for _ in range(ROUNDS):
        before = torch.cat([*code_A, *code_B])
        code_A = symmetric(minimise(lambda code: cost_A(symmetric(code), code_B), code_A))  # noqa: B023
        code_B = symmetric(minimise(lambda code: cost_B(symmetric(code), code_A), code_B))  # noqa: B023
        if (torch.cat([*code_A, *code_B]) - before).abs().max() < 1e-6:
            return code_A, code_B
    raise RuntimeError(f"best responses did not settle in {ROUNDS} rounds.")
