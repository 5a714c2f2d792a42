"""Coverage: which share of the operations independent draws hit, and which operations a decoder holds."""

import math
from decimal import Decimal, localcontext

import torch
from torch import Tensor

from tvae_lib.operations import SIZE


def expected_coverage(p: Tensor, draws: int) -> float:
    """Expected fraction of operations among N independent draws from p (M,): the mean of 1 - (1 - p(x))^N.
    Equation: eq-expected-coverage. Source: ours."""
    return -torch.expm1(draws * torch.log1p(-p.double())).mean().item()


def coverage_deviation(p: Tensor, draws: int) -> float:
    """Standard deviation of the fraction of operations among N independent draws from p (M,), p < 1.

    Two operations are both missed with probability (1 - p - p')^N, which is the product of their own times (1 - r r')^N
    with the odds r = p / (1 - p). The sum over all pairs is a series in N r r', a dozen sums over M.
    Equation: eq-coverage-variance. Source: ours."""
    p = p.double()
    missed = torch.exp(draws * torch.log1p(-p))
    odds = p / (1 - p)
    variance = (missed - missed.square() * torch.exp(draws * torch.log1p(-odds.square()))).sum().item()
    power, binomial = missed.clone(), 1.0
    for k in range(1, draws + 1):
        power *= odds
        binomial *= -(draws - k + 1) / k
        term = binomial * power.sum().item() ** 2
        variance += term
        if abs(term) < 1e-12 * abs(variance):
            break
    return math.sqrt(max(0.0, variance)) / len(p)


def uniform_coverage(draws: int) -> float:
    """Expected fraction of operations that N independent uniform draws hit: 1 - (1 - 1/M)^N.

    No generator whose samples are independent covers more in expectation.
    Equation: eq-uniform-coverage. Source: ours."""
    return -math.expm1(draws * math.log1p(-1 / SIZE))


def uniform_coverage_deviation(draws: int) -> float:
    """Standard deviation of the fraction of operations that N independent uniform draws hit.
    Equation: eq-coverage-deviation. Source: ours."""
    missed = math.exp(draws * math.log1p(-1 / SIZE))  # one given operation
    both = math.exp(draws * math.log1p(-2 / SIZE))  # two given operations
    return math.sqrt(max(0.0, missed / SIZE + (1 - 1 / SIZE) * both - missed**2))


def uniform_full_coverage(draws: int) -> float:
    """Probability that N independent uniform draws hit every operation, by inclusion and exclusion.

    Summed with 60 decimal digits, since the terms alternate. Where more than 40 operations are missed on average the
    probability is below e^-40 and 0.0 is returned. Equation: eq-full-coverage. Source: ours."""
    if SIZE * (1 - uniform_coverage(draws)) > 40:
        return 0.0
    with localcontext() as context:
        context.prec = 60
        total, binomial = Decimal(0), Decimal(1)
        for k in range(SIZE):
            term = binomial * (draws * (1 - Decimal(k) / SIZE).ln()).exp()
            total += term if k % 2 == 0 else -term
            if term < Decimal("1e-30"):
                break
            binomial = binomial * (SIZE - k) / (k + 1)
        return float(total)


def full_coverage(p: Tensor, draws: int) -> float:
    """Probability that N independent draws from p (M,) hit every operation, to about 1e-8; 0.0 where it is less.

    N! times the coefficient of t^N in the product of e^(p(x) t) - 1, by Cauchy's integral over the circle |t| = N.
    Equation: eq-full-coverage-general. Source: ours."""
    p = p.double()
    if not p.min() > 0:
        return 0.0
    # The integrand is a bell of width 1 / sqrt(N), and even: half of it, in steps of half a width.
    span = 9 / math.sqrt(draws) if draws > 100 else math.pi
    angles = torch.linspace(0, span, 2 + int(2 * span * math.sqrt(draws)), dtype=torch.float64)
    turned = torch.polar(torch.ones_like(angles), angles)
    log_hit = torch.stack([torch.log(-torch.expm1(-draws * p * t)).sum() for t in turned])
    integrand = torch.exp(draws * (turned - 1 - 1j * angles) + log_hit).real
    front = math.exp(math.lgamma(draws + 1) + draws - draws * math.log(draws)) / math.pi
    probability = front * torch.trapezoid(integrand, angles).item()
    return probability if probability > 1e-8 else 0.0


def measured_coverage(drawn: Tensor, counts: tuple[int, ...]) -> dict[int, float]:
    """Fraction of the M operations among the first N draws, for each N in `counts`: (n,) index -> {N: fraction}.

    ValueError where there are fewer draws. Equation: eq-coverage. Source: Foundations, "Empirical Validation"."""
    if max(counts) > len(drawn):
        raise ValueError(f"counts has {max(counts)}; it must be at most {len(drawn)}, the number of draws.")
    order = torch.arange(len(drawn), device=drawn.device)
    first_seen = torch.full((SIZE,), max(counts), device=drawn.device)
    first_seen.scatter_reduce_(0, drawn, order, "amin")
    return {n: (first_seen < n).double().mean().item() for n in counts}


def pair_coverage(first: Tensor, second: Tensor, counts: tuple[int, ...]) -> dict[str, dict[int, float]]:
    """Coverage of a pair of generators, from draws (n,) of each: {"half": {N: fraction}, "union": {N: fraction}}.

    Half of N draws from each, the first having the odd one; N draws from each, together.
    Equation: eq-pair-coverage. Source: ours, for Foundations, "Theorem 4"."""
    taken = torch.stack([first, second], 1).flatten()
    found = measured_coverage(taken, tuple(sorted({*counts, *(2 * n for n in counts)})))
    return {"half": {n: found[n] for n in counts}, "union": {n: found[2 * n] for n in counts}}


def expected_pair_coverage(p_first: Tensor, p_second: Tensor, first: int, second: int) -> float:
    """Expected fraction of operations among independent draws, `first` from p_first (M,) and `second` from p_second.
    Equation: eq-expected-pair-coverage. Source: ours."""
    log_missed = first * torch.log1p(-p_first.double()) + second * torch.log1p(-p_second.double())
    return -torch.expm1(log_missed).mean().item()


def is_held(p: Tensor) -> Tensor:
    """Whether a generator holds an operation: it gives it at least half of the uniform probability. (...) -> bool."""
    return p >= 0.5 / SIZE
