"""Many runs at once: replicas that differ in nothing but seed and `Controls` train together, step by step.

A replica's step is that of a run of its own to rounding: it has its own data order, noise, schedules, StateNet and
optimiser. What is shared is the pass through the tensor operations, which act on all replicas at once."""

from collections.abc import Callable, Sequence
from operator import attrgetter

import torch
from torch import Tensor, vmap

from tvae_lib.errors import ParameterError
from tvae_lib.system.dual import DualVAE
from tvae_lib.training.config import Config
from tvae_lib.training.state import Controls, Prescribed, Prescription, State, prescribe
from tvae_lib.training.trainer import Step, Trainer

# Whatever shapes the tensors or is not among the controls has to be the same in every replica.
SHARED = (
    *("total_epochs", "batch_size", "holdout", "holdout_by", "latent", "last_relu", "weight_decay", "histogram"),
    *(
        "entropy_of",
        "output_entropy",
        "repelled",
        "statenet_acts",
        "injection",
        "prior_samples",
        "distance",
        "hypergradient",
        "averaging",
    ),
)


def check_alike(configs: Sequence[Config], values: dict[str, Callable[[Config], object]], where: str) -> None:
    """ParameterError, one sentence, where the configurations differ in one of the named values."""
    for name, value in values.items():
        for i, config in enumerate(configs):
            if value(config) != value(configs[0]):
                raise ParameterError(
                    f"{name} is {value(config)!r} in replica {i}; it must be "
                    f"{value(configs[0])!r}, the same in every {where}."
                )


def check_replicas(configs: Sequence[Config]) -> None:
    """ParameterError where the configurations differ in something that replicas must share."""
    check_alike(configs, {name: attrgetter(name) for name in SHARED}, "replica of an ensemble")


def signature(config: Config) -> tuple:
    """What a configuration shares with those that can be replicas beside it."""
    return tuple(getattr(config, name) for name in SHARED)


class EnsembleStep(Step):
    """The step of all replicas: every tensor of state, batch, noise and controls has a first axis R for them."""

    def weights(self, *arguments):
        return vmap(super().weights)(*arguments)

    def terms(self, *arguments):
        return vmap(super().terms)(*(argument for argument in arguments if argument is not None))

    def advance(self, *arguments):
        return vmap(super().advance)(*arguments)


class Ensemble(Trainer):
    """Several configurations on one device, trained together; `stack` makes the state that `epoch` takes.

    Raises ParameterError where the configurations differ in more than seed and controls."""

    def __init__(
        self,
        configs: list[Config],
        device: torch.device | str,
        pair: type[DualVAE] = DualVAE,
        prescribe: Prescription = prescribe,
        data: Tensor | None = None,
    ):
        check_replicas(configs)
        super().__init__(configs[0], device, prescribe, pair, data)
        self.members = [Trainer(config, device, prescribe, data=data) for config in configs]
        for i, member in enumerate(self.members):
            if len(member.held_out) != len(self.held_out):
                raise ParameterError(
                    f"holdout is {configs[i].holdout} and takes {len(member.held_out)} operations in replica {i}; it "
                    f"must take {len(self.held_out)}, the same in every replica of an ensemble."
                )
        self.step = self.take = EnsembleStep(*configs, pair=pair)
        self.threads = []  # fused pieces know no replicas

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

    def prescribed(self, epoch: int) -> Prescribed:
        """What each configuration prescribes in an epoch, (R,) for each control."""
        rows = zip(*(member.prescribed(epoch) for member in self.members), strict=True)
        return Controls(*(torch.stack(row) for row in rows))

    def scheduled(self, state: State, prescribed: Prescribed, epoch: int):
        scheduled = super().scheduled
        return vmap(lambda state, prescribed: scheduled(state, prescribed, epoch))(state, prescribed)

    def steered(self, state: State, controls: Prescribed):
        return vmap(super().steered)(state, controls)

    def taught(self, *arguments):
        return vmap(super().taught)(*arguments)

    def finish(self, *arguments):
        (*tensors, epoch), finish = arguments, super().finish
        return vmap(lambda *stacked: finish(*stacked, epoch))(*tensors)
