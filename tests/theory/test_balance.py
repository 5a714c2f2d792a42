import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tvae_lib.system.losses import average_norms, balance_factors
from tvae_lib.theory.balance import loop_eigenvalue, settled_ratio


def loop(raw, alpha, start, steps=400):
    """The last few ratios of the balance loop on constant raw norms 1 and `raw`."""
    norms, path = torch.tensor(start, dtype=torch.float64), []
    for _ in range(steps):
        scaled = balance_factors(norms) * torch.tensor([1.0, raw], dtype=torch.float64)
        norms = average_norms(norms, scaled, torch.tensor(False), (alpha, alpha))
        path.append((norms[1] / norms[0]).item())
    return path[-4:]


@pytest.mark.parametrize("alpha", [0.2, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("raw", [0.05, 0.5, 1.0, 4.0, 20.0])
def test_balance_loop_rests_where_theory_says_and_only_where_it_is_stable(raw, alpha):
    rest = settled_ratio(raw)
    stable = not 1 / 8 < raw < 8 or abs(loop_eigenvalue(alpha)) < 1
    for start in ((1.0, 20.0), (1.0, rest * 1.001)):
        settled = loop(raw, alpha, start) == pytest.approx([rest] * 4, rel=1e-6)
        assert settled == stable


@given(st.floats(0.01, 100))
def test_settled_ratio_is_a_point_of_rest(raw):
    rest = settled_ratio(raw)
    g_A, g_B = balance_factors(torch.tensor([1.0, rest], dtype=torch.float64)).tolist()
    assert raw * g_B / g_A == pytest.approx(rest)


def test_eigenvalue_is_how_fast_an_error_dies():
    for alpha in (0.5, 0.9):
        errors = [math.log(q) for q in loop(1.0, alpha, (1.0, 1.01), steps=6)]
        assert errors[-1] / errors[-2] == pytest.approx(loop_eigenvalue(alpha), rel=1e-2)
