"""Tables that grow by whole rows, and what the chapters read of them."""

import math

import pytest
import torch
from scipy import stats

from studies.tables import Table, interval, kept, read


def test_rows_are_added_once_and_written_in_the_order_of_their_keys(tmp_path):
    path, keys = tmp_path / "t.csv", ("name", "seed")
    Table(path, keys).add([{"name": name, "seed": seed, "x": 1.5} for name, seed in (("b", 0), ("a", 10), ("a", 9))])
    Table(path, keys).add([{"name": "b", "seed": seed, "x": 7.0} for seed in (0, 1)])
    assert path.read_text() == "name,seed,x\na,9,1.5\na,10,1.5\nb,0,1.5\nb,1,7\n"


def test_a_row_without_its_last_value_is_not_there(tmp_path):
    (tmp_path / "t.csv").write_text("seed,x,y\n0,,2\n1,3,\n")
    table = Table(tmp_path / "t.csv", ("seed",))
    assert table.has([{"seed": 0}])
    assert not table.has([{"seed": 0}, {"seed": 1}])


def test_interval_is_students_t(rng):
    values = torch.randn(7, generator=rng, dtype=torch.float64)
    middle, half = interval(values.tolist())
    assert middle == pytest.approx(values.mean().item())
    assert half == pytest.approx(stats.t.ppf(0.975, 6) * values.std().item() / math.sqrt(7))


def test_kept_pair_is_that_of_the_table():
    row = read("rate").query("beta_start == 0.3 and beta_end == 0.98 and tau == 1 and seed == 0 and pathway == 'A'")
    assert row["exact"].item() == 1
    assert not kept().training


def test_a_table_that_was_not_made_is_not_found():
    with pytest.raises(FileNotFoundError, match="rats"):
        read("rats")
