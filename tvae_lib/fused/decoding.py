"""What a decoder generates of prior samples, and what a network makes of its inputs, each in one compiled pass.

Each pass is for one thread."""

import numpy as np
import torch
from torch import Tensor, nn

from tvae_lib.fused.arithmetic import ROWS, arrays_of, bounded, compiled, exponential, f32, fits
from tvae_lib.fused.networks import NETWORKS, layers_forward_kernel, structure_arrays, structure_of
from tvae_lib.operations import VALUES
from tvae_lib.system import vae
from tvae_lib.training import state

LIFT, NEGLIGIBLE = f32(2.0**27), f32(vae.NEGLIGIBLE)  # see measures/generation.py


@compiled()
def softmax_last(logits, p):
    """p[j, k, n] = the probability of value k of trit j in sample n, from logits (n, 3 trits)."""
    rows, trits = len(logits), len(p)
    for j in range(trits):
        low, middle, high = p[j, 0], p[j, 1], p[j, 2]
        for n in range(rows):
            low[n], middle[n], high[n] = logits[n, 3 * j], logits[n, 3 * j + 1], logits[n, 3 * j + 2]
        for n in range(rows):
            top = max(low[n], middle[n], high[n])
            a, b, c = (
                exponential(bounded(low[n] - top)),
                exponential(bounded(middle[n] - top)),
                exponential(bounded(high[n] - top)),
            )
            share = f32(1) / (a + b + c)
            low[n], middle[n], high[n] = a * share, b * share, c * share


@compiled()
def draw_last(p, uniforms, sampled, argmax, rounded):
    """`generation.draw`, `likeliest` and `nearest` of probabilities p (trits, 3, n)."""
    sampled[:] = 0
    argmax[:] = 0
    rounded[:] = 0
    for j in range(len(p)):
        low, middle, high, uniform = p[j, 0], p[j, 1], p[j, 2], uniforms[j]
        for n in range(len(sampled)):
            a, b, c, u = low[n], middle[n], high[n], uniform[n]
            sampled[n] = 3 * sampled[n] + (u >= a) + (u >= a + b)
            argmax[n] = 3 * argmax[n] + (max(b, c) > a) + (c > max(a, b))
            rounded[n] = 3 * rounded[n] + (c - a >= f32(-0.5)) + (c - a > f32(0.5))


@compiled()
def joint_factor(p, out, rows):
    """`vae.joint_factors` of some trits: p (trits, 3, n) -> out (3^trits, n), the first `rows` columns."""
    out[0, :rows], size = f32(1), 1
    for j in range(len(p) - 1, -1, -1):  # the last trit is the innermost digit
        for k in range(2, -1, -1):
            factor = p[j, k]
            for i in range(size):
                source, target = out[i], out[k * size + i]
                for n in range(rows):
                    value = factor[n] * source[n]
                    target[n] = value if value > NEGLIGIBLE else f32(0)
        size *= 3


@compiled()
def generate_kernel(z, parameters, structure, counted, uniforms, sums, squares, sampled, argmax, rounded):
    """What `generation.of_chunk` returns for codes z (n, d), by a decoder of `structure` (see `structure_arrays`).

    Only the first `counted` samples count in the sums and, where there is room for them, the squares."""
    widths, source, skip, relu = structure
    trits, total = widths[-1] // 3, widths.sum()
    half, hidden, p = (trits + 1) // 2, np.empty(ROWS * total, f32), np.empty((trits, 3, ROWS), f32)
    head, tail = np.empty((sums.shape[0], ROWS), f32), np.empty((sums.shape[1], ROWS), f32)
    sums[:] = f32(0)
    squares[:] = f32(0)
    for low in range(0, len(z), ROWS):
        rows = min(ROWS, len(z) - low)
        layers_forward_kernel(z[low : low + rows], parameters, hidden, widths, source, skip, relu, 0, rows)
        softmax_last(hidden[rows * (total - widths[-1]) : rows * total].reshape(rows, widths[-1]), p)
        if len(sampled):
            high = low + rows
            draw_last(p, uniforms[:, low:high], sampled[low:high], argmax[low:high], rounded[low:high])
        if low >= counted:
            continue
        rows = min(rows, counted - low)
        joint_factor(p[:half], head, rows)
        joint_factor(p[half:], tail, rows)
        if rows < ROWS:
            head[:, rows:] = f32(0)
            tail[:, rows:] = f32(0)
        sums += np.dot(head, tail.T)
        if squares.size > 0:
            for factor in (head, tail):
                lifted = factor.reshape(factor.size)
                for i in range(lifted.size):
                    lifted[i] = (LIFT * lifted[i]) * (LIFT * lifted[i])
            squares += np.dot(head, tail.T)


@compiled()
def outputs_kernel(x, parameters, structure, layer, out):
    """Output `layer` of a network of linear layers for inputs x (n, d) -> out (n, width)."""
    widths, source, skip, relu = structure
    before, hidden = widths[:layer].sum(), np.empty(ROWS * widths.sum(), f32)
    for low in range(0, len(x), ROWS):
        rows = min(ROWS, len(x) - low)
        layers_forward_kernel(x[low : low + rows], parameters, hidden, widths, source, skip, relu, 0, rows)
        out[low : low + rows] = hidden[rows * before : rows * (before + widths[layer])].reshape(rows, widths[layer])


Known = tuple[np.ndarray, tuple]


def known(network: nn.Module) -> Known | None:
    """Parameters and structure of a decoder or encoder for the kernels; None where it is none we know."""
    if type(network) not in NETWORKS or not fits(*network.parameters()):
        return None
    return state.flatten(network).numpy(), tuple(structure_arrays(structure_of(network)))


def of_chunk(decoder: Known, z: Tensor, uniforms: Tensor, counted: int, square: bool) -> tuple:
    """`generation.of_chunk` of a `known` decoder in one fused pass."""
    trits = decoder[1][0][-1] // VALUES
    shape = VALUES ** (trits - trits // 2), VALUES ** (trits // 2)
    sums, squares = z.new_empty(shape), z.new_empty(shape if square else (0, 0))
    draws = torch.empty((3, len(z) if len(uniforms) else 0), dtype=torch.int64)
    generate_kernel(z.numpy(), *decoder, counted, *arrays_of(uniforms, sums, squares, *draws))
    return sums, squares, draws


def outputs(network: Known, x: Tensor, layer: int, out: Tensor) -> None:
    """Output `layer` of a `known` network for inputs x (n, d), into `out` (n, width)."""
    outputs_kernel(x.numpy(), *network, layer, out.numpy())
