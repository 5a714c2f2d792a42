import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tvae_lib import operations
from tvae_lib.operations import (
    SIZE,
    TRITS,
    all_operations,
    coverage_deviation,
    full_coverage,
    full_coverage_probability,
    index_of,
    one_hot,
    operation_at,
    rarefied,
    split,
    uniform_coverage,
    uniform_coverage_deviation,
)

trits = st.lists(st.sampled_from([-1, 0, 1]), min_size=TRITS, max_size=TRITS)


def test_space_holds_every_truth_table_once_in_order():
    table = all_operations()
    assert table.tolist() == [list(row) for row in itertools.product((-1, 0, 1), repeat=9)]
    assert len(table) == SIZE == 19_683
    assert pytest.approx(math.log(SIZE)) == operations.ENTROPY


@given(trits)
def test_index_is_the_number_with_these_digits(operation):
    expected = int("".join(str(x + 1) for x in operation), 3)
    assert index_of(torch.tensor(operation)).item() == expected
    assert operation_at(torch.tensor(expected)).tolist() == operation


@given(st.integers(0, SIZE - 1))
def test_operation_and_index_are_inverse(index):
    assert index_of(operation_at(torch.tensor(index))).item() == index


@pytest.mark.parametrize("index", [-1, SIZE])
def test_index_outside_the_space_is_refused(index):
    with pytest.raises(IndexError, match=str(index)):
        operation_at(torch.tensor([0, index]))


def test_one_hot_marks_the_class():
    assert one_hot(torch.tensor([-1, 0, 1])).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@given(st.integers(1, 10**7))
def test_uniform_coverage_is_the_coupon_collector_mean(draws):
    assert uniform_coverage(draws) == pytest.approx(1 - (1 - 1 / 19_683) ** draws, rel=1e-9)


def test_uniform_coverage_agrees_with_uniform_draws(rng):
    hit = [torch.randint(SIZE, (50_000,), generator=rng).unique().numel() / SIZE for _ in range(20)]
    assert sum(hit) / 20 == pytest.approx(uniform_coverage(50_000), abs=4 * 0.0017 / 20**0.5)


@given(st.floats(0, 0.9))
def test_split_is_a_partition_of_the_asked_size(holdout):
    training, held_out = split(holdout, torch.Generator().manual_seed(1))
    assert sorted(training.tolist() + held_out.tolist()) == list(range(SIZE))
    assert len(held_out) == round(holdout * SIZE)


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


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("pi", list(itertools.permutations((-1, 0, 1))))
def test_relabelled_operations_are_the_renamed_functions(pi, swap):
    name = dict(zip((-1, 0, 1), pi, strict=True))
    back = {value: key for key, value in name.items()}
    for table in operation_at(torch.tensor([5, 4711, 12_345])).tolist():
        f = {(a, b): table[3 * (a + 1) + b + 1] for a in (-1, 0, 1) for b in (-1, 0, 1)}
        asked = [(back[b], back[a]) if swap else (back[a], back[b]) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        expected = [name[f[arguments]] for arguments in asked]
        assert operations.relabel(torch.tensor(table, dtype=torch.int8), pi, swap).tolist() == expected


def test_full_coverage_of_the_uniform_distribution_is_inclusion_and_exclusion():
    p = torch.full((SIZE,), 1 / SIZE, dtype=torch.float64)
    for draws in (150_000, 195_000, 300_000):
        assert full_coverage(p, draws) == pytest.approx(full_coverage_probability(draws), abs=1e-8)


@pytest.mark.parametrize("draws", [3, 10, 40, 400])
def test_full_coverage_of_three_unequal_operations(draws):
    shares = (0.6, 0.3, 0.1)
    direct = 1 - sum((1 - p) ** draws for p in shares) + sum(p**draws for p in shares)
    assert full_coverage(torch.tensor(shares, dtype=torch.float64), draws) == pytest.approx(direct, abs=1e-8)


def test_full_coverage_is_impossible_where_an_operation_has_no_probability():
    assert full_coverage(torch.tensor([0.5, 0.5, 0.0]), 1000) == 0


def test_rarefied_coverage_is_the_mean_over_all_subsets():
    drawn = [0, 0, 1, 2, 2, 2, 4]
    counts = torch.bincount(torch.tensor(drawn), minlength=6)
    for draws in range(len(drawn) + 1):
        subsets = list(itertools.combinations(drawn, draws))
        direct = sum(len(set(subset)) for subset in subsets) / len(subsets) / 6
        assert rarefied(counts, draws) == pytest.approx(direct, abs=1e-12)
    with pytest.raises(ValueError, match="draws is 8; it must be from 0 to 7"):
        rarefied(counts, 8)
