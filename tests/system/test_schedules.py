import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tvae_lib.system import schedules

OPEN, SHUT = torch.tensor(1.0), torch.tensor(0.0)


def rho_path(gates, total=400, **reading):
    """Permeability of every epoch, `gates[e]` the gate at the end of epoch e."""
    rho, path = torch.tensor(0.0), []
    for epoch in range(total):
        t, before = schedules.clock(epoch, total), schedules.clock(epoch - 1, total)
        rho = schedules.permeability(t, before, rho, gates[epoch - 1], **reading)
        path.append(rho.item())
    return path


@pytest.mark.parametrize(("t", "phase"), [(0, 1), (39, 1), (40, 2), (119, 2), (120, 3), (249, 3), (250, 4), (399, 4)])
def test_phases_start_where_the_document_says(t, phase):
    assert schedules.phase(t) == phase


def test_permeability_with_the_gate_open_is_the_straight_line():
    path = rho_path([OPEN] * 400)
    assert path[:40] == pytest.approx([0.1] * 40)
    assert path[40:120] == pytest.approx([0.1 + 0.2 * (t - 40) / 80 for t in range(40, 120)], abs=1e-6)
    assert path[120:251] == pytest.approx([0.3 + 0.4 * (t - 120) / 130 for t in range(120, 251)], abs=1e-5)
    assert path[250:] == pytest.approx([0.7] * 150)


def test_permeability_holds_while_the_gate_is_shut_and_jumps_at_phase_4():
    path = rho_path([SHUT] * 400)
    assert path[120:250] == pytest.approx([0.3] * 130)
    assert path[250] == pytest.approx(0.7)


@given(st.lists(st.booleans(), min_size=400, max_size=400))
def test_permeability_counts_the_open_epochs_of_phase_3(gates):
    path = rho_path([torch.tensor(float(g)) for g in gates])
    assert path[249] == pytest.approx(0.3 + 0.4 / 130 * sum(gates[120:249]), abs=1e-5)
    assert all(b >= a - 1e-6 for a, b in itertools.pairwise(path))


@given(st.lists(st.booleans(), min_size=400, max_size=400))
def test_permeability_that_falls_is_on_the_line_after_a_balanced_epoch_and_else_at_its_start(gates):
    path = rho_path([torch.tensor(float(g)) for g in gates], falls=1.0)
    line = [0.3 + 0.4 * (t - 120) / 130 for t in range(120, 250)]
    expected = [line[t - 120] if t > 120 and gates[t - 1] else 0.3 for t in range(120, 250)]
    assert path[120:250] == pytest.approx(expected, abs=1e-5)


@given(st.lists(st.booleans(), min_size=400, max_size=400))
def test_permeability_without_a_gate_is_the_straight_line(gates):
    path = rho_path([torch.tensor(float(g)) for g in gates], gated=0.0)
    assert path == pytest.approx(rho_path([OPEN] * 400), abs=1e-5)


@given(st.integers(4, 2000))
def test_a_run_of_any_length_goes_through_the_same_clock(total):
    path = rho_path([OPEN] * total, total)
    assert path[0] == pytest.approx(0.1)
    assert path[-1] == pytest.approx(0.7)
    assert max(path) <= 0.7 + 1e-5


def test_temperatures_are_the_formulas_as_written():
    for t in range(400):
        base = 1.0 + (0.3 - 1.0) * t / 400
        swing = 0.1 * base if t < 250 else 0.5
        assert schedules.temperature_A(t) == pytest.approx(base - swing * math.sin(2 * math.pi * t / 30))
        expected = 0.9 + (0.2 - 0.9) * (t - 30) / 400 if t < 250 else 0.3
        assert schedules.temperature_B(t) == pytest.approx(expected)


def test_the_document_s_temperature_of_a_goes_below_zero():
    values = [schedules.temperature_A(t) for t in range(400)]
    assert min(values) == pytest.approx(-0.194, abs=5e-4)
    assert sum(v < 0 for v in values) == 24


def test_kl_weights_are_the_formulas_as_written():
    for t in range(400):
        assert schedules.beta_A(t) == pytest.approx(0.6 + (1.0 - 0.6) * t / 400)
        assert schedules.beta_B(t) == pytest.approx(schedules.beta_A(t) * abs(math.sin(math.pi / 4)))


def test_cosine_factor_falls_from_one_to_zero():
    values = [schedules.cosine_factor(t) for t in (0, 200, 400)]
    assert values == pytest.approx([1, 0.5, 0])
