import math

import pytest
import torch

from tvae_lib.measures.generation import generate
from tvae_lib.operations import ENTROPY, SIZE
from tvae_lib.rng import stream
from tvae_lib.system.vae import Posterior
from tvae_lib.theory import product_codes


def code(means, variances) -> Posterior:
    return Posterior(
        *(torch.tensor(t, dtype=torch.float64).unsqueeze(1) for t in (means, [math.log(v) for v in variances]))
    )


def test_costs_agree_with_the_trapezoidal_rule():
    means, variances = [-1.2, 0.1, 0.7], [0.2, 0.5, 0.9]
    z = torch.arange(-12, 12, 0.005, dtype=torch.float64)
    q = [
        torch.exp(-((z - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v) for m, v in zip(means, variances, strict=True)
    ]
    direct = 3 * sum(-(a * torch.log(a.clamp_min(1e-300) / sum(q))).sum().item() * 0.005 for a in q)
    distortion, rate = product_codes.distortion_and_rate(code(means, variances))
    assert distortion.item() == pytest.approx(direct, abs=1e-6)
    closed = sum(0.5 * (m * m + v - 1 - math.log(v)) for m, v in zip(means, variances, strict=True))
    assert rate.item() == pytest.approx(3 * closed, abs=1e-12)


def test_a_code_that_says_nothing_costs_the_entropy():
    distortion, rate = product_codes.distortion_and_rate(code([0, 0, 0], [1, 1, 1]))
    assert distortion.item() == pytest.approx(ENTROPY)
    assert rate.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("beta", "rate", "gap"), [(0.5, 10.06, 1.187), (0.9, 6.162, 0.137), (0.98, 3.887, 0.0165)])
def test_optimal_codes_are_stationary_and_do_not_move_with_the_start(beta, rate, gap):
    found = product_codes.optimal_code(beta)
    assert found.rate == pytest.approx(rate, abs=0.002)
    assert found.distortion + found.rate - ENTROPY == pytest.approx(gap, abs=0.001)
    parameters = torch.stack([part.squeeze(1) for part in found.posterior]).requires_grad_()
    distortion, cost = product_codes.distortion_and_rate(Posterior(*parameters.unsqueeze(-1)))
    (slope,) = torch.autograd.grad(distortion + beta * cost, parameters)
    assert slope.abs().max() < 1e-5


def test_more_nodes_change_nothing(monkeypatch):
    coarse = product_codes.optimal_code(0.5)
    monkeypatch.setattr(product_codes, "NODES", 4001)
    fine = product_codes.optimal_code(0.5)
    assert coarse.rate == pytest.approx(fine.rate, abs=1e-5)
    assert coarse.distortion == pytest.approx(fine.distortion, abs=1e-5)


@pytest.mark.parametrize("beta", [0, 1, 0.9999999, -0.5, 1.5, math.nan])
def test_beta_outside_its_range_is_refused(beta):
    with pytest.raises(ValueError, match="beta is"):
        product_codes.optimal_code(beta)


@pytest.mark.parametrize("slope", [0, -1.0, math.nan])
def test_slope_outside_its_range_is_refused(slope):
    with pytest.raises(ValueError, match="slope is"):
        product_codes.offset(slope)


@pytest.mark.parametrize("slope", [0.5, 1.0, 3.0, 10.0])
def test_each_value_has_a_third_of_the_prior(slope):
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    masses = (torch.softmax(product_codes.linear_logits(z, slope), -1) * density.unsqueeze(1)).sum(0)
    assert (masses - 1 / 3).abs().max() < 1e-9


def test_decoder_by_hand_generates_the_uniform_distribution():
    decoder = product_codes.hand_written(3.0)
    z = torch.randn(50, 16, generator=stream(0, 0, "hand"))
    direct = torch.stack([product_codes.linear_logits(z[:, j], 3.0) for j in range(9)], 1)
    torch.testing.assert_close(decoder(z), direct, atol=1e-4, rtol=1e-5)
    marginal, _ = generate(decoder, 16, 2**18, 1, stream(0, 0, "hand"))
    assert abs(marginal.kl_uniform()) < 5 * marginal.kl_error
    assert (marginal.p * SIZE - 1).abs().max() < 0.3
