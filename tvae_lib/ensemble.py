"""Many runs at once: replicas that differ in nothing but seed and `Controls` train together, step by step.

A replica's step is that of a run of its own to rounding: it has its own data order, noise, schedules, StateNet and
optimiser. What is shared is the pass through the tensor operations, which act on all replicas at once.
"""

import torch
from torch import Tensor, vmap

from tvae_lib import replay
from tvae_lib.config import Config, ParameterError
from tvae_lib.dual import DualVAE
from tvae_lib.training import Controls, Prescription, State, Step, Trainer, initial_state, prescribe

CPU_REPLICAS = 2  # in an ensemble on a CPU; 3 took longer a replica, 4 no less
# Whatever shapes the tensors or is not among the controls has to be the same in every replica.
SHARED = ("total_epochs", "batch_size", "holdout", "latent", "weight_decay")


def check(configs: list[Config]) -> None:
    """ParameterError, one sentence, where the configurations differ in something that replicas must share."""
    for name in SHARED:
        for i, config in enumerate(configs):
            if getattr(config, name) != getattr(configs[0], name):
                raise ParameterError(
                    f"{name} is {getattr(config, name)!r} in replica {i}; it must be "
                    f"{getattr(configs[0], name)!r}, the same in every replica of an ensemble."
                )


class EnsembleStep(Step):
    """The step of all replicas: every tensor of state, batch, noise and controls has a first axis R for them."""

    def loss(self, *arguments):
        return vmap(super().loss)(*arguments)

    def advance(self, *arguments):
        return vmap(super().advance)(*arguments)


class Ensemble(Trainer):
    """Several configurations on one device, trained together; `stack` makes the state that `epoch` takes.

    Raises ParameterError where the configurations differ in more than seed and controls.
    """

    def __init__(
        self,
        configs: list[Config],
        device: torch.device | str,
        pair: type[DualVAE] = DualVAE,
        prescribe: Prescription = prescribe,
    ):
        check(configs)
        super().__init__(configs[0], device)
        self.members = [Trainer(config, device, prescribe) for config in configs]
        self.step = self.take = EnsembleStep(*configs, pair=pair)
        self.compiles = self.device.type == "cpu" and replay.can_compile()

    def stack(self, states: list[State]) -> State:
        """The states of the replicas as one, each tensor with a first axis R; ValueError if at different epochs."""
        epochs = sorted({int(state["epoch"]) for state in states})
        if len(epochs) > 1:
            raise ValueError(f"the replicas are at epochs {epochs}; an ensemble goes through the same epoch together")
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}

    def unstack(self, state: State) -> list[State]:
        """The state of each replica, as a run of its own has it."""
        return [{name: tensor[i] for name, tensor in state.items()} for i in range(len(self.members))]

    def drawn(self, epoch: int) -> tuple[Tensor, Tensor]:
        """What each run draws in an epoch as in `Trainer.drawn`, with the axis R after that of the steps."""
        chosen, noise = zip(*(member.drawn(epoch) for member in self.members), strict=True)
        return torch.stack(chosen, 1), torch.stack(noise, 1)

    def prescribed(self, epoch: int) -> Controls:
        """What each configuration prescribes in an epoch, (R,) for each control."""
        rows = zip(*(member.prescribed(epoch) for member in self.members), strict=True)
        return Controls(*(torch.stack(row) for row in rows))

    def begin(self, state: State, prescribed: Controls, epoch: int):
        return vmap(lambda *arguments: super(Ensemble, self).begin(*arguments, epoch))(state, prescribed)

    def finish(self, *arguments):
        *tensors, epoch = arguments
        return vmap(lambda *stacked: super(Ensemble, self).finish(*stacked, epoch))(*tensors)


def train(configs: list[Config], device: torch.device | str, epochs: int) -> list[State]:
    """Train every configuration for some epochs; the states, in the order of the configurations.

    Raises ParameterError where the configurations differ in more than seed and controls, or epochs is out of range.
    """
    return [state for _, state in progress(configs, device, (epochs,))]


def progress(
    configs: list[Config],
    device: torch.device | str,
    stops: tuple[int, ...],
    pair: type[DualVAE] = DualVAE,
    prescribe: Prescription = prescribe,
    start: list[State] | None = None,
):
    """Train every configuration, and yield (its place in the list, its state) after each number of epochs in `stops`.

    On a GPU all of them are one ensemble; on a CPU they go through in small ones, which share one recorded step.
    `pair` is the class of the two VAEs, where they are not to be coupled as in `DualVAE`; `prescribe` says what each
    epoch prescribes; `start` holds the states, all at one epoch, from which to go on.
    Raises ParameterError where the configurations differ in more than seed and controls, or a stop is out of range.
    """
    if not configs:
        return
    check(configs)
    first = int(start[0]["epoch"]) if start else 0
    if not first < min(stops) <= max(stops) <= configs[0].total_epochs:
        raise ParameterError(
            f"epochs is {', '.join(map(str, stops))}; it must be a whole number "
            f"from {first + 1} to {configs[0].total_epochs}."
        )
    device = torch.device(device)
    size = CPU_REPLICAS if device.type == "cpu" else len(configs)
    places = list(range(len(configs)))
    groups = [places[i : i + size] for i in range(0, len(configs), size)]
    recorded = {}
    for group in groups:
        ensemble = Ensemble([configs[i] for i in group], device, pair, prescribe)
        state = ensemble.stack([start[i] if start else initial_state(configs[i], device) for i in group])
        kind = (len(group), ensemble.step.used, ensemble.step.resting)
        if kind not in recorded:
            ensemble.hasten(state, (max(stops) - first) * len(groups))
            recorded[kind] = ensemble.take
        ensemble.take = recorded[kind]
        for epoch in range(first, max(stops)):
            state = ensemble.epoch(state)
            if epoch + 1 in stops:
                yield from zip(group, ensemble.unstack(state), strict=True)


def finished(configs: list[Config], device: torch.device | str, pair: type[DualVAE] = DualVAE):
    """As `progress`, with the end of the run as its only stop; nothing where there is no configuration."""
    return progress(configs, device, (configs[0].total_epochs,), pair) if configs else []
