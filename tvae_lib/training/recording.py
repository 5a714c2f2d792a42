"""The same step, faster: recorded once as a tape of tensor operations, and played from there.

A recorded step does the operations of the step itself in the same order, without the work that Python and autograd put
around each of them. On the CPU its results are the same to the last bit. With fused pieces (`tvae_lib.fused`) it is
faster still, and the same to rounding."""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from types import ModuleType

import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from tvae_lib.training.threads import Team


class Tape:
    """`step` as a recorded tape: a callable with its arguments, for tensors shaped like those of `example`.

    What it returns is for reading and for further steps, not for autograd."""

    def __init__(self, step, example: tuple):
        leaves, arguments = tree_flatten(example)

        def flat(*leaves):
            results, self.results = tree_flatten(step(*tree_unflatten(leaves, arguments)))
            return results

        with torch.autograd.set_multithreading_enabled(False):  # the backward pass where the recorder sees it
            self.module = make_fx(flat)(*leaves)
        for node in self.module.graph.find_nodes(op="call_function", target=torch.ops.aten.detach.default):
            node.replace_all_uses_with(node.args[0])
            self.module.graph.erase_node(node)
        self.module.graph.eliminate_dead_code()
        self.module.recompile()

    @torch.inference_mode()
    def __call__(self, *arguments):
        return tree_unflatten(self.module(*tree_leaves(arguments)), self.results)


def recorded(step, example: tuple, threads: Sequence[int] = ()) -> tuple[Callable, str]:
    """`step` as fast as it can be taken where `example` is, and what that is: a "CUDA graph" on a GPU.

    On a CPU it is "fused" where there is Numba, with one of the given numbers of threads; with none, or without Numba,
    it is "recorded"."""
    tensor = tree_leaves(example)[0]
    if tensor.device.type == "cuda":
        return CudaGraph(Tape(step, example), example), "CUDA graph"
    if threads and (twins := fused("twins")):
        return twins.program(step, example, Team(threads)), "fused"
    return Tape(step, example), "recorded"


def fused(module: str) -> ModuleType | None:
    """A module of the package of fused pieces, which takes a second to load; None where Numba is missing."""
    return importlib.import_module(f"tvae_lib.fused.{module}") if importlib.util.find_spec("numba") else None


class CudaGraph:
    """`tape` as one launch on the GPU: `graph(*arguments)` copies them to fixed places, replays, copies results out."""

    def __init__(self, tape, example: tuple):
        self.arguments = tree_map(torch.clone, example)
        with torch.cuda.device(tree_leaves(example)[0].device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    tape(*self.arguments)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=side):
                self.results = tape(*self.arguments)

    def __call__(self, *arguments):
        tree_map(lambda place, value: place.copy_(value), self.arguments, arguments)
        self.graph.replay()
        return tree_map(torch.clone, self.results)
