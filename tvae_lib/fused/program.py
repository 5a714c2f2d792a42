"""A recorded step on a CPU: its memory laid out once, its pieces done together, their tasks shared by threads."""

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves, tree_unflatten

from tvae_lib.training.recording import Tape
from tvae_lib.training.threads import Task, Team


class Work(NamedTuple):
    """What a piece of a program does each time: independent tasks, then `finish`. Outputs stay where they are."""

    outputs: list[Tensor]
    tasks: Sequence[Task]
    finish: Callable[[], object] | None = None


class Operator(NamedTuple):
    """`prepare(*tensors) -> Work`; the arguments numbered in `overwrites` are changed in place, and come out first.

    What is `small` is not worth another thread."""

    prepare: Callable[..., Work]
    overwrites: tuple[int, ...]
    small: bool


PIECES: dict[Callable, Operator] = {}  # by the operator that stands for the piece in a tape
_library = torch.library.Library("tvae", "DEF")


def piece(schema: str, overwrites: tuple[int, ...] = (), small: bool = False):
    """Make a function, tensors -> Work, an operator of torch that a tape can hold, and a piece of its programs."""

    def define(prepare: Callable[..., Work]) -> Callable:
        def whole(*arguments):
            work = prepare(*(a.clone() if i in overwrites else a for i, a in enumerate(arguments)))
            for function, given in work.tasks:
                function(*given)
            if work.finish:
                work.finish()
            return work.outputs

        _library.define(f"{prepare.__name__}{schema} -> Tensor[]")
        _library.impl(prepare.__name__, whole, "CPU")
        found = getattr(torch.ops.tvae, prepare.__name__).default
        PIECES[found] = Operator(prepare, overwrites, small)
        return found

    return define


def piece_of(node: fx.Node) -> Operator:
    target: Any = node.target
    return PIECES[target]


def writing(target, arguments: tuple, options: dict, out: Tensor) -> Callable[[], object]:
    """An operation of a tape as a call that puts what it returns into `out`."""
    packet = target.overloadpacket
    variants = getattr(torch, packet.__name__, None), getattr(packet, f"{target._overloadname}_out", None)
    for function in (*variants, getattr(packet, "out", None)):
        call = partial(function or torch.empty, *arguments, **options, out=out)
        try:
            if call() is out:
                return call
        except (TypeError, RuntimeError):  # one with other arguments
            pass
    return lambda: out.copy_(target(*arguments, **options))


class Program:
    """A tape on a CPU, its memory laid out once: `program(*arguments)` returns what the tape does.

    Views are taken when it is made; operations write where their results belong; pieces that do not need each other
    are done together, their tasks shared by the threads of `team`. Scalars that a call does not change are its
    settings: what depends on them alone is done when they are others. Results are overwritten by the next call, and so
    is the state, the first argument, where it is the one that the last call returned."""

    @torch.inference_mode()
    def __init__(self, tape: Tape, example: tuple, team: Team):
        self.team, self.results = team, tape.results
        self.inputs = [leaf.clone() for leaf in tree_leaves(example)]
        nodes = list(tape.module.graph.nodes)
        placeholders = [node for node in nodes if node.op == "placeholder"]
        carried, outputs = len(tree_leaves(example[0])), nodes[-1].args[0]  # the state comes first in both
        self.settings = {
            i
            for i, node in enumerate(placeholders)
            if (self.inputs[i].dim() == 0 if i >= carried else outputs[i] is node)
        }
        sizes = [len(tree_leaves(argument)) for argument in example]
        self.starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self.settled_arguments = [
            self.settings.issuperset(range(start, start + size)) for start, size in zip(self.starts, sizes, strict=True)
        ]
        self.last: list[object] = [None] * len(sizes)
        self.settled = {placeholders[i] for i in self.settings}  # nodes that depend on settings alone
        self.at_settings: list[Callable[[], object]] = []
        self.calls: list[Callable[[], object]] = []
        self.values: dict[fx.Node, Any] = dict(zip(placeholders, self.inputs, strict=True))
        for node in nodes:
            if node.op == "get_attr":  # a constant
                self.values[node] = getattr(tape.module, str(node.target))
                self.settled.add(node)
        waiting = [node for node in nodes if node not in self.values]
        while waiting:
            left = [node for node in waiting if not self.add(node)]
            ready = [node for node in left if node.target in PIECES and self.is_ready(node)]
            group = [node for node in ready if piece_of(node).small] or ready
            waiting = [node for node in left if node not in group]
            self.add_pieces(group, waiting)
        self.carry_on(carried)
        del self.values, self.settled

    def carry_on(self, carried: int) -> None:
        """At the end of a call put the new state where the old one lies."""
        places = self.inputs[:carried]
        moved = [(place, value) for place, value in zip(places, self.outputs, strict=False) if place is not value]
        for i, (_, value) in enumerate(moved):
            if any(shares(value, place) for place in places):  # another part of the state: keep it until all are read
                kept = value.clone()
                self.calls.append(partial(kept.copy_, value))
                moved[i] = moved[i][0], kept
        self.calls += [partial(place.copy_, value) for place, value in moved]
        self.outputs[:carried] = places

    def given_to(self, arguments) -> Any:
        """Arguments of a node, with values in the place of other nodes."""
        return fx.map_arg(arguments, self.values.__getitem__)

    def is_ready(self, node: fx.Node) -> bool:
        return all(needed in self.values for needed in node.all_input_nodes)

    def add(self, node: fx.Node) -> bool:
        """Add a node that is ready and no piece; whether it was."""
        if not self.is_ready(node) or node.target in PIECES:
            return False
        arguments, options = self.given_to(node.args), self.given_to(node.kwargs)
        target: Any = node.target
        if node.op == "output":
            self.outputs = list(arguments[0])
            return True
        value = self.values[node] = target(*arguments, **options)
        settled = self.settled.issuperset(node.all_input_nodes)
        if settled:
            self.settled.add(node)
        if target is operator.getitem:
            return True
        calls, schema = self.at_settings if settled else self.calls, target._schema
        if schema.is_mutable:
            calls.append(partial(target, *arguments, **options))
        elif schema.returns[0].alias_info is None:  # no view
            calls.append(writing(target, arguments, options, value))
        return True

    def add_pieces(self, group: list[fx.Node], later: list[fx.Node]) -> None:
        """Add pieces to be done together; what one of them changes in place is copied before, if it is still needed."""
        needed = [self.values[node] for other in later for node in other.all_input_nodes if node in self.values]
        works = []
        for node in group:
            arguments, piece = list(self.given_to(node.args)), piece_of(node)
            for i in piece.overwrites:
                if any(shares(arguments[i], value) for value in tree_leaves(needed)):
                    original, arguments[i] = arguments[i], arguments[i].clone()
                    self.calls.append(partial(arguments[i].copy_, original))
            works.append(piece.prepare(*arguments))
            self.values[node] = works[-1].outputs
        tasks = [task for work in works for task in work.tasks]
        if all(piece_of(node).small for node in group):
            self.calls += [partial(function, *arguments) for function, arguments in tasks]
        else:
            self.calls.append(partial(self.team.run, tasks))
        self.calls += [work.finish for work in works if work.finish]

    @torch.inference_mode()
    def __call__(self, *arguments):
        changed = False
        for number, argument in enumerate(arguments):
            if self.settled_arguments[number] and argument is self.last[number]:
                continue
            self.last[number] = argument
            for i, value in enumerate(tree_leaves(argument), self.starts[number]):
                if self.inputs[i] is not value:
                    self.inputs[i].copy_(value)
                    changed = changed or i in self.settings
        with self.team:
            for call in self.at_settings if changed else ():
                call()
            for call in self.calls:
                call()
        return tree_unflatten(self.outputs, self.results)


def shares(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors lie in the same memory."""
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
