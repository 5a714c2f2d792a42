"""Chapter 1: the space of ternary operations, small enough to enumerate.

A ternary operation is a function f: Sigma^2 -> Sigma with Sigma = {-1, 0, +1}. Its truth table, read row by
row, is a point x of Sigma^9, and there are M = 3^9 = 19,683 of them.
"""

import itertools
import math
from decimal import Decimal, localcontext

import torch
from torch import Tensor

TRITS = 9  # entries of a truth table
VALUES = 3  # |Sigma|
SIZE = VALUES**TRITS  # M, the number of operations
ENTROPY = TRITS * math.log(VALUES)  # H in nats, the entropy of the uniform distribution on Sigma^9

_PLACES = torch.tensor([VALUES ** (TRITS - 1 - j) for j in range(TRITS)])


def all_operations() -> Tensor:
    """Every operation once, in the order of its index: (M, 9) int8 with values -1, 0, +1.

    Equation: eq-space. Source: Foundations, "The Ternary Operation Space".
    """
    return operation_at(torch.arange(SIZE))


def index_of(operations: Tensor) -> Tensor:
    """Index of each operation: (..., 9) trits -> (...) int64 in 0 ... M - 1, first trit most significant.

    Equation: eq-index. Source: Foundations, "The Ternary Operation Space".
    """
    return ((operations.long() + 1) * _PLACES.to(operations.device)).sum(-1)


def operation_at(index: Tensor) -> Tensor:
    """The operation with each index, the inverse of `index_of`: (...) integers -> (..., 9) int8.

    Raises IndexError where an index is outside 0 ... M - 1.
    Equation: eq-index-inverse. Source: Foundations, "The Ternary Operation Space".
    """
    if index.numel() and (index.min() < 0 or index.max() >= SIZE):
        raise IndexError(f"index runs from {index.min()} to {index.max()}; it must lie in 0 ... {SIZE - 1}")
    digits = index.unsqueeze(-1) // _PLACES.to(index.device) % VALUES
    return (digits - 1).to(torch.int8)


def one_hot(operations: Tensor) -> Tensor:
    """Classes {-1, 0, +1} -> {0, 1, 2} as indicators: (..., 9) trits -> (..., 9, 3) float32.

    Equation: eq-one-hot. Source: Foundations, "Cross-Entropy", conversion.
    """
    return torch.nn.functional.one_hot(operations.long() + 1, VALUES).float()


def expected_coverage(p: Tensor, draws: int) -> float:
    """Expected fraction of operations among N independent draws from p (M,): the mean of 1 - (1 - p(x))^N.

    Equation: eq-expected-coverage. Source: ours.
    """
    return -torch.expm1(draws * torch.log1p(-p.double())).mean().item()


def coverage_deviation(p: Tensor, draws: int) -> float:
    """Standard deviation of the fraction of operations among N independent draws from p (M,), p < 1.

    Two operations are both missed with probability (1 - p - p')^N, which is the product of their own times
    (1 - r r')^N with the odds r = p / (1 - p). The sum over all pairs is a series in N r r', a dozen sums over M.
    Equation: eq-coverage-variance. Source: ours.
    """
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
    Equation: eq-uniform-coverage. Source: ours.
    """
    return -math.expm1(draws * math.log1p(-1 / SIZE))


def split(holdout: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the held-out operations, a random split: two int64 vectors, sorted.

    `holdout` is the fraction held out, in [0, 0.9]; the generator fixes the choice.
    """
    order = torch.randperm(SIZE, generator=generator, device=generator.device)
    held = round(holdout * SIZE)
    return order[held:].sort().values, order[:held].sort().values


def uniform_coverage_deviation(draws: int) -> float:
    """Standard deviation of the fraction of operations that N independent uniform draws hit.

    Equation: eq-coverage-deviation. Source: ours.
    """
    missed = math.exp(draws * math.log1p(-1 / SIZE))  # one given operation
    both = math.exp(draws * math.log1p(-2 / SIZE))  # two given operations
    return math.sqrt(max(0.0, missed / SIZE + (1 - 1 / SIZE) * both - missed**2))


def full_coverage_probability(draws: int) -> float:
    """Probability that N independent uniform draws hit every operation, by inclusion and exclusion.

    Summed with 60 decimal digits, since the terms alternate. Where more than 40 operations are missed on average
    the probability is below e^-40 and 0.0 is returned.
    Equation: eq-full-coverage. Source: ours.
    """
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
    Equation: eq-full-coverage-general. Source: ours.
    """
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


def rarefied(counts: Tensor, draws: int) -> float:
    """Expected fraction of the M operations among N of S draws, given how often each came up in all S: (M,) integers.

    Unbiased for the expected coverage of N new draws, whatever law the S draws are from. ValueError where N > S.
    Equation: eq-rarefied. Source: Hurlbert (1971).
    """
    counts = counts.double()
    total = counts.sum()
    if not 0 <= draws <= total:
        raise ValueError(f"draws is {draws}; it must be from 0 to {int(total)}, the number that was drawn.")
    rest = total - counts
    log_missed = torch.lgamma(rest + 1) - torch.lgamma((rest - draws).clamp(min=0) + 1)
    log_missed += torch.lgamma(total - draws + 1) - torch.lgamma(total + 1)
    return torch.where(rest < draws, 1.0, -torch.expm1(log_missed)).mean().item()


def relabel(operations: Tensor, relabelling: tuple[int, int, int], swap: bool = False) -> Tensor:
    """The same operations with the three values renamed, and the arguments exchanged: (..., 9) -> (..., 9).

    g(a, b) = pi(f(pi^-1 a, pi^-1 b)), or f(pi^-1 b, pi^-1 a) with `swap`; `relabelling` lists pi(-1), pi(0), pi(1).
    Equation: eq-symmetry. Source: ours.
    """
    pi = torch.tensor(relabelling, device=operations.device)
    inverse = pi.argsort()
    table = operations.unflatten(-1, (VALUES, VALUES))[..., inverse, :][..., inverse]
    table = table.transpose(-1, -2) if swap else table
    return pi.to(operations.dtype)[table.long() + 1].flatten(-2)


def symmetries() -> Tensor:
    """What each of the 12 symmetries does to the indices: (12, M) int64, the identity first."""
    everything = all_operations()
    return torch.stack(
        [index_of(relabel(everything, pi, swap)) for pi in itertools.permutations((-1, 0, 1)) for swap in (False, True)]
    )


def named_operations() -> dict[str, Tensor]:
    """Operations that have a name in logic or arithmetic, with -1, 0, +1 for false, unknown, true: name -> (9,)."""
    a, b = (x.flatten() for x in torch.meshgrid(*[torch.tensor([-1, 0, 1], dtype=torch.int8)] * 2, indexing="ij"))
    return {
        "Kleene and": torch.minimum(a, b),
        "Kleene or": torch.maximum(a, b),
        "Kleene implication": torch.maximum(-a, b),
        "Łukasiewicz implication": (1 - a + b).clamp(max=1),
        "Gödel implication": torch.where(a <= b, torch.ones_like(b), b),
        "sum mod 3": (a + b + 1) % 3 - 1,
        "product": a * b,
        "clipped sum": (a + b).clamp(-1, 1),
        "consensus": torch.where(a == b, a, torch.zeros_like(a)),
        "comparison": (a - b).sign(),
        "first argument": a,
        "constant 0": torch.zeros_like(a),
    }
