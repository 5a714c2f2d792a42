"""Whole runs, settings times seeds: what is kept of them."""

import json
import math
import shutil

import pandas as pd
import pytest
import torch
import yaml
from shared import FAST, is_one_sentence

from studies import whole_runs
from studies.__main__ import main
from tvae_lib.errors import FileError, ParameterError
from tvae_lib.measures.generation import generate
from tvae_lib.measures.reconstruction import trit_accuracy
from tvae_lib.operations import SIZE, all_operations
from tvae_lib.rng import stream
from tvae_lib.runs.directory import Run
from tvae_lib.runs.files import FORMAT, read_sealed, sha256, write_sealed, write_table
from tvae_lib.training.config import ROOT, identity


def steps(folder, *arguments):
    """`python -m studies`, in this process."""
    main([*map(str, arguments), "--runs", str(folder / "runs")])


def test_steps_train_together_and_summarise(tmp_path):
    steps(tmp_path, "together", "tiny", 0, 1, "--parameters", json.dumps({**FAST, "total_epochs": 4}))
    run, target = Run(tmp_path / "runs" / "tiny" / "seed1"), tmp_path / "results" / "tiny" / "seed1.json"
    steps(tmp_path, "summary", "tiny", 1, "--output", target)
    kept = read_sealed(target)
    assert kept == {
        "format": FORMAT,
        "sha256": sha256(target.with_suffix(".csv")),
        "generalisation": whole_runs.generalisation(run),
        "conditions": whole_runs.conditions(run),
        "trits": whole_runs.trits(run),
        "setting": "tiny",
        "seed": 1,
        "command": "snakemake --snakefile studies/Snakefile results/sweep/tiny/seed1.json",
        "parameters": run.config["parameters"],
        "sessions": run.timing["sessions"],
        "metrics": run.metrics,
    }
    table = pd.read_csv(target.with_suffix(".csv"))
    pd.testing.assert_frame_equal(table[run.evaluations.columns], run.evaluations)
    assert set(table["epoch"]) == {0, 2, 4}
    both = kept["generalisation"]["A"]  # nine tenths were held out
    whole, _ = generate(run.model().A.decoder, 16, 2048, 1, stream(1, 0, "generalisation A"))
    surprise = 0.1 * both["training"]["surprise"] + 0.9 * both["held_out"]["surprise"]
    assert surprise == pytest.approx(whole.kl_uniform(), abs=1e-4)
    assert all(0 <= part["exact"][0] < 0.1 for part in both.values())
    assert list(kept["trits"]) == [*(str(epoch) for epoch in run.snapshots() if epoch), "4"]
    last = trit_accuracy(run.model(), all_operations().float(), run.history["rho"].iloc[-1])
    assert [kept["trits"]["4"][p] for p in "AB"] == last.tolist()
    assert kept["conditions"]["balanced"] == pytest.approx(run.history["gate"].mean())
    assert kept["conditions"]["rho_before_phase_4"] == run.history["rho"][1]  # of four epochs, the second


class Fallen:
    """Stands for a run at two evaluations: A holds all but one operation, then all but two."""

    def log_p(self):
        rows = torch.full((2, 2, SIZE), -math.log(SIZE))
        rows[:, 0, 0] -= 0.8  # under a half of the uniform probability
        rows[1, 0, 1] -= 0.8
        rows[1, 0, 2] -= 0.6  # over a half
        return torch.tensor([0, 10]), rows.half()


def test_operations_are_held_from_half_the_uniform_probability():
    table = whole_runs.held_shares(Fallen())
    assert table["epoch"].tolist() == [0, 10]
    assert (table["held_A"] * SIZE).round().tolist() == [SIZE - 1, SIZE - 2]
    assert table["held_B"].tolist() == [1, 1]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep of two seeds of a setting of which seeds 2 and 10 are asked for, and are there."""
    monkeypatch.setattr(whole_runs, "RESULTS", tmp_path)
    monkeypatch.setattr(whole_runs, "PLAN", {"seeds": "2,10", "seeds_of": {}, "settings": {"tiny": {}}})
    (tmp_path / "tiny").mkdir()
    for seed in (10, 2):
        path = tmp_path / "tiny" / f"seed{seed}.json"
        write_table(path.with_suffix(".csv"), pd.DataFrame({"epoch": [0, 1], "x": [0.5, seed]}))
        kept = {"format": FORMAT, "setting": "tiny", "seed": seed, "sha256": sha256(path.with_suffix(".csv"))}
        write_sealed(path, kept)
    return tmp_path / "tiny"


def test_results_are_read_by_setting_in_the_order_of_seeds(sweep):
    with pytest.raises(FileError, match="other' holds no results; `make studies` makes those"):
        whole_runs.summaries("other")
    assert [kept["seed"] for kept in whole_runs.summaries("tiny")] == [2, 10]
    assert whole_runs.evaluations("tiny")["seed"].tolist() == [2, 2, 10, 10]


@pytest.mark.parametrize(("preset", "exact"), [("repaired", [0.9, 0.8]), ("document", [0.7, 0.6])])
def test_what_is_held_out_is_judged_on_the_codes_that_are_read(monkeypatch, preset, exact):
    surprise = {"training": {"surprise": 0.1}, "held_out": {"surprise": 0.35}}
    shares = {"alone_A": 0.9, "alone_B": 0.8, "coupled_A": 0.7, "coupled_B": 0.6}
    kept = {
        "seed": 3,
        "parameters": {"preset": preset, "device": "cpu"},
        "metrics": {"reconstruction": {"held_out": shares}},
        "generalisation": {"A": surprise, "B": surprise},
    }
    monkeypatch.setattr(whole_runs, "summaries", lambda setting: [kept])
    found = whole_runs.held_out("tiny").set_index("pathway")
    assert found["exact"].tolist() == exact
    assert found["rarer"].tolist() == pytest.approx([0.25, 0.25])


def test_a_setting_with_fewer_seeds_needs_no_more(sweep, monkeypatch):
    for path in sweep.glob("seed10.*"):
        path.unlink()
    with pytest.raises(FileError, match="seed10"):
        whole_runs.summaries("tiny")
    monkeypatch.setitem(whole_runs.PLAN, "seeds_of", {"tiny": 2})
    assert [kept["seed"] for kept in whole_runs.summaries("tiny")] == [2]


@pytest.mark.parametrize("name", ["seed2.json", "seed10.csv"])
@pytest.mark.parametrize("damage", ["missing", "half", "a digit", "of another seed", "empty"])
def test_results_that_are_not_whole_are_named_with_the_command_that_makes_them(sweep, name, damage):
    path, seed = sweep / name, 2 if "2" in name else 10
    text = path.read_text()
    if damage == "missing":
        path.unlink()
    elif damage == "of another seed":
        shutil.copy(sweep / name.replace(str(seed), str(12 - seed)), path)
    else:
        path.write_text({"half": text[: len(text) // 2], "a digit": text.replace("0", "7", 1), "empty": ""}[damage])
    for act in (whole_runs.summaries, whole_runs.evaluations):
        with pytest.raises(FileError, match=rf"{name}.*`make studies ONLY=tiny SEEDS={seed}` makes") as refusal:
            act("tiny")
        assert is_one_sentence(str(refusal.value))


def test_steps_refuse_with_one_sentence(tmp_path):
    with pytest.raises(ParameterError, match=r"^seed is 3, but '.*seed3' holds no finished run of setting tiny\.$"):
        steps(tmp_path, "summary", "tiny", 3, "--output", tmp_path / "kept.json")
    assert not list(tmp_path.iterdir())


# Parameters that came after some of the runs that are kept, all of which have what is now their default.
YOUNGER = {"holdout_by", "injection", "temperatures", "diversity", "diversity_end", "prior_samples", "memory"}
YOUNGER |= {"hypergradient", "distance", "averaging"}


def test_every_setting_is_a_configuration_and_every_summary_is_of_its_setting():
    settings = yaml.safe_load((ROOT / "studies" / "whole_runs.yaml").read_text())["settings"]
    for setting, parameters in settings.items():
        whole_runs.configuration(whole_runs.RUNS, setting, 0, **parameters)
    for path in whole_runs.RESULTS.glob("*/*.json"):
        kept = json.loads(path.read_text())
        config = whole_runs.configuration(whole_runs.RUNS, kept["setting"], kept["seed"], **settings[kept["setting"]])
        assert path == whole_runs.run_dir(whole_runs.RESULTS, kept["setting"], kept["seed"]).with_suffix(".json")
        expected = identity(config)
        younger = expected.keys() - kept["parameters"].keys()
        assert younger <= YOUNGER, path
        assert kept["parameters"] == {name: value for name, value in expected.items() if name not in younger}, path
