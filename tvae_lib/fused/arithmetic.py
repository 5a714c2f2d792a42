"""What the compiled loops have in common: how they are compiled, exponentials, and the split of a piece into tasks."""

import functools
from itertools import pairwise

import numba
import numpy as np
import scipy.linalg  # noqa: F401 - loads the BLAS that Numba calls, before its threads are set
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

f32, i32 = np.float32, np.int32
ROWS = 256  # of a batch in a task: a product's full rate, and what they give fits the second cache
compiled = functools.partial(
    numba.njit, nogil=True, cache=True, error_model="numpy", fastmath={"nsz", "arcp", "contract", "afn", "reassoc"}
)
ThreadpoolController().select(internal_api="openblas").limit(limits=1)  # our tasks are what runs in parallel


@compiled(inline="always")
def exponential(x):
    """e^x for float32 x in [-87, 88], to one unit in the last place; unlike np.exp it becomes vector instructions."""
    n = np.floor(x * f32(1.4426950408889634) + f32(0.5))
    f = x - n * f32(0.693359375) + n * f32(2.12194440e-4)  # x - n ln 2, ln 2 in two pieces
    p = f32(1 / 5040)
    for coefficient in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        p = p * f + f32(coefficient)
    return p * i32((i32(n) + i32(127)) << i32(23)).view(f32)  # times 2^n, put together from its bits


@compiled(inline="always")
def bounded(x):
    """x within the range of `exponential`."""
    return min(max(x, f32(-87)), f32(88))


@compiled()
def total(values, factor, shift, out):
    """out = factor times the sum of the values, plus shift."""
    out[0] = values.sum() * factor + shift


def parts(count: int, size: int) -> list[tuple[int, int]]:
    """[low, high) of as many parts of about `size` as `count` holds."""
    number = max(1, count // size)
    ends = [count * i // number for i in range(number + 1)]
    return list(pairwise(ends))


def arrays_of(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    """The tensors as arrays over the same memory, a scalar as an array of one."""
    return tuple(tensor.view(-1).numpy() if tensor.dim() == 0 else tensor.numpy() for tensor in tensors)


def scalar_like(like: Tensor) -> tuple[Tensor, np.ndarray]:
    """A scalar tensor, and the same memory as an array of one."""
    value = like.new_empty(())
    return value, value.view(1).numpy()


def fits(*tensors: object) -> bool:
    return all(isinstance(t, Tensor) and t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
