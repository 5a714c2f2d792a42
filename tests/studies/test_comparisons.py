"""Variants of a table side by side."""

import math

import pandas as pd
import pytest

from studies.comparisons import (
    Compared,
    at_end,
    difference,
    entropy_gap,
    median_difference,
    ratio,
    steadiness,
    until_exact,
)

EXACT = {("repaired", 0): (0.2, 0.995, 0.98), ("repaired", 1): (0.2, 0.5, 1.0), ("bare", 0): (0.1, 0.2, 0.3)}
EPOCHS = (5, 10, 400)


@pytest.fixture
def table():
    """Two variants, two seeds of one of them, three epochs, with the epochs in disorder."""
    rows = [
        {"variant": variant, "seed": seed, "epoch": epoch, "exact_injected_A": exact}
        | {"entropy_A": 3.0, "entropy_B": 3.0 + epoch}
        for (variant, seed), shares in EXACT.items()
        for epoch, exact in zip(EPOCHS, shares, strict=True)
    ]
    return pd.DataFrame(rows[::-1])


def test_what_a_variant_has_at_the_end_is_by_seed(table):
    assert at_end(table, "repaired", "exact_injected_A").to_dict() == {0: 0.98, 1: 1.0}


def test_the_first_epoch_with_nearly_all_is_told_or_that_there_is_none(table):
    assert until_exact(table, "repaired", "A").to_dict() == {0: 10.0, 1: 400.0}
    assert until_exact(table, "bare", "A").to_dict() == {0: math.inf}


def test_the_gap_of_entropies_is_that_of_the_last_half(table):
    assert entropy_gap(table, "repaired").to_dict() == {0: 400.0, 1: 400.0}


def test_differences_are_paired_by_seed():
    these, those = pd.Series({0: 3.0, 1: 5.0, 2: 4.0, 7: 90.0}), pd.Series({1: 4.0, 0: 1.0, 2: 1.0})
    found = difference(these, those)
    half = 4.302653 / math.sqrt(3)  # t of two degrees of freedom; the differences 2, 1, 3 have standard deviation 1
    assert found == pytest.approx(Compared(2, 2 - half, 2 + half, 3), rel=1e-5)
    assert difference(these[:1], those) == (2, 2, 2, 1)


def test_a_ratio_is_that_of_geometric_means():
    found = ratio(pd.Series({0: 2.0, 1: 8.0}), pd.Series({0: 1.0, 1: 1.0}))
    assert (found.mean, found.seeds) == (pytest.approx(4), 2)
    assert found.low * found.high == pytest.approx(16)


def test_at_another_level_the_interval_is_wider():
    these, those = pd.Series([3.0, 5.0, 4.0]), pd.Series([1.0, 1.0, 3.0])
    means, ratios = ([compare(these, those, level) for level in (0.9, 0.95)] for compare in (difference, ratio))
    for narrow, wide in (means, ratios):
        assert wide.low < narrow.low < narrow.high < wide.high
        assert wide.mean == pytest.approx(narrow.mean)
    assert means[0].high - means[0].mean == pytest.approx(2.919986 * 1.527525 / math.sqrt(3))  # t of two degrees


def test_the_interval_of_a_median_is_by_ranks_and_takes_what_is_infinite():
    never = math.inf
    these = pd.Series([10, 15, 20, never, never, 10, 15, 20, 10, 15.0])
    those = pd.Series([15, 15, 40, 20, never, 20, 30, 40, 15, 30, 99.0])
    apart = [-20, -20, -15, -15, -10, -5, -5, 0, 0, never]  # in order; two that never come are alike
    assert median_difference(these, those) == (-7.5, apart[1], apart[8], 10)
    # between the second and the second last of ten lies the median with 1 - 22 / 1024 = 97.9 %
    assert median_difference(these, those, 0.99) == (-7.5, apart[0], apart[9], 10)
    assert median_difference(these[:5], those[:5]) == (0, -never, never, 5)


def test_steadiness_counts_rises_beyond_the_error_and_what_is_lost_again():
    course = pd.DataFrame({"epoch": [0, 10, 20, 30, 40], "seed": 0})
    for p in "AB":
        course[f"kl_uniform_{p}"] = [9.0, 0.5, 0.4, 0.41, 0.6]
        course[f"kl_uniform_error_{p}"] = 0.01
        course[f"held_{p}"] = [0.1, 0.5, 0.99, 0.97, 0.98]
    course["held_B"] = 0.5
    found = steadiness(course.sample(frac=1, random_state=0)).set_index("pathway")
    assert found["not_rising"].tolist() == [pytest.approx(2 / 3)] * 2
    assert found["held"].tolist() == [0.97, 0.5]
