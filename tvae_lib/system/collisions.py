"""Collisions: how often two independent operations are the same one. Output entropy and repulsion, of whole operations.

Of a generator p they come up with probability sum p(x)^2, at least 1/M, and no more than that for the uniform one
alone. M times the probability, less one, is chi^2(p || U), about twice KL(p || U) near it."""

import torch
from torch import Tensor

from tvae_lib.operations import TRITS, VALUES
from tvae_lib.system.fusible import fusible
from tvae_lib.system.vae import joint_factors

HEAD, TAIL = 3**5, 3**4  # combinations of the first five trits, and of the other four
ALPHA_MEMORY = 0.998  # of the moving average that is the memory


def uniform_memory(trits: int = TRITS) -> Tensor:
    """The memory before the first step, 1/M for every operation: (HEAD, TAIL). It pushes nothing."""
    head, tail = VALUES ** -(-trits // 2), VALUES ** (trits // 2)
    return torch.full((head, tail), 1 / (head * tail))


@fusible
def collisions(logits: Tensor, memory: Tensor) -> Tensor:
    """M sum_x m(x) p-bar(x) - 1 for a memory m (HEAD, TAIL) and logits of K prior codes (K, 9, 3): a scalar.

    p-bar is the mean of p(x|z) over the codes, in which it is linear: the estimate and its gradient are unbiased. 0
    where the memory is uniform. Equation: eq-collisions. Source: ours, for Foundations, "Output Entropy" and "Repulsion
    Loss"."""
    head, tail = joint_factors(torch.softmax(logits.movedim(0, -1), -2))
    return memory.numel() / len(logits) * ((memory.detach() @ tail) * head).sum() - 1


@fusible
def remember(memory: Tensor, logits: Tensor, alpha: Tensor | float = ALPHA_MEMORY) -> Tensor:
    """The memory after K more codes, alpha m + (1 - alpha) p-bar: logits (K, 9, 3) -> (HEAD, TAIL).
    Equation: eq-memory. Source: ours."""
    head, tail = joint_factors(torch.softmax(logits.detach().movedim(0, -1), -2))
    return alpha * memory + (1 - alpha) / len(logits) * (head @ tail.T)


def collision_excess(logits: Tensor) -> Tensor:
    """chi^2(p || U) from K prior codes alone: M times the mean of sum_x p(x|z_i) p(x|z_j) over i != j, less one.

    (K, 9, 3) -> scalar, without bias. A pair's sum over the operations is a product over the trits, prod_j sum_k p_ijk
    p_i'jk: nine Gram matrices, and nothing has M entries. Equation: eq-collision-pairs. Source: ours."""
    p = torch.softmax(logits, -1).movedim(1, 0)  # (9, K, 3)
    pairs = (p @ p.mT).prod(0)
    count = len(logits)
    size = float(logits.shape[-1] ** logits.shape[-2])
    return size * (pairs.sum() - pairs.diagonal().sum()) / (count * (count - 1)) - 1
