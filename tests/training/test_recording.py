"""A recorded step is the step, and a program is the tape that it plays."""

import pytest
import torch
from torch import nn

from tvae_lib.fused import twins, updates
from tvae_lib.fused.program import Program
from tvae_lib.training import recording
from tvae_lib.training.config import make_config
from tvae_lib.training.state import initial_state
from tvae_lib.training.threads import Team
from tvae_lib.training.trainer import Trainer, stepped

SMALL = {"device": "cpu", "holdout": 0.9, "total_epochs": 4, "batch_size": 256}


@pytest.mark.parametrize("parameters", [{}, {"preset": "bare"}, {"preset": "repaired"}, {"pathways": "A"}], ids=str)
def test_a_tape_takes_the_same_steps_to_the_last_bit(parameters):
    trainer = Trainer(make_config(**(SMALL | parameters)), "cpu")
    state = plain = initial_state(trainer.config, trainer.device)
    for _ in range(3):
        plain = trainer.epoch(plain)
    trainer.threads = []
    trainer.hasten(state)
    assert trainer.path == "recorded"
    for _ in range(3):
        state = trainer.epoch(state)
    assert all(torch.equal(state[name], plain[name]) for name in state if name != "history")
    assert torch.equal(state["history"][:3], plain["history"][:3])


def test_without_numba_a_run_is_recorded(monkeypatch):
    monkeypatch.setattr(recording.importlib.util, "find_spec", lambda name: None)
    trainer = Trainer(make_config(**SMALL), "cpu")
    trainer.hasten(initial_state(trainer.config, trainer.device))
    assert trainer.path == "recorded"


def program(step, example):
    return Program(recording.Tape(step, example), example, Team([2]))


def test_a_program_does_what_its_tape_does_call_by_call():
    def step(state, batch, setting):
        mean = (state["w"] * batch).sum(-1, keepdim=True).relu() / setting
        return {"w": state["w"] - 0.1 * mean, "count": state["count"] + 1}, torch.stack([mean.sum(), setting.exp()])

    torch.manual_seed(0)
    state = {"w": torch.randn(4, 8), "count": torch.zeros(())}
    batches, settings = torch.randn(6, 4, 8), torch.tensor([1.0, 1.0, 1.0, 2.0, 2.0, 3.0])
    played = program(step, (state, batches[0], settings[0]))
    kept, ours = {name: value.clone() for name, value in state.items()}, state
    for batch, setting in zip(batches, settings, strict=True):
        state, record = step(state, batch, setting)
        ours, recorded = played(ours, batch, setting)
        assert torch.equal(record, recorded)
        assert all(torch.equal(state[name], ours[name]) for name in state)
    again, _ = played(kept, batches[0], settings[0])
    assert again["count"] == 1, "a state that is given anew is taken, not the one of the last call"
    assert kept["count"] == 0, "a program writes in its own memory alone"


def test_an_argument_that_is_still_needed_is_not_overwritten():
    def step(state, lr):
        theta, update, first, second, count = state
        gradient = theta * 2
        new = updates.descend(theta, update, first, second, [gradient.unsqueeze(0)], count, lr, [len(theta)], 0.0)
        return (*new[:4], count + 1), (new[0] - theta).sum()

    theta = torch.linspace(-1, 1, 10)
    state = (theta, *(torch.zeros(10) for _ in range(3)), torch.ones((), dtype=torch.float64))
    lr = torch.tensor([0.1])
    expected = step(state, lr)[1]
    played = program(step, (state, lr))
    assert torch.equal(played(state, lr)[1], expected)
    assert torch.equal(theta, torch.linspace(-1, 1, 10))


class Squared(nn.Module):
    def forward(self, x):
        return x.square()


def test_a_new_loss_term_in_plain_torch_is_recorded_with_fused_pieces():
    """One that no fused piece knows, on top of the library's step."""
    trainer = Trainer(make_config(**SMALL), "cpu")
    terms = trainer.step.terms

    def more(theta, *given):
        values, *others = terms(theta, *given)
        return torch.cat([values[:4], values[4:5] + Squared()(theta).mean(), values[5:]]), *others

    trainer.step.terms = more
    state = initial_state(trainer.config, trainer.device)
    begun, controls = trainer.scheduled(state, trainer.prescribed(0), 0)
    example = (stepped(begun), *next(trainer.batches(0)), controls)
    plain, played = trainer.step(*example)[0], twins.program(trainer.step, example, Team([1]))(*example)[0]
    torch.testing.assert_close(plain["moment_1"], played["moment_1"], rtol=1e-3, atol=1e-6)


def test_constants_of_a_step_are_kept():
    weights = torch.tensor([1.0, 2.0])
    step = lambda state, x: ((state[0] + 1,), (x * weights).sum())  # noqa: E731
    played = program(step, ((torch.zeros(()),), torch.ones(2)))
    assert played((torch.zeros(()),), torch.ones(2))[1] == 3


def test_parts_of_a_state_may_change_places():
    step = lambda state, x: ((state[1], state[0] + x), state[0].sum())  # noqa: E731
    state = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    played, ours = program(step, (state, torch.ones(2))), state
    for _ in range(3):
        state, _ = step(state, torch.ones(2))
        ours, _ = played(ours, torch.ones(2))
        assert all(torch.equal(a, b) for a, b in zip(state, ours, strict=True))
