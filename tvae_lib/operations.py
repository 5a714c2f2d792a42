"""The space of ternary operations, small enough to enumerate.

A ternary operation is a function f: Sigma^2 -> Sigma with Sigma = {-1, 0, +1}. Its truth table, read row by row, is a
point x of Sigma^9, and there are M = 3^9 = 19,683 of them."""

import itertools
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
    Equation: eq-space. Source: Foundations, "The Ternary Operation Space"."""
    return operation_at(torch.arange(SIZE))


def index_of(operations: Tensor) -> Tensor:
    """Index of each operation: (..., 9) trits -> (...) int64 in 0 ... M - 1, first trit most significant.
    Equation: eq-index. Source: Foundations, "The Ternary Operation Space"."""
    return ((operations.long() + 1) * _PLACES.to(operations.device)).sum(-1)


def operation_at(index: Tensor) -> Tensor:
    """The operation with each index, the inverse of `index_of`: (...) integers -> (..., 9) int8.

    Raises IndexError where an index is outside 0 ... M - 1.
    Equation: eq-index-inverse. Source: Foundations, "The Ternary Operation Space"."""
    if index.numel() and (index.min() < 0 or index.max() >= SIZE):
        raise IndexError(f"index runs from {index.min()} to {index.max()}; it must lie in 0 ... {SIZE - 1}")
    digits = index.unsqueeze(-1) // _PLACES.to(index.device) % VALUES
    return (digits - 1).to(torch.int8)


def one_hot(operations: Tensor) -> Tensor:
    """Classes {-1, 0, +1} -> {0, 1, 2} as indicators: (..., 9) trits -> (..., 9, 3) float32.
    Equation: eq-one-hot. Source: Foundations, "Cross-Entropy", conversion."""
    return torch.nn.functional.one_hot(operations.long() + 1, VALUES).float()


HELD_OUT = ("operations", "pairs")  # what `split` draws


def split(holdout: float, generator: torch.Generator, by: str = "operations") -> tuple[Tensor, Tensor]:
    """Indices of the training and of the held-out operations, a random split: two int64 vectors, sorted.

    `holdout` is the fraction held out, in [0, 0.9]; the generator fixes the choice. By "pairs", all operations with a
    certain pair of trit values are, of one pair after another until there are that many: one ninth for each alone.
    Source: ours."""
    wanted, chosen = round(holdout * SIZE), torch.zeros(SIZE, dtype=torch.bool)
    if by == "operations":
        chosen[torch.randperm(SIZE, generator=generator, device=generator.device)[:wanted]] = True
    while chosen.sum() < wanted:
        places = torch.randperm(TRITS, generator=generator)[:2]
        values = torch.randint(-1, 2, (2,), generator=generator)
        chosen |= (all_operations()[:, places] == values).all(1)
    everything = torch.arange(SIZE)
    return everything[~chosen], everything[chosen]


def relabel(operations: Tensor, relabelling: tuple[int, ...], swap: bool = False) -> Tensor:
    """The same operations with the three values renamed, and the arguments exchanged: (..., 9) -> (..., 9).

    g(a, b) = pi(f(pi^-1 a, pi^-1 b)), or f(pi^-1 b, pi^-1 a) with `swap`; `relabelling` lists pi(-1), pi(0), pi(1).
    Equation: eq-symmetry. Source: ours."""
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
