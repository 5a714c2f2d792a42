import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tvae_lib import operations
from tvae_lib.operations import SIZE, TRITS, all_operations, index_of, one_hot, operation_at, split

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


@given(st.floats(0, 0.9))
def test_split_is_a_partition_of_the_asked_size(holdout):
    training, held_out = split(holdout, torch.Generator().manual_seed(1))
    assert sorted(training.tolist() + held_out.tolist()) == list(range(SIZE))
    assert len(held_out) == round(holdout * SIZE)


@pytest.mark.parametrize(("holdout", "least"), [(0.0, 0), (0.1, 2187), (0.2, 3 * 1215)])
def test_a_split_by_pairs_holds_out_all_that_have_a_pair_of_values(holdout, least):
    training, held_out = split(holdout, torch.Generator().manual_seed(1), "pairs")
    assert sorted(training.tolist() + held_out.tolist()) == list(range(SIZE))
    assert len(held_out) >= least
    if holdout == 0.1:
        held, kept = operation_at(held_out), operation_at(training)
        fixed = (held == held[0]).all(0).nonzero().flatten()
        assert len(held_out) == least
        assert len(fixed) == 2
        assert not (kept[:, fixed] == held[0, fixed]).all(1).any()


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
