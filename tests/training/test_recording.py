"""A recorded step is the step."""

import pytest
import torch

from studies.study import can_compile
from tvae_lib.training.config import make_config
from tvae_lib.training.ensemble import Ensemble
from tvae_lib.training.state import HISTORY, initial_state
from tvae_lib.training.trainer import STEPPED, Trainer

SMALL = {"device": "cpu", "holdout": 0.9, "total_epochs": 4, "batch_size": 256}


@pytest.mark.parametrize("parameters", [{}, {"preset": "corrected"}, {"pathways": "A"}], ids=str)
def test_a_recorded_step_takes_the_same_steps_to_the_last_bit(parameters):
    trainer = Trainer(make_config(**(SMALL | parameters)), "cpu")
    state = plain = initial_state(trainer.config, trainer.device)
    trainer.hasten(state, 3)
    assert trainer.take is trainer.step, "too few epochs to pay"
    for _ in range(3):
        plain = trainer.epoch(plain)
    trainer.hasten(state, 400)
    assert trainer.take is not trainer.step
    for _ in range(3):
        state = trainer.epoch(state)
    assert all(torch.equal(state[name], plain[name]) for name in state if name != "history")
    assert torch.equal(state["history"][:3], plain["history"][:3])


@pytest.mark.skipif(not can_compile(), reason="torch.compile needs a C++ compiler")
def test_a_compiled_ensemble_takes_the_same_steps_to_rounding():
    configs = [make_config(**(SMALL | {"seed": seed})) for seed in (1, 2)]
    replicas = Ensemble(configs, "cpu")
    replicas.compiles = True
    state = plain = replicas.stack([initial_state(config, replicas.device) for config in configs])
    plain = replicas.epoch(plain)
    replicas.hasten(state, 400)
    state = replicas.epoch(state)
    loss = list(HISTORY).index("loss")
    torch.testing.assert_close(state["history"][:, 0, loss], plain["history"][:, 0, loss], rtol=1e-4, atol=0)
    assert set(STEPPED) < set(state)
