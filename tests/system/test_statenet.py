import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tvae_lib.system import statenet
from tvae_lib.system.statenet import PATHS, StateNet, objective, update_learning_rate, update_weights

unit = st.floats(-1, 1)


@given(st.floats(1e-6, 0.01), unit)
def test_learning_rate_follows_its_rule_inside_its_clip(lr, correction):
    new = update_learning_rate(torch.tensor(lr, dtype=torch.float64), torch.tensor(correction, dtype=torch.float64))
    assert new.item() == pytest.approx(min(max(lr * (1 + 0.05 * correction), 1e-6), 0.01))


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.lists(unit, min_size=3, max_size=3))
def test_weights_follow_their_rule_inside_their_clips(weights, corrections):
    new = update_weights(torch.tensor(weights), torch.tensor(corrections)).tolist()
    for value, w, c, low, high in zip(new, weights, corrections, (0.5, 0.5, 0.15), (0.95, 0.95, 0.75), strict=True):
        assert value == pytest.approx(min(max(w + 0.01 * c, low), high), abs=1e-6)


@given(st.lists(st.floats(-1e6, 1e6), min_size=9, max_size=9))
def test_corrections_of_any_sane_state_are_inside_minus_one_to_one(state):
    torch.manual_seed(0)
    corrections = StateNet()(torch.tensor(state))
    assert corrections.shape == (4,)
    assert (corrections.abs() <= 1).all()


CASE = {
    "weights": torch.tensor([0.7, 0.6, 0.3], dtype=torch.float64),
    "lr": torch.tensor(1e-3, dtype=torch.float64),
    "weight_gradient": torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64),
    "lr_gradient": torch.tensor(-40.0, dtype=torch.float64),
    "penalty": 0.5,
}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("detached", [0, 0, 0, 0]),
        ("backprop", [0, 0.01 * 3.0, 0.01 * -2.0, 0.01 * 0.5]),
        ("hypergradient", [0.05 * 1e-3 * -40, 0.01 * 3.0, 0.01 * -2.0, 0.01 * 0.5]),
    ],
)
def test_gradient_of_each_mode_is_the_derived_one(mode, expected):
    corrections = torch.tensor([0.2, -0.3, 0.4, 0.1], dtype=torch.float64, requires_grad=True)
    objective(corrections, paths=PATHS[mode], **CASE).backward()
    direct = 2 * 0.5 * corrections.detach() + torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(corrections.grad, direct)


def test_a_clipped_weight_passes_no_gradient():
    corrections = torch.tensor([0.0, 0.9, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    case = CASE | {"weights": torch.tensor([0.95, 0.6, 0.3], dtype=torch.float64), "penalty": 0.0}
    objective(corrections, paths=PATHS["backprop"], **case).backward()
    assert corrections.grad[1] == 0
    assert corrections.grad[2] != 0


def test_state_and_corrections_are_named():
    assert len(statenet.STATE) == 9
    assert len(statenet.CORRECTIONS) == 4
