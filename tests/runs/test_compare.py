"""Runs side by side: which they are, what they differ in, and one sentence where that cannot be said."""

import shutil

import pytest
from shared import is_one_sentence, start

from tvae_lib.errors import ParameterError
from tvae_lib.runs import compare


@pytest.fixture(scope="module")
def folders(whole, tmp_path_factory):
    """The names of four runs: two of one kind, one without StateNet, and that one with another seed, unfinished."""
    folder = tmp_path_factory.mktemp("compared")
    given = {
        "plain-seed0": None,
        "plain-seed1": {"seed": 1},
        "off-seed0": {"statenet": "off"},
        "off-seed1": {"statenet": "off", "seed": 1, "epochs": 3},
    }
    for name, parameters in given.items():
        if parameters is None:
            shutil.copytree(whole.path, folder / name)
        else:
            start(folder / name, **parameters)
    return [str(folder / name) for name in given]


def test_runs_are_found_and_sorted_by_kind(folders):
    runs, baseline = compare.chosen(", ".join(folders), "")
    assert list(runs) == folders
    assert baseline == folders[0]
    assert [label.rsplit("/", 1)[1] for label in compare.kinds(runs)] == ["plain", "off"]
    assert list(compare.kinds(runs).values()) == [folders[:2], folders[2:]]
    assert compare.chosen(",".join(folders), folders[3])[1] == folders[3]


def test_a_name_is_looked_for_in_results_and_runs():
    runs, _ = compare.chosen("reference,repaired", "")
    assert {run.path.name for run in runs.values()} == {"reference", "repaired"}


def test_configurations_differ_in_what_they_were_given(folders):
    runs, _ = compare.chosen(",".join(folders), "")
    table = compare.differing(runs)
    assert sorted(table.index) == ["seed", "statenet"]
    assert table.loc["seed"].tolist() == [0, 1, 0, 1]
    assert table.loc["statenet"].tolist() == ["backprop", "backprop", "off", "off"]


def test_kinds_of_the_same_folder_name_are_told_apart(folders):
    runs = {"a/run": compare.find(folders[0]), "a/run-seed1": compare.find(folders[2])}
    assert list(compare.kinds(runs)) == ["a/run", "a/run-seed1"]


def test_table_has_evaluations_and_history_of_all(folders):
    runs, _ = compare.chosen(",".join(folders), "")
    table = compare.judged_epochs(runs)
    assert table.groupby("run", sort=False)["epoch"].max().tolist() == [4, 4, 4, 2]
    assert compare.last_common(table, folders[:3]) == 4
    assert compare.last_common(table, folders) == 2
    assert compare.check_metrics("kl_uniform,ce, coverage_100", table) == ["kl_uniform", "ce", "coverage_100"]
    row = table[(table["run"] == folders[1]) & (table["epoch"] == 4)].iloc[0]
    assert row["seed"] == 1
    assert row["ce_A"] == runs[folders[1]].history.set_index("epoch")["ce_A"][4]


@pytest.mark.parametrize(
    ("runs", "baseline", "named"),
    [
        ("", "", "runs"),
        ("reference", "", "runs"),
        ("reference,,repaired", "", "runs"),
        ("reference,reference", "", "runs"),
        ("reference,nowhere", "", "runs"),
        ("reference,repaired", "nowhere", "baseline"),
        (7, "", "runs"),
    ],
)
def test_bad_names_end_in_one_sentence(runs, baseline, named):
    with pytest.raises(ParameterError) as caught:
        compare.chosen(runs, baseline)
    assert is_one_sentence(str(caught.value))
    assert str(caught.value).startswith(f"{named} is ")


@pytest.mark.parametrize("metrics", ["", "kl_uniform,", "kl_unifrom", "epoch", None])
def test_bad_metrics_end_in_one_sentence(metrics):
    table = compare.judged_epochs({"reference": compare.find("reference")})
    with pytest.raises(ParameterError) as caught:
        compare.check_metrics(metrics, table)
    assert is_one_sentence(str(caught.value))
    assert str(caught.value).startswith("metrics is ")


def test_a_run_without_an_evaluation_is_refused(folders, tmp_path):
    shutil.copytree(folders[0], tmp_path / "empty")
    (tmp_path / "empty" / "evaluations.csv").unlink()
    with pytest.raises(ParameterError, match="without an evaluation"):
        compare.find(str(tmp_path / "empty"))
