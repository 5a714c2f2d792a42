"""Which plain function each fused piece stands for, and a step as a program of them."""

import operator
from collections.abc import Callable

import torch
from torch import fx

from tvae_lib.fused import decoding, generated, latents, networks, terms, updates
from tvae_lib.fused.program import Program
from tvae_lib.operations import TRITS
from tvae_lib.system import collisions, dual, losses, vae
from tvae_lib.system.fusible import twins
from tvae_lib.training import state, trainer
from tvae_lib.training.config import PRESETS, make_config
from tvae_lib.training.recording import Tape
from tvae_lib.training.threads import Team

TWINS: dict[Callable, Callable] = {
    state.call: networks.call,
    vae.reparameterise: latents.reparameterise,
    vae.mean_kl: latents.mean_kl,
    dual.cross_inject: latents.cross_inject,
    losses.cross_entropy: terms.term(terms.cross_entropy),
    losses.output_entropy: terms.term(terms.output_entropy),
    losses.soft_entropy: terms.term(terms.soft_entropy),
    losses.histogram_entropy: terms.histogram_entropy_twin,
    losses.repulsion: terms.term(terms.repulsion),
    collisions.collisions: generated.collisions_twin,
    collisions.remember: generated.remember_twin,
    trainer.weigh: updates.weigh_twin,
    trainer.account: updates.account_twin,
    trainer.descend: updates.descend_twin,
}


def terms_of(node: fx.Node, whole: fx.Node) -> list[tuple[fx.Node | None, fx.Node]]:
    """A sum of tensors as (scalar or None, tensor) pairs, as far as nothing else needs the sums within `whole`."""
    shape, parts = whole.meta["val"].shape, [part for part in node.args if isinstance(part, fx.Node)]
    if len(parts) == 2 and not node.kwargs and (node is whole or len(node.users) == 1):
        shapes = [part.meta["val"].shape for part in parts]
        if node.target is torch.ops.aten.add.Tensor and shapes == [shape, shape]:
            return [term for part in parts for term in terms_of(part, whole)]
        if node.target is torch.ops.aten.mul.Tensor and sorted(map(len, shapes)) == [0, len(shape)]:
            scalar, tensor = sorted(parts, key=lambda part: part.meta["val"].dim())
            return [(scalar, tensor)]
    return [(None, node)]


def is_sum_of_rows(node: fx.Node) -> bool:
    return node.target is torch.ops.aten.sum.dim_IntList and tuple(node.args[1:]) == ([0],) and not node.kwargs


def rewrite(graph: fx.Graph) -> None:
    """Make of sums of scaled tensors, and of the sums over parts that `descend` takes, one piece each."""
    aten = torch.ops.aten
    for node in reversed(graph.find_nodes(op="call_function", target=aten.add.Tensor)):
        value = node.meta["val"]
        if node.users and value.dim() > 1 and value.dtype == torch.float32:
            scaled = sorted(terms_of(node, node), key=lambda term: term[0] is None)
            scalars = [scalar for scalar, _ in scaled if scalar is not None]
            if not scalars or not all(tensor.meta["val"].is_contiguous() for _, tensor in scaled):
                continue
            with graph.inserting_before(node):
                sum_of = graph.call_function(terms.combine, (scalars, [tensor for _, tensor in scaled]))
                node.replace_all_uses_with(graph.call_function(operator.getitem, (sum_of, 0)))
        graph.eliminate_dead_code()
    for node in graph.find_nodes(op="call_function", target=updates.descend):
        cat = node.args[4][0].args[0]
        if cat.target is aten.cat.default and all(is_sum_of_rows(part) for part in cat.args[0]):
            node.update_arg(4, [part.args[0] for part in cat.args[0]])
    graph.eliminate_dead_code()


def program(step: Callable, example: tuple, team: Team) -> Program:
    """`step` recorded with fused pieces, for tensors shaped like those of `example` (see `Program`)."""
    with twins(TWINS):
        tape = Tape(step, example)
    rewrite(tape.module.graph)
    return Program(tape, example, team)


def compile_all() -> None:
    """Compile the kernels for this machine, by an epoch of each preset and a few codes: runs find them on disk."""
    for preset in PRESETS:
        one = trainer.Trainer(make_config(preset=preset, device="cpu", holdout=0.9), "cpu")
        begun = state.initial_state(one.config, one.device)
        one.hasten(begun)
        one.epoch(begun)
    z, decoder = torch.zeros(8, vae.LATENT), decoding.known(vae.DecoderA())
    assert decoder
    decoding.of_chunk(decoder, z, torch.zeros(TRITS, 8), 8, True)
    decoding.outputs(decoder, z, 0, torch.empty(8, int(decoder[1][0][0])))
