"""Chapter 1: the space of ternary operations, small enough to enumerate.

A ternary operation is a function f: Sigma^2 -> Sigma with Sigma = {-1, 0, +1}. Its truth table, read row by
row, is a point x of Sigma^9, and there are M = 3^9 = 19,683 of them.
"""

import math

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
