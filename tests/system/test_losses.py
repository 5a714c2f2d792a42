import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tvae_lib.operations import all_operations, one_hot
from tvae_lib.system import losses

norms = st.floats(1e-5, 1e5)


def test_cross_entropy_is_the_triple_sum(rng):
    operations = all_operations()[::2000]
    logits = torch.randn(len(operations), 9, 3, generator=rng, dtype=torch.float64)
    p = torch.softmax(logits, -1)
    direct = 0.0
    for i, operation in enumerate(operations.tolist()):
        for j in range(9):
            for k, value in enumerate((-1, 0, 1)):
                direct -= (operation[j] == value) * math.log(p[i, j, k]) / len(operations)
    assert losses.cross_entropy(logits, one_hot(operations).double()).item() == pytest.approx(direct)


def test_output_entropy_is_that_of_the_mean_distribution(rng):
    logits = torch.randn(40, 9, 3, generator=rng)
    p = torch.softmax(logits, -1).mean(0)
    direct = -sum(q * math.log(q) for q in p.flatten().tolist())
    assert losses.output_entropy(logits).item() == pytest.approx(direct, rel=1e-5)
    assert losses.output_entropy(torch.zeros(2, 9, 3)).item() == pytest.approx(9 * math.log(3), rel=1e-6)


def test_output_entropy_of_values_is_that_of_all_trits_together(rng):
    logits = torch.randn(40, 9, 3, generator=rng, dtype=torch.float64)
    p = torch.softmax(logits, -1).mean((0, 1)).tolist()
    assert losses.entropy_of_values(logits).item() == pytest.approx(-sum(q * math.log(q) for q in p))
    three = torch.zeros(3, 9, 3, dtype=torch.float64)
    for k in range(3):
        three[k, :, k] = 50.0
    assert losses.entropy_of_values(three).item() == pytest.approx(math.log(3)), "three operations are its maximum"


def test_output_entropy_of_operations_is_that_of_the_mean_over_all_of_them(rng):
    logits = torch.randn(5, 9, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    indicators = one_hot(all_operations()).double()
    p = torch.stack([torch.log_softmax(row, -1).mul(indicators).sum((1, 2)).exp() for row in logits]).mean(0)
    direct = -(p * p.log()).sum()
    found = losses.entropy_of_operations(logits)
    assert found.item() == pytest.approx(direct.item())
    gradients = [torch.autograd.grad(value, logits)[0] for value in (found, direct)]
    torch.testing.assert_close(*gradients)
    assert losses.entropy_of_operations(torch.zeros(2, 9, 3)).item() == pytest.approx(9 * math.log(3), rel=1e-6)


@pytest.mark.parametrize("form", losses.OUTPUT_ENTROPIES)
def test_output_entropy_has_a_gradient_where_a_probability_underflows(form):
    logits = torch.zeros(4, 9, 3)
    logits[..., 2] = -104.0
    logits.requires_grad_()
    assert torch.autograd.grad(losses.OUTPUT_ENTROPIES[form](logits), logits)[0].isfinite().all()


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_repulsion_is_the_double_sum_with_the_diagonal(rng, sigma):
    z = torch.randn(30, 4, generator=rng, dtype=torch.float64)
    direct = sum(math.exp(-((a - b) ** 2).sum().item() / (2 * sigma**2)) for a in z for b in z) / 30**2
    assert losses.repulsion(z, sigma).item() == pytest.approx(direct)
    assert losses.repulsion(100 * z, sigma).item() == pytest.approx(1 / 30)


def test_gradient_of_repulsion_is_the_derivative(rng):
    z = torch.randn(12, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(losses.repulsion, z)


def test_repulsion_of_prior_samples_has_the_closed_form(rng):
    z = torch.randn(2000, 4, generator=rng, dtype=torch.float64)
    expected = (1 - 1 / 2000) * (1 + 2 / 0.5**2) ** (-4 / 2) + 1 / 2000
    assert losses.repulsion(z).item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_expected_repulsion_is_that_of_many_codes(rng, sigma):
    z = 0.7 * torch.randn(3000, 3, generator=rng, dtype=torch.float64)
    pairs = (losses.repulsion(z, sigma).item() - 1 / 3000) * 3000 / 2999
    assert pairs == pytest.approx(losses.expected_repulsion(sigma, 3, scale=0.7), rel=0.03)
    assert losses.expected_repulsion(0.5, 16) == pytest.approx(9.0**-8)


def test_histogram_entropy_is_a_riemann_sum_over_bins(rng):
    z = torch.randn(400, 3, generator=rng, dtype=torch.float64) * 1.5
    direct = 0.0
    for column in z.T:
        counts = torch.histc(column, bins=50, min=-3, max=3)
        p = counts / counts.sum()
        direct -= sum(q * math.log(q / losses.BIN_WIDTH) for q in p.tolist() if q > 0)
    assert losses.histogram_entropy(z).item() == pytest.approx(direct, abs=1e-9)


def test_soft_entropy_is_the_direct_kernel_histogram(rng):
    z = torch.randn(200, 3, generator=rng, dtype=torch.float64)
    width = 6 / 50
    centres = torch.linspace(-3 + width / 2, 3 - width / 2, 50, dtype=torch.float64)
    inside = (z.abs() <= 3).unsqueeze(-1)
    weights = (inside * torch.exp(-((z.unsqueeze(-1) - centres) ** 2) / (2 * width**2))).sum(0)
    p = weights / weights.sum(-1, keepdim=True)
    direct = -(p * torch.log(p / width)).sum()
    assert losses.soft_entropy(z).item() == pytest.approx(direct.item(), abs=1e-9)


def test_soft_entropy_of_a_wide_gaussian_is_near_the_closed_form(rng):
    z = 0.6 * torch.randn(100_000, 2, generator=rng)
    closed = math.log(2 * math.pi * math.e * (0.6**2 + losses.BIN_WIDTH**2))  # two coordinates, half a log each
    assert losses.soft_entropy(z).item() == pytest.approx(closed, abs=0.01)


def test_only_the_soft_histogram_has_a_gradient(rng):
    z = torch.randn(64, 2, generator=rng, dtype=torch.float64, requires_grad=True)
    assert not losses.histogram_entropy(z).requires_grad
    assert torch.autograd.gradcheck(losses.soft_entropy, z)
    assert torch.autograd.grad(losses.soft_entropy(z), z)[0].abs().max() > 1e-4


def test_entropies_stay_finite_when_every_code_is_out_of_range():
    for value in (3.5, 9.0, 50.0):
        z = torch.full((8, 2), value, requires_grad=True)
        assert losses.histogram_entropy(z) == 0
        assert losses.soft_entropy(z) == 0
        assert torch.autograd.grad(losses.soft_entropy(z), z)[0].abs().max() == 0


def test_a_code_out_of_range_counts_for_nothing(rng):
    z = torch.randn(64, 2, generator=rng).clamp(-2.9, 2.9)
    more = torch.cat([z, torch.full((16, 2), 4.0)])
    for entropy in (losses.histogram_entropy, losses.soft_entropy):
        assert entropy(more).item() == pytest.approx(entropy(z).item(), abs=1e-5)


def test_total_is_the_complete_decomposition(rng):
    ce_A, kl_A, ce_B, kl_B, negentropy, repulsion, align, *ours = terms = torch.rand(11, generator=rng)
    lambdas, g = torch.tensor([0.7, 0.6, 0.3]), torch.tensor([1.3, 0.8])
    weights = losses.term_weights(lambdas, g, 0.9, 0.5, 0.05, 0.01, (True, True, True))
    loss_A = ce_A + 0.9 * kl_A
    loss_B = ce_B + 0.5 * kl_B + 0.05 * negentropy + 0.01 * repulsion
    direct = 0.7 * 1.3 * loss_A + 0.6 * 0.8 * loss_B + 0.3 * align
    torch.testing.assert_close(torch.dot(weights, terms), direct)
    alone = losses.term_weights(lambdas, g, 0.9, 0.5, 0.05, 0.01, (True, False, False))
    torch.testing.assert_close(torch.dot(alone, terms), 0.7 * 1.3 * loss_A)
    weights = losses.term_weights(lambdas, g, 0.9, 0.5, 0.05, 0.01, (True, True, True), rho=0.4, diversity=3.0)
    loss_A += 0.4 * ours[0] + 3 * ours[2]
    loss_B += 0.4 * ours[1] + 3 * ours[3]
    direct = 0.7 * 1.3 * loss_A + 0.6 * 0.8 * loss_B + 0.3 * align
    torch.testing.assert_close(torch.dot(weights, terms), direct)


@given(norms, norms)
def test_balance_factors_are_clipped_reciprocals(a, b):
    g_A, g_B = losses.balance_factors(torch.tensor([a, b], dtype=torch.float64)).tolist()
    assert g_A == pytest.approx(min(max(b / a, 0.5), 2.0), rel=1e-3)
    assert g_B == pytest.approx(min(max(a / b, 0.5), 2.0), rel=1e-3)


@given(norms, norms, st.sampled_from([-1.0, 0.5, 0.0]))
def test_balance_by_a_power_of_the_ratio(a, b, power):
    g_A, g_B = losses.balance_factors(torch.tensor([a, b], dtype=torch.float64), power).tolist()
    ratio = min(max(b / a, 1e-6), 1e6)
    assert g_A == pytest.approx(min(max(ratio**power, 0.5), 2.0), rel=1e-3)
    assert g_B == pytest.approx(min(max(ratio**-power, 0.5), 2.0), rel=1e-3)


def test_norms_that_are_no_numbers_are_not_called_balanced():
    lost = losses.gradient_ratio(torch.tensor([math.nan, 1.0]))
    assert lost.isnan()
    assert losses.is_balanced(lost) == 0


def test_balance_before_the_first_step_is_one():
    assert losses.balance_factors(torch.zeros(2)).tolist() == [1, 1]


@pytest.mark.parametrize(("ratio", "gate"), [(0.8, 0), (0.81, 1), (1.0, 1), (1.19, 1), (1.2, 0), (5.0, 0)])
def test_gate_opens_strictly_inside_the_band(ratio, gate):
    assert losses.is_balanced(torch.tensor(ratio, dtype=torch.float64)).item() == gate


@given(norms, norms, norms, norms)
def test_moving_average_uses_the_slower_rate_while_balanced(a, b, x, y):
    average, new = torch.tensor([a, b], dtype=torch.float64), torch.tensor([x, y], dtype=torch.float64)
    alpha = 0.95 if 0.8 < b / a < 1.2 else 0.9
    moved = losses.average_norms(average, new, torch.tensor(False))
    torch.testing.assert_close(moved, alpha * average + (1 - alpha) * new)
    assert torch.equal(losses.average_norms(average, new, torch.tensor(True)), new)
