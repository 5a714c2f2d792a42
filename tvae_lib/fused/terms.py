"""Terms of the loss with their gradients: cross-entropy, output entropy, soft entropy, repulsion."""

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tvae_lib.fused.arithmetic import (
    ROWS,
    arrays_of,
    bounded,
    compiled,
    exponential,
    f32,
    fits,
    parts,
    scalar_like,
    total,
)
from tvae_lib.fused.program import Work, piece
from tvae_lib.system import losses

COORDINATES = 4  # of the codes in a task


@compiled()
def probabilities(logits, p):
    """p = e^(logits - the largest of each three), (n, 9, 3), not yet normalised."""
    rows, trits = logits.shape[:2]
    for n in range(rows):
        for j in range(trits):
            top = max(logits[n, j, 0], logits[n, j, 1], logits[n, j, 2])
            for k in range(3):
                p[n, j, k] = bounded(logits[n, j, k] - top)
    flat = p.reshape(p.size)
    for i in range(flat.size):
        flat[i] = exponential(flat[i])


@compiled()
def cross_entropy_kernel(logits, indicators, gradient, values, part, low, high):
    """values[part] = the sum of -log p(x|z) over rows [low, high); the gradient by these logits is that of the mean."""
    share, total = f32(1 / len(logits)), 0.0
    probabilities(logits[low:high], gradient[low:high])
    for n in range(low, high):
        masses, own = f32(1), f32(0)  # the nine masses multiplied stay below 3^9
        for j in range(logits.shape[1]):
            a, b, c = logits[n, j, 0], logits[n, j, 1], logits[n, j, 2]
            p, x = gradient[n, j], indicators[n, j]
            mass = p[0] + p[1] + p[2]
            masses *= mass
            own += max(a, b, c) - (x[0] * a + x[1] * b + x[2] * c)
            for k in range(3):
                p[k] = (p[k] / mass - x[k]) * share
        total += own + np.log(masses)
    values[part] = total


@compiled()
def output_entropy_kernel(logits, gradient, values):
    """values[j] = the entropy of the batch's mean distribution of trit j; and the gradient of their sum."""
    rows, trits = logits.shape[:2]
    share, mean = f32(1 / rows), np.zeros((trits, 3), f32)
    probabilities(logits, gradient)
    for n in range(rows):
        for j in range(trits):
            p = gradient[n, j]
            mass = p[0] + p[1] + p[2]
            for k in range(3):
                p[k] /= mass
                mean[j, k] += p[k] * share
    logs = np.log(np.maximum(mean, f32(losses.LEAST)))
    for j in range(trits):
        values[j] = -(mean[j] * logs[j]).sum()
    for n in range(rows):
        for j in range(trits):
            p = gradient[n, j]
            expected = p[0] * logs[j, 0] + p[1] * logs[j, 1] + p[2] * logs[j, 2]
            for k in range(3):
                p[k] = -share * p[k] * (logs[j, k] - expected)


@compiled()
def soft_entropy_kernel(z, centres, scale, reach, shift, gradient, values, low, high):
    """values[j] = the soft-histogram entropy of coordinate j, for j in [low, high), and its gradient by these columns.

    `scale` times codes and centres are in units in which the kernel is e^(-u^2).
    Codes beyond `reach` count for nothing."""
    rows, bins = z.shape[0], centres.size
    weights, count = np.empty((bins, rows), f32), np.empty(bins, f32)
    u, slope, inside = np.empty(rows, f32), np.empty(rows, f32), np.empty(rows, f32)
    for j in range(low, high):
        for n in range(rows):
            u[n] = scale * z[n, j]
            slope[n] = f32(0)
            inside[n] = f32(1) if abs(u[n]) <= reach else f32(0)
        for b in range(bins):
            mass, centre, row = f32(0), scale * centres[b], weights[b]
            for n in range(rows):
                t = u[n] - centre
                w = exponential(max(-t * t, f32(-40))) * inside[n]
                row[n] = w
                mass += w
            count[b] = mass
        total = count.sum()
        if total == 0:
            for n in range(rows):
                gradient[n, j] = f32(0)
            values[j] = f32(0)
            continue
        logs = np.log(count / total)
        entropy = -(count / total * logs).sum()
        for b in range(bins):
            g, centre, row = f32(2) * scale * (logs[b] + entropy) / total, scale * centres[b], weights[b]
            for n in range(rows):
                slope[n] += g * (u[n] - centre) * row[n]
        for n in range(rows):
            gradient[n, j] = slope[n]
        values[j] = entropy + shift


@compiled()
def histogram_entropy_kernel(z, reach, width, bins, values):
    """values[j] = the entropy of the histogram of coordinate j, whose bins begin at -reach."""
    rows, columns = z.shape
    for j in range(columns):
        count, total, entropy = np.zeros(bins, np.int64), 0, 0.0
        for n in range(rows):
            place = np.floor((z[n, j] + f32(reach)) / f32(width))
            if place >= 0 and place < bins:
                count[int(place)] += 1
                total += 1
        for b in range(bins):
            if count[b] > 0:
                p = count[b] / total
                entropy -= p * np.log(p / width)
        values[j] = entropy


@compiled()
def repulsion_kernel(z, sigma, gradient, values, part, low, high):
    """values[part] = the sum of exp(-||z_i - z_j||^2 / 2 sigma^2) over i in [low, high) and all j; and the gradient.

    The gradient by these rows is that of the mean over all pairs."""
    rows, columns = z.shape
    codes, halves = np.empty_like(z), np.empty(rows, f32)
    for j in range(rows):
        total = f32(0)
        for c in range(columns):
            code = z[j, c] / sigma[0]
            codes[j, c] = code
            total += code * code
        halves[j] = total * f32(0.5)
    kernel, sums = np.dot(codes[low:high], codes.T), np.empty(high - low, f32)
    for i in range(high - low):
        half, total = halves[low + i], f32(0)
        for j in range(rows):
            k = exponential(min(max(kernel[i, j] - halves[j] - half, f32(-80)), f32(0)))
            kernel[i, j] = k
            total += k
        sums[i] = total
    np.dot(kernel, codes, gradient[low:high])
    factor = f32(2) / (f32(rows) * f32(rows) * sigma[0])
    for i in range(low, high):
        for c in range(columns):
            gradient[i, c] = factor * (gradient[i, c] - codes[i, c] * sums[i - low])
    values[part] = sums.sum()


@compiled()
def combine_kernel(scalars, tensors, out):
    """out = the sum of the tensors, the first of them times a scalar each, (n,)."""
    for term in range(len(tensors)):
        factor, tensor = f32(1), tensors[term]
        if term < len(scalars):
            factor = scalars[term][0]
        if term == 0:
            for i in range(out.size):
                out[i] = factor * tensor[i]
        else:
            for i in range(out.size):
                out[i] += factor * tensor[i]


class Given(torch.autograd.Function):
    """The scalar of an operator, whose gradients by its first inputs were computed with it; none by the others."""

    @staticmethod
    def forward(ctx, operator, *inputs: Tensor):
        value, *gradients = operator(inputs[0].contiguous(), *inputs[1:])
        ctx.save_for_backward(*gradients)
        ctx.others = len(inputs) - len(gradients)
        return value

    @staticmethod
    def backward(ctx, by_value: Tensor):
        return None, *(by_value * gradient for gradient in ctx.saved_tensors), *[None] * ctx.others


@piece("(Tensor logits, Tensor indicators)")
def cross_entropy(logits, indicators) -> Work:
    divided, gradient = parts(len(logits), ROWS), torch.empty_like(logits)
    values, (value, place) = np.empty(len(divided), np.float32), scalar_like(logits)
    given = logits.numpy(), indicators.numpy(), gradient.numpy(), values
    tasks = [(cross_entropy_kernel, (*given, i, *part)) for i, part in enumerate(divided)]
    finish = partial(total, values, np.float32(1 / len(logits)), np.float32(0), place)
    return Work([value, gradient], tasks, finish)


@piece("(Tensor logits)")
def output_entropy(logits) -> Work:
    gradient, values, (value, place) = (
        torch.empty_like(logits),
        np.empty(logits.shape[1], np.float32),
        scalar_like(logits),
    )
    tasks = [(output_entropy_kernel, (*arrays_of(logits, gradient), values))]
    return Work([value, gradient], tasks, partial(total, values, np.float32(1), np.float32(0), place))


@piece("(Tensor z)")
def soft_entropy(z) -> Work:
    scale, width = np.float32(1 / (losses.BIN_WIDTH * math.sqrt(2))), losses.BIN_WIDTH
    centres = np.linspace(-losses.REACH + width / 2, losses.REACH - width / 2, losses.BINS, dtype=np.float32)
    gradient, values, (value, place) = torch.empty_like(z), np.empty(z.shape[1], np.float32), scalar_like(z)
    shift = np.float32(math.log(width))
    given = z.numpy(), centres, scale, np.float32(scale * losses.REACH), shift, gradient.numpy(), values
    tasks = [(soft_entropy_kernel, (*given, *part)) for part in parts(z.shape[1], COORDINATES)]
    return Work([value, gradient], tasks, partial(total, values, np.float32(1), np.float32(0), place))


@piece("(Tensor z)")
def histogram_entropy(z) -> Work:
    values, (value, place) = np.empty(z.shape[1], np.float32), scalar_like(z)
    tasks = [(histogram_entropy_kernel, (z.numpy(), losses.REACH, losses.BIN_WIDTH, losses.BINS, values))]
    return Work([value], tasks, partial(total, values, np.float32(1), np.float32(0), place))


def histogram_entropy_twin(z):
    return histogram_entropy(z.detach().contiguous())[0] if fits(z) else NotImplemented


@piece("(Tensor z, Tensor sigma)")
def repulsion(z, sigma) -> Work:
    divided, gradient = parts(len(z), ROWS // 2), torch.empty_like(z)
    values, (value, place) = np.empty(len(divided), np.float32), scalar_like(z)
    given = z.numpy(), sigma.view(1).numpy(), gradient.numpy(), values
    tasks = [(repulsion_kernel, (*given, i, *part)) for i, part in enumerate(divided)]
    finish = partial(total, values, np.float32(1 / len(z) ** 2), np.float32(0), place)
    return Work([value, gradient], tasks, finish)


@piece("(Tensor[] scalars, Tensor[] tensors)", small=True)
def combine(scalars, tensors) -> Work:
    """The sum of the tensors, the first of them times a scalar each."""
    out = torch.empty_like(tensors[0])
    *flat, place = arrays_of(*(tensor.view(-1) for tensor in (*tensors, out)))
    return Work([out], [(combine_kernel, (arrays_of(*scalars), tuple(flat), place))])


def term(operator):
    return lambda *inputs: Given.apply(operator, *inputs) if fits(*inputs) else NotImplemented
