"""Whole runs, settings times seeds: what is kept of them."""

import json
import math

import pandas as pd
import pytest
import torch
import yaml
from shared import FAST

from studies import whole_runs
from studies.__main__ import main
from tvae_lib.measures.generation import generate
from tvae_lib.measures.reconstruction import trit_accuracy
from tvae_lib.operations import SIZE, all_operations
from tvae_lib.rng import stream
from tvae_lib.runs.directory import Run
from tvae_lib.runs.files import write_json, write_table
from tvae_lib.training.config import ROOT, ParameterError, identity


def steps(folder, *arguments):
    """`python -m studies`, in this process."""
    main([*map(str, arguments), "--runs", str(folder / "runs")])


def test_steps_train_together_and_summarise(tmp_path):
    steps(tmp_path, "together", "tiny", 0, 1, "--parameters", json.dumps({**FAST, "total_epochs": 4}))
    run, target = Run(tmp_path / "runs" / "tiny" / "seed1"), tmp_path / "results" / "tiny" / "seed1.json"
    steps(tmp_path, "summary", "tiny", 1, "--output", target)
    kept = json.loads(target.read_text())
    assert kept == {
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


def test_results_are_read_by_setting_in_the_order_of_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_runs, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="no results of setting tiny"):
        whole_runs.summaries("tiny")
    (tmp_path / "tiny").mkdir()
    for seed in (10, 2):
        write_json(tmp_path / "tiny" / f"seed{seed}.json", {"seed": seed})
        write_table(tmp_path / "tiny" / f"seed{seed}.csv", pd.DataFrame({"epoch": [0, 1]}))
    assert [kept["seed"] for kept in whole_runs.summaries("tiny")] == [2, 10]
    assert whole_runs.evaluations("tiny")["seed"].tolist() == [2, 2, 10, 10]


def test_steps_refuse_with_one_sentence(tmp_path):
    with pytest.raises(ParameterError, match=r"^seed is 3, but '.*seed3' holds no finished run of setting tiny\.$"):
        steps(tmp_path, "summary", "tiny", 3, "--output", tmp_path / "kept.json")
    with pytest.raises(ParameterError, match=r"^run_dir is 'x' in setting tiny; the study itself gives it\.$"):
        steps(tmp_path, "together", "tiny", 3, "--parameters", '{"run_dir": "x"}')
    assert not list(tmp_path.iterdir())


def test_every_setting_is_a_configuration_and_every_summary_is_of_its_setting():
    settings = yaml.safe_load((ROOT / "studies" / "whole_runs.yaml").read_text())["settings"]
    for setting, parameters in settings.items():
        whole_runs.configuration(whole_runs.RUNS, setting, 0, **parameters)
    for path in whole_runs.RESULTS.glob("*/*.json"):
        kept = json.loads(path.read_text())
        config = whole_runs.configuration(whole_runs.RUNS, kept["setting"], kept["seed"], **settings[kept["setting"]])
        assert path == whole_runs.run_dir(whole_runs.RESULTS, kept["setting"], kept["seed"]).with_suffix(".json")
        expected = identity(config)
        younger = expected.keys() - kept["parameters"].keys()  # than the run, which took all samples
        assert younger <= {"final_error"}, path
        assert kept["parameters"] == {name: value for name, value in expected.items() if name not in younger}, path
