"""The same step, faster: recorded once as a tape of tensor operations, and played from there.

A recorded step does the operations of the step itself in the same order, without the work that Python and autograd put
around each of them. On the CPU its results are the same to the last bit."""

import torch
import torch._inductor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves, tree_map


def record(step, example: tuple, compiled: bool = False):
    """`step` as a tape: a callable with the arguments of `step`, for tensors shaped like those of `example`.

    With `compiled`, TorchInductor fuses the operations: faster, but half a minute of compiling or more, and other
    rounding. What the tape returns is for reading and for further steps, not for autograd."""
    with torch.autograd.set_multithreading_enabled(False):  # the backward pass where the recorder sees it
        tape = make_fx(lambda *arguments: step(*arguments))(*example)
    for node in tape.graph.find_nodes(op="call_function", target=torch.ops.aten.detach.default):
        node.replace_all_uses_with(node.args[0])
        tape.graph.erase_node(node)
    tape.recompile()
    return torch.inference_mode()(torch._inductor.compile(tape, list(example)) if compiled else tape)


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
