"""Collisions of generated operations with a memory of them, and the memory: tables of all M in two factors."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from tvae_lib.fused.arithmetic import arrays_of, compiled, f32, fits, parts, scalar_like, total
from tvae_lib.fused.program import Work, piece
from tvae_lib.fused.terms import Given, probabilities
from tvae_lib.operations import SIZE, TRITS
from tvae_lib.system.collisions import HEAD, TAIL

CODES = 64  # in a task
HALF = -(-TRITS // 2)


@compiled()
def normalised(logits, p):
    """p = softmax(logits), (n, 9, 3)."""
    probabilities(logits, p)
    for n in range(p.shape[0]):
        for j in range(p.shape[1]):
            mass = p[n, j, 0] + p[n, j, 1] + p[n, j, 2]
            for k in range(3):
                p[n, j, k] /= mass


@compiled()
def products(p, first, last, tables):
    """Products of the trits first ... last - 1 of one code, p (9, 3), each combination once, the last trit innermost.

    They end in the last row of `tables`; row i has those of the last i + 1 of the trits at its beginning."""
    for k in range(3):
        tables[0, k] = p[last - 1, k]
    size = 3
    for i in range(1, last - first):
        one, before, out = p[last - 1 - i], tables[i - 1], tables[i]
        for k in range(3):
            for r in range(size):
                out[k * size + r] = one[k] * before[r]
        size *= 3


@compiled()
def products_backward(p, first, last, tables, by_out, by_p):
    """by_p[first:last] from the gradient by the last row of `tables`, which is used up."""
    size = 3 ** (last - first - 1)
    for i in range(last - first - 1, 0, -1):
        one, before, own = p[last - 1 - i], tables[i - 1], by_p[last - 1 - i]
        for k in range(3):
            sum = f32(0)
            for r in range(size):
                sum += by_out[k * size + r] * before[r]
            own[k] = sum
        for r in range(size):
            by_out[r] = one[0] * by_out[r] + one[1] * by_out[size + r] + one[2] * by_out[2 * size + r]
        size //= 3
    for k in range(3):
        by_p[last - 1, k] = by_out[k]


@compiled()
def collisions_kernel(logits, memory, gradient, values, part, low, high):
    """values[part] = the sum over codes [low, high) of the memory's inner product with p(x|z).

    The gradient by these logits is that of M / K times the sum over all."""
    count, scale = high - low, f32(SIZE) / f32(len(logits))
    p = np.empty((count, TRITS, 3), f32)
    normalised(logits[low:high], p)
    heads, tails = np.empty((count, HALF, HEAD), f32), np.empty((count, TRITS - HALF, TAIL), f32)
    head, tail = np.empty((count, HEAD), f32), np.empty((count, TAIL), f32)
    for n in range(count):
        products(p[n], 0, HALF, heads[n])
        products(p[n], HALF, TRITS, tails[n])
        head[n], tail[n] = heads[n, HALF - 1], tails[n, TRITS - HALF - 1]
    by_head, by_tail = np.dot(tail, memory.T), np.dot(head, memory)
    value, by_p = 0.0, np.empty((TRITS, 3), f32)
    for n in range(count):
        own = f32(0)
        for r in range(TAIL):
            own += by_tail[n, r] * tail[n, r]
        value += own
        products_backward(p[n], 0, HALF, heads[n], by_head[n], by_p)
        products_backward(p[n], HALF, TRITS, tails[n], by_tail[n], by_p)
        for j in range(TRITS):
            expected = p[n, j, 0] * by_p[j, 0] + p[n, j, 1] * by_p[j, 1] + p[n, j, 2] * by_p[j, 2]
            for k in range(3):
                gradient[low + n, j, k] = scale * p[n, j, k] * (by_p[j, k] - expected)
    values[part] = value


@compiled()
def remember_kernel(memory, logits, alpha, out):
    """`collisions.remember`."""
    count = len(logits)
    p = np.empty((count, TRITS, 3), f32)
    normalised(logits, p)
    heads, tails = np.empty((HALF, HEAD), f32), np.empty((TRITS - HALF, TAIL), f32)
    head, tail = np.empty((count, HEAD), f32), np.empty((count, TAIL), f32)
    for n in range(count):
        products(p[n], 0, HALF, heads)
        products(p[n], HALF, TRITS, tails)
        head[n], tail[n] = heads[HALF - 1], tails[TRITS - HALF - 1]
    np.dot(head.T, tail, out)
    share = (f32(1) - alpha[0]) / f32(count)
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            out[r, c] = alpha[0] * memory[r, c] + share * out[r, c]


@piece("(Tensor logits, Tensor memory)")
def collisions(logits, memory) -> Work:
    divided, gradient = parts(len(logits), CODES), torch.empty_like(logits)
    values, (value, place) = np.empty(len(divided), np.float32), scalar_like(logits)
    given = *arrays_of(logits, memory, gradient), values
    tasks = [(collisions_kernel, (*given, i, *part)) for i, part in enumerate(divided)]
    finish = partial(total, values, np.float32(SIZE / len(logits)), np.float32(-1), place)
    return Work([value, gradient], tasks, finish)


@piece("(Tensor memory, Tensor logits, Tensor alpha)")
def remember(memory, logits, alpha) -> Work:
    out = torch.empty_like(memory)
    return Work([out], [(remember_kernel, arrays_of(memory, logits, alpha, out))])


def collisions_twin(logits: Tensor, memory: Tensor):
    known = fits(logits, memory) and memory.shape == (HEAD, TAIL)
    return Given.apply(collisions, logits, memory.detach().contiguous()) if known else NotImplemented


def remember_twin(memory: Tensor, logits: Tensor, alpha):
    if not fits(memory, logits, alpha) or memory.shape != (HEAD, TAIL):
        return NotImplemented
    return remember(memory.contiguous(), logits.detach().contiguous(), alpha)[0]
