"""Networks of linear layers and ReLUs: a whole chain forwards, and backwards with all its gradients, in one piece."""

import copy
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tvae_lib.fused.arithmetic import ROWS, arrays_of, compiled, f32, fits, parts
from tvae_lib.fused.program import Work, piece
from tvae_lib.operations import VALUES
from tvae_lib.system import vae


@compiled()
def layers_forward_kernel(x, parameters, hidden, widths, source, skip, relu, low, high):
    """A network of linear layers on rows [low, high): output i = act(h W_i' + b_i + h'), h and h' earlier outputs.

    h is output source[i], x where that is -1; h' is output skip[i], nothing where that is -1. `parameters` has W_0,
    b_0, W_1, ... in one row, `hidden` the outputs one after the other."""
    rows, at, begin = x.shape[0], 0, np.cumsum(widths) - widths
    for i in range(widths.size):
        width, s = widths[i], source[i]
        h = x[low:high]
        if s >= 0:
            h = hidden[rows * begin[s] : rows * (begin[s] + widths[s])].reshape(rows, widths[s])[low:high]
        out = hidden[rows * begin[i] : rows * (begin[i] + width)].reshape(rows, width)[low:high]
        size = width * h.shape[1]
        weight, bias = parameters[at : at + size].reshape(width, h.shape[1]), parameters[at + size : at + size + width]
        at += size + width
        np.dot(h, weight.T, out)
        if skip[i] >= 0:
            shortcut = hidden[rows * begin[skip[i]] : rows * (begin[skip[i]] + width)].reshape(rows, width)[low:high]
            out += shortcut
        if relu[i]:
            for r in range(high - low):
                for c in range(width):
                    out[r, c] = max(out[r, c] + bias[c], f32(0))
        else:
            out += bias


@compiled()
def layers_backward_kernel(
    x, parameters, hidden, last, widths, source, skip, relu, slot, dx, by_parts, part, low, high
):
    """Gradients of what `layers_forward_kernel` computed on rows [low, high): dx by x, where it is not empty, and
    by_parts[part], one row like `parameters`, by the parameters.

    `last` has the gradients by the outputs, which are the last layers, in order; slot[i] says where room is for that by
    output i, -1 for those."""
    rows, begin, known = x.shape[0], np.cumsum(widths) - widths, np.zeros(widths.size, np.bool_)
    deltas = np.empty((slot.max() + 1, (high - low) * widths.max()), f32)
    gradient, end, first_output = by_parts[part], parameters.size, widths.size - len(last)
    for i in range(widths.size - 1, -1, -1):
        width, s = widths[i], source[i]
        if slot[i] < 0:
            delta = last[i - first_output][low:high]
        else:
            delta = deltas[slot[i], : (high - low) * width].reshape(high - low, width)
        bias = gradient[end - width : end]
        bias[:] = f32(0)
        if relu[i]:
            out = hidden[rows * begin[i] : rows * (begin[i] + width)].reshape(rows, width)[low:high]
            for r in range(high - low):
                for c in range(width):
                    d = delta[r, c] if out[r, c] > f32(0) else f32(0)
                    delta[r, c] = d
                    bias[c] += d
        else:
            for r in range(high - low):
                for c in range(width):
                    bias[c] += delta[r, c]
        h = x[low:high]
        if s >= 0:
            h = hidden[rows * begin[s] : rows * (begin[s] + widths[s])].reshape(rows, widths[s])[low:high]
        columns = h.shape[1]
        end -= width
        weight = parameters[end - width * columns : end].reshape(width, columns)
        np.dot(delta.T, h, gradient[end - width * columns : end].reshape(width, columns))
        end -= width * columns
        if s >= 0:
            target = deltas[slot[s], : (high - low) * columns].reshape(high - low, columns)
            if known[s]:
                target += np.dot(delta, weight)
            else:
                np.dot(delta, weight, target)
            known[s] = True
        elif dx.size > 0:
            np.dot(delta, weight, dx[low:high])
        if skip[i] >= 0:
            target = deltas[slot[skip[i]], : (high - low) * width].reshape(high - low, width)
            if known[skip[i]]:
                target += delta
            else:
                target[:] = delta
            known[skip[i]] = True


class Structure(NamedTuple):
    """A network of linear layers as `layers_forward_kernel` has it; the layers that no other reads are its outputs."""

    widths: tuple[int, ...]
    source: tuple[int, ...]
    skip: tuple[int, ...]
    relu: tuple[bool, ...]

    @property
    def outputs(self) -> list[int]:
        return [i for i in range(len(self.widths)) if i not in self.source]

    @property
    def slots(self) -> list[int]:
        """Where the backward pass keeps the gradient by each output while it needs it; -1 for the last ones."""
        slots, free = [-1] * len(self.widths), list(range(len(self.widths)))
        for i in reversed(range(len(self.widths))):
            for needed in (self.source[i], self.skip[i]):
                if needed >= 0 and slots[needed] < 0:
                    slots[needed] = free.pop(0)
            if slots[i] >= 0:
                free = sorted([*free, slots[i]])
        return slots


@lru_cache
def structure_arrays(structure: Structure) -> list[np.ndarray]:
    return [np.array(values, np.int64) for values in structure]


def _layers(hidden: Tensor, rows: int, structure: Structure) -> list[Tensor]:
    """Views of what each layer put into `hidden`."""
    return [part.view(rows, -1) for part in hidden.split([rows * width for width in structure.widths])]


@piece("(Tensor x, Tensor parameters, int[] widths, int[] source, int[] skip, int[] relu)")
def layers_forward(x, parameters, *of_structure) -> Work:
    structure = Structure(*map(tuple, of_structure))
    hidden = x.new_empty(len(x) * sum(structure.widths))
    given = x.numpy(), parameters.numpy(), hidden.numpy(), *structure_arrays(structure)
    tasks = [(layers_forward_kernel, (*given, *part)) for part in parts(len(x), ROWS)]
    layers = _layers(hidden, len(x), structure)
    return Work([hidden, *(layers[i] for i in structure.outputs)], tasks)


@piece(
    "(Tensor x, Tensor parameters, Tensor hidden, Tensor[] gradients, int[] widths, int[] source, int[] skip,"
    " int[] relu, bool inner)"
)
def layers_backward(x, parameters, hidden, gradients, *structure_and_inner) -> Work:
    *of_structure, inner = structure_and_inner
    structure = Structure(*map(tuple, of_structure))
    dx = x.new_empty(x.shape if inner else (0, 0))
    divided = parts(len(x), ROWS)
    by_parts = x.new_empty((len(divided), len(parameters)))
    arrays = *arrays_of(x, parameters, hidden), arrays_of(*gradients), *structure_arrays(structure)
    rest = np.array(structure.slots), *arrays_of(dx, by_parts)
    tasks = [(layers_backward_kernel, (*arrays, *rest, i, *part)) for i, part in enumerate(divided)]
    return Work([dx, by_parts], tasks)


class Network(torch.autograd.Function):
    @staticmethod
    def forward(ctx, structure: Structure, x: Tensor, parameters: Tensor):
        hidden, *outputs = layers_forward(x, parameters, *structure)
        ctx.structure = structure
        ctx.save_for_backward(x, parameters, hidden)
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        (x, parameters, hidden), inner = ctx.saved_tensors, ctx.needs_input_grad[1]
        whole = [gradient.contiguous() for gradient in gradients]
        dx, by_parts = layers_backward(x, parameters, hidden, whole, *ctx.structure, inner)
        return None, dx if inner else None, by_parts.sum(0)


def logits(outputs: tuple[Tensor]) -> Tensor:
    return outputs[0].unflatten(-1, (-1, VALUES))


# How a module's linear layers, in the order of its parameters, are wired - source, skip, relu - and what they make.
NETWORKS: dict[type[nn.Module], tuple[tuple, Callable]] = {
    vae.Encoder: (
        ((-1, 0, 1, 2, 2), (-1,) * 5, (True, True, True, False, False)),
        lambda outputs: vae.Posterior(*outputs),
    ),
    vae.DecoderA: (((-1, 0, 1), (-1,) * 3, (True, True, False)), logits),
    vae.DecoderB: (((-1, 0, 1, 2, 3, 4), (-1, -1, 0, -1, 2, -1), (True,) * 5 + (False,)), logits),
}
LAST_BLOCK = 4  # the layer of decoder B whose ReLU may be missing


def structure_of(module: nn.Module) -> Structure:
    """The structure of a module that `NETWORKS` has."""
    widths = tuple(layer.out_features for layer in module.modules() if isinstance(layer, nn.Linear))
    source, skip, relu = NETWORKS[type(module)][0]
    if isinstance(module, vae.DecoderB) and not module.last_relu:
        relu = tuple(on and i != LAST_BLOCK for i, on in enumerate(relu))
    return Structure(widths, source, skip, relu)


def size_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def networks(module: nn.Module) -> list[nn.Module]:
    """The networks of a module, in the order of their parameters; ValueError where something else holds some."""
    if type(module) in NETWORKS:
        return [module]
    found = [network for child in module.children() for network in networks(child)]
    if sum(map(size_of, found)) < size_of(module):
        raise ValueError(f"{type(module).__name__} has parameters of its own")
    return found


def stand_in(module: nn.Module, parameters: Iterator[Tensor]):
    """The module as a callable whose networks take their parameters, one vector each, from the iterator."""
    if type(module) in NETWORKS:
        structure, outcome, flat = structure_of(module), NETWORKS[type(module)][1], next(parameters)
        return lambda inputs: outcome(Network.apply(structure, inputs.contiguous(), flat))
    other = copy.copy(module)
    other._modules = {name: stand_in(child, parameters) for name, child in module.named_children()}
    return other


def call(module: nn.Module, flat: Tensor, *arguments):
    try:
        sizes = [size_of(network) for network in networks(module)]
    except ValueError:
        return NotImplemented
    return stand_in(module, iter(flat.split(sizes)))(*arguments) if sizes and fits(flat) else NotImplemented
