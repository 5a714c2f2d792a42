"""Replicas trained together take the steps that runs of their own would take."""

import pytest
import torch

from tvae_lib.errors import ParameterError
from tvae_lib.training.config import make_config
from tvae_lib.training.ensemble import Ensemble
from tvae_lib.training.state import HISTORY, Controls, initial_state
from tvae_lib.training.trainer import Trainer

SMALL = {"device": "cpu", "holdout": 0.9, "total_epochs": 4, "batch_size": 256}


VARIED = [
    {"seed": 1},
    {"seed": 2, "cross_injection": False, "statenet": "off"},
    {"seed": 2, "alpha_rep": 0.5, "sigma_rep": 4.0, "statenet": "hypergradient", "lr": 0.005},
    {"seed": 3, "alpha_ent": 0.0, "alignment": False, "gradient_balance": False, "statenet": "detached"},
    {"seed": 4, "pathways": "B"},
    {"seed": 5, "preset": "bare"},
    {"seed": 6, "gate": "falls", "balance_power": -1.0, "ema": 0.8},
    {"seed": 6, "gate": "open", "balance_power": 0.5, "raw_norms": True, "ema_balanced": 0.9},
]


def in_float64(thing):
    if isinstance(thing, dict):
        return {name: in_float64(part) for name, part in thing.items()}
    if isinstance(thing, tuple):
        parts = map(in_float64, thing)
        return Controls(*parts) if isinstance(thing, Controls) else tuple(parts)
    return thing.double() if thing.is_floating_point() else thing


def precise(trainer):
    """The trainer on its own numbers, in double precision."""
    batches, prescribed = trainer.batches, trainer.prescribed
    trainer.batches = lambda epoch: map(in_float64, batches(epoch))
    trainer.prescribed = lambda epoch: in_float64(prescribed(epoch))
    return trainer


def test_replicas_of_every_kind_train_like_runs_of_their_own(device):
    configs = [make_config(**(SMALL | varied)) for varied in VARIED]
    replicas = precise(Ensemble(configs, device))
    states = [in_float64(initial_state(config, device)) for config in configs]
    together = replicas.stack(states)
    for _ in range(3):
        together = replicas.epoch(together)
    for config, state, mine in zip(configs, states, replicas.unstack(together), strict=True):
        trainer = precise(Trainer(config, device))
        for _ in range(3):
            state = trainer.epoch(state)
        for name in ("theta", "lambdas", "lr", "rho", "gate", "statenet_theta", "norms"):
            torch.testing.assert_close(mine[name], state[name], rtol=1e-7, atol=1e-9, msg=f"{name} of {config}")
        for column, name in enumerate(HISTORY):
            ours, theirs = mine["history"][:3, column], state["history"][:3, column]
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9, msg=f"{name} of {config}")


@pytest.mark.parametrize(
    "reading",
    [
        {"histogram": "hard", "last_relu": False, "repelled": "means"},
        {"entropy_of": "untempered", "output_entropy": "operations"},
        {"preset": "repaired"},
        {"statenet_acts": "step", "output_entropy": "values", "statenet": "hypergradient"},
    ],
    ids=lambda reading: next(iter(reading)),
)
def test_replicas_under_readings_that_shape_the_step_train_like_runs_of_their_own(device, reading):
    configs = [make_config(**(SMALL | reading), seed=seed) for seed in (1, 2)]
    replicas = precise(Ensemble(configs, device))
    together = replicas.stack([in_float64(initial_state(config, device)) for config in configs])
    for _ in range(2):
        together = replicas.epoch(together)
    for config, mine in zip(configs, replicas.unstack(together), strict=True):
        trainer, state = precise(Trainer(config, device)), in_float64(initial_state(config, device))
        for _ in range(2):
            state = trainer.epoch(state)
        for name in ("theta", "lambdas", "lr", "statenet_theta", "averages", "history"):
            torch.testing.assert_close(mine[name], state[name], rtol=1e-7, atol=1e-9, equal_nan=True, msg=name)


def test_gradient_of_a_replica_is_that_of_its_own_run():
    configs = [make_config(**(SMALL | varied)) for varied in VARIED]
    replicas = precise(Ensemble(configs, "cpu"))
    states = [in_float64(initial_state(config, torch.device("cpu"))) for config in configs]
    moment = []
    state, controls = replicas.scheduled(replicas.stack(states), replicas.prescribed(0), 0)
    moment = replicas.step(state, *next(replicas.batches(0)), controls)[0]["moment_1"]
    for config, state, mine in zip(configs, states, moment, strict=True):
        trainer = precise(Trainer(config, "cpu"))
        state, controls = trainer.scheduled(state, trainer.prescribed(0), 0)
        alone = trainer.step(state, *next(trainer.batches(0)), controls)[0]["moment_1"]
        assert (mine - alone).norm() < 1e-12 * alone.norm()  # after one step, a tenth of the gradient


@pytest.mark.parametrize(("name", "value"), [("batch_size", 128), ("latent", 4), ("weight_decay", 0.5)])
def test_replicas_that_cannot_share_a_step_are_refused(name, value):
    configs = [make_config(**SMALL), make_config(**(SMALL | {name: value}))]
    with pytest.raises(ParameterError, match=rf"^{name} is {value} in replica 1; it must be .* ensemble\.$"):
        Ensemble(configs, "cpu")


def test_states_at_different_epochs_are_no_ensemble():
    configs = [make_config(**(SMALL | varied)) for varied in VARIED[:2]]
    replicas = Ensemble(configs, "cpu")
    states = [initial_state(config, replicas.device) for config in configs]
    states[1]["epoch"] = states[1]["epoch"] + 1
    with pytest.raises(ValueError, match=r"at epochs \[0, 1\]"):
        replicas.stack(states)
