"""Weak signals and equilibria of two coupled pathways."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from tvae_lib.system.vae import Posterior
from tvae_lib.theory import coupling
from tvae_lib.theory.product_codes import distortion_and_rate, minimise, optimal_code

inside = st.floats(0.05, 0.95)


temperature = st.floats(0.1, 2)


weight = st.floats(0.1, 3)


def weak(signal: float) -> Posterior:
    mean = signal * torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    return Posterior(mean.requires_grad_(), torch.zeros(3, 1, dtype=torch.float64))


@given(inside, temperature, temperature, weight, weight)
@settings(max_examples=20)
def test_growth_matrix_is_the_slope_of_the_exact_costs(rho, tau_A, tau_B, beta_A, beta_B):
    small = 1e-4 * min(tau_A, tau_B)
    columns = []
    for signals in ((small, 0.0), (0.0, small)):
        a, b = (weak(s) for s in signals)
        costs = (
            coupling.coupled_cost(a, weak(signals[1]), rho, tau_A, tau_B, beta_A),
            coupling.coupled_cost(b, weak(signals[0]), rho, tau_B, tau_A, beta_B),
        )
        slopes = [torch.autograd.grad(cost, code.mean)[0][2, 0] for cost, code in zip(costs, (a, b), strict=True)]
        columns.append(-torch.stack(slopes) * 3 / 9 / small)
    matrix = coupling.growth_matrix(rho, tau_A, tau_B, beta_A, beta_B)
    torch.testing.assert_close(torch.stack(columns, 1), matrix, rtol=1e-4, atol=1e-4 * matrix.norm().item())


@given(inside, temperature, temperature, weight, weight)
def test_growth_rate_is_the_larger_eigenvalue(rho, tau_A, tau_B, beta_A, beta_B):
    case = (rho, tau_A, tau_B, beta_A, beta_B)
    eigenvalues = torch.linalg.eigvals(coupling.growth_matrix(*case))
    assert eigenvalues.imag.abs().max() < 1e-9
    assert coupling.growth_rate(*case) == pytest.approx(eigenvalues.real.max().item(), abs=1e-9)


@given(inside, temperature, st.floats(0.1, 10))
def test_critical_beta_is_where_growth_ends(rho, tau, ratio):
    beta = coupling.critical_beta(rho, tau, ratio)
    scale = max(1, beta * max(1, ratio))
    assert coupling.growth_rate(rho, tau, tau, beta, ratio * beta) == pytest.approx(0, abs=1e-9 * scale)
    assert coupling.growth_rate(rho, tau, tau, 0.99 * beta, 0.99 * ratio * beta) > 0
    assert coupling.growth_rate(rho, tau, tau, 1.01 * beta, 1.01 * ratio * beta) < 0
    if ratio == 1:
        assert beta == pytest.approx((1 - rho) / (((1 - rho) ** 2 + rho**2) * tau**2))


def test_without_noise_there_is_no_growth_matrix():
    with pytest.raises(ValueError, match="noise power is 0"):
        coupling.growth_matrix(0.5, 0.0, 0.0, 1.0, 1.0)


def test_an_uncoupled_equilibrium_is_the_best_code():
    for shared in (False, True):
        a, b = coupling.equilibrium(0.0, 1.0, 1.0, 0.9, 0.8, shared)
        assert a.rate == pytest.approx(optimal_code(0.9).rate, abs=1e-4)
        assert b.rate == pytest.approx(optimal_code(0.8).rate, abs=1e-4)
        assert a.read == pytest.approx(a.own)


def test_nobody_gains_by_leaving_an_equilibrium(rng):
    case = (0.4, 0.9, 0.6, 0.7, 0.5)
    a, b = coupling.equilibrium(*case)
    for own, other, taus, beta in ((a, b, case[1:3], case[3]), (b, a, case[2:0:-1], case[4])):
        cost = lambda code: coupling.coupled_cost(code, other.posterior, case[0], *taus, beta)  # noqa: B023, E731
        held = cost(own.posterior).item()
        for _ in range(3):
            start = Posterior(*torch.randn(2, 3, 1, dtype=torch.float64, generator=rng))
            assert cost(minimise(cost, start)).item() > held - 1e-6
    distortion, rate = distortion_and_rate(a.posterior)
    assert a.rate == pytest.approx(rate.item())
    assert a.read != pytest.approx(a.own)
    assert distortion < 9


def test_stop_gradient_codes_less_than_shared_gradients_and_nothing_beyond_the_boundary():
    case = (0.7, 1.0, 1.0, 0.8, 0.8)
    assert coupling.critical_beta(*case[:2]) < 0.8
    alone, _ = coupling.equilibrium(*case)
    together, _ = coupling.equilibrium(*case, shared=True)
    assert alone.rate < 1e-6
    assert together.read > optimal_code(0.8).rate
