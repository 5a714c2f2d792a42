import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tvae_lib.coverage import (
    coverage_deviation,
    expected_pair_coverage,
    full_coverage,
    is_held,
    measured_coverage,
    pair_coverage,
    uniform_coverage,
    uniform_coverage_deviation,
    uniform_full_coverage,
)
from tvae_lib.operations import SIZE


@given(st.integers(1, 10**7))
def test_uniform_coverage_is_the_coupon_collector_mean(draws):
    assert uniform_coverage(draws) == pytest.approx(1 - (1 - 1 / 19_683) ** draws, rel=1e-9)


def test_uniform_coverage_agrees_with_uniform_draws(rng):
    hit = [torch.randint(SIZE, (50_000,), generator=rng).unique().numel() / SIZE for _ in range(20)]
    assert sum(hit) / 20 == pytest.approx(uniform_coverage(50_000), abs=4 * 0.0017 / 20**0.5)


@pytest.mark.parametrize("draws", [1, 30, 400])
def test_coverage_deviation_is_the_sum_over_all_pairs(rng, draws):
    p = torch.softmax(2 * torch.randn(200, generator=rng, dtype=torch.float64), 0)
    missed = (1 - p) ** draws
    covariance = (1 - p.unsqueeze(1) - p) ** draws - missed.unsqueeze(1) * missed
    covariance.diagonal().copy_(missed - missed**2)
    assert coverage_deviation(p, draws) == pytest.approx(math.sqrt(covariance.sum().clamp(min=0)) / 200, abs=1e-8)


@pytest.mark.parametrize("draws", [10_000, 50_000, 195_000])
def test_coverage_deviation_of_the_uniform_distribution(draws):
    uniform = torch.full((SIZE,), 1 / SIZE)
    assert coverage_deviation(uniform, draws) == pytest.approx(uniform_coverage_deviation(draws), rel=1e-3)


def test_expected_coverage_of_a_pair_is_that_of_its_draws(rng):
    p = torch.softmax(torch.randn(2, SIZE, generator=rng), 1)
    first, second = torch.multinomial(p, 20 * 9_001, replacement=True, generator=rng).split(1)
    found = [pair_coverage(a, b, (9_001,)) for a, b in zip(first[0].split(9_001), second[0].split(9_001), strict=True)]
    for how, draws in {"half": (4_501, 4_500), "union": (9_001, 9_001)}.items():
        mean = sum(one[how][9_001] for one in found) / 20
        assert mean == pytest.approx(expected_pair_coverage(*p, *draws), abs=4 * 0.003 / 20**0.5)


def test_more_draws_than_there_are_are_not_counted():
    with pytest.raises(ValueError, match="counts has 11; it must be at most 10"):
        measured_coverage(torch.zeros(10, dtype=torch.int64), (5, 11))


def test_full_coverage_of_the_uniform_distribution_is_inclusion_and_exclusion():
    p = torch.full((SIZE,), 1 / SIZE, dtype=torch.float64)
    for draws in (150_000, 195_000, 300_000):
        assert full_coverage(p, draws) == pytest.approx(uniform_full_coverage(draws), abs=1e-8)


@pytest.mark.parametrize("draws", [3, 10, 40, 400])
def test_full_coverage_of_three_unequal_operations(draws):
    shares = (0.6, 0.3, 0.1)
    direct = 1 - sum((1 - p) ** draws for p in shares) + sum(p**draws for p in shares)
    assert full_coverage(torch.tensor(shares, dtype=torch.float64), draws) == pytest.approx(direct, abs=1e-8)


def test_full_coverage_is_impossible_where_an_operation_has_no_probability():
    assert full_coverage(torch.tensor([0.5, 0.5, 0.0]), 1000) == 0


def test_coverage_counts_distinct_operations_among_the_first_draws():
    drawn = torch.tensor([5, 5, 7, 5, 9])
    expected = {1: 1 / SIZE, 3: 2 / SIZE, 5: 3 / SIZE}
    assert measured_coverage(drawn, (1, 3, 5)) == pytest.approx(expected)


def test_an_operation_is_held_from_half_the_uniform_probability_on():
    assert is_held(torch.tensor([0.49, 0.5, 2.0]) / SIZE).tolist() == [False, True, True]
