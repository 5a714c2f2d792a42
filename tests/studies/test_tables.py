"""Tables that grow by whole rows, and what the chapters read of them."""

import math
import shutil

import pandas as pd
import pytest
import torch
from scipy import stats

from studies import tables
from studies.catalogue import study_of
from studies.tables import Table, interval, kept, read
from tvae_lib.errors import FileError


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


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the committed tables, which are read from it."""
    shutil.copytree(tables.FOLDER, tmp_path / "tables")
    monkeypatch.setattr(tables, "FOLDER", tmp_path / "tables")
    return tmp_path / "tables"


def test_a_table_that_was_not_made_is_named_with_the_command_that_makes_it(folder):
    (folder / "singles.csv").unlink()
    with pytest.raises(FileError, match=r"singles\.csv' is missing; `make studies ONLY=singles` makes it\.$"):
        read("singles")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text[:-3],
        lambda text: text.replace("1", "2", 1),
        lambda text: "",
        lambda text: "".join(text.splitlines(keepends=True)[:-1]),
    ],
    ids=["half", "a torn last row", "a digit", "empty", "a row less"],
)
def test_a_damaged_table_is_named_with_the_command_that_makes_it_again(folder, change):
    path = folder / "singles.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(FileError, match=r"; delete it, and `make studies ONLY=singles` makes it again\.$"):
        read("singles")


def test_rows_are_taken_out_to_be_made_again_and_the_table_says_so(folder):
    before = read("sobol")
    assert tables.drop(study_of("sobol"), folder, {"decoder": "hand-written", "seed": "3"}) > 0
    with pytest.raises(FileError, match="lacks rows; `make studies ONLY=sobol` makes them"):
        read("sobol")
    left = pd.read_csv(folder / "sobol.csv")
    gone = before.merge(left, how="left", indicator=True).query("_merge == 'left_only'")
    assert set(gone["decoder"]) == {"hand-written"}
    assert set(gone["seed"]) == {3}
    assert study_of("sobol").lacking(folder) == ["hand-written"]
