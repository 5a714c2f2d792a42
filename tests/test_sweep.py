"""Sweeps: runs that train together, and the workflow from outside, as an experimenter calls and kills it."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
import yaml
from safetensors import SafetensorError

from tvae_lib import evaluation, runs, sweep
from tvae_lib.config import ROOT, ParameterError, identity, make_config
from tvae_lib.ensemble import Ensemble
from tvae_lib.operations import SIZE, all_operations
from tvae_lib.runs import Run, execute, execute_together
from tvae_lib.streams import stream
from tvae_lib.training import Trainer, flatten, initial_state

TINY = {
    "holdout": 0.9,
    "total_epochs": 4,
    "eval_every": 2,
    "eval_samples": 1024,
    "final_samples": 1024,
    "coverage_samples": "100",
    "checkpoint_every": 2,
}
SAME = ("model.safetensors", "history.csv", "evaluations.csv", "evaluations.safetensors", "metrics.json")


def configs(folder, seeds=(0, 1), **parameters):
    given = {**TINY, "device": "cpu", **parameters}
    return [make_config(**given, seed=seed, run_dir=str(folder / f"seed{seed}")) for seed in seeds]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two runs that trained together without a stop."""
    return execute_together(configs(tmp_path_factory.mktemp("together")))


def assert_same_files(run, other):
    for name in SAME:
        assert (run.path / name).read_bytes() == (other.path / name).read_bytes(), name


def assert_same_to_rounding(run, other):
    for name in ("loss", "lr", "lambda_3", "norm_B"):
        assert run.history[name].tolist() == pytest.approx(other.history[name].tolist(), rel=1e-3), name


def stop_before(monkeypatch, epoch):
    """Interrupt whatever trains before it goes through this epoch."""
    train = Trainer.epoch

    def stopping(trainer, state):
        if int(state["epoch"].max()) == epoch:
            raise KeyboardInterrupt
        return train(trainer, state)

    monkeypatch.setattr(Trainer, "epoch", stopping)


class TestTogether:
    def test_takes_the_steps_of_the_ensemble_and_writes_what_a_run_alone_writes(self, whole, tmp_path):
        members = configs(tmp_path)
        replicas = Ensemble(members, "cpu")
        state = replicas.stack([initial_state(config, replicas.device) for config in members])  # noqa: PD013
        for _ in range(4):
            state = replicas.epoch(state)
        for config, run, mine in zip(members, whole, replicas.unstack(state), strict=True):  # noqa: PD010
            assert torch.equal(flatten(run.model()), mine["theta"])
            alone = execute(config)
            assert_same_to_rounding(run, alone)
            assert run.config["parameters"] == alone.config["parameters"] == identity(config)
            assert [p.name for p in sorted(run.path.rglob("*"))] == [p.name for p in sorted(alone.path.rglob("*"))]
            assert run.timing["sessions"][0]["replicas"] == 2
            assert "replicas" not in alone.timing["sessions"][0]

    def test_is_shown_and_not_touched_once_it_is_finished(self, whole):
        before = {p: p.stat().st_mtime_ns for run in whole for p in run.path.rglob("*")}
        shown = execute_together(configs(whole[0].path.parent))
        assert [run.metrics for run in shown] == [run.metrics for run in whole]
        assert before == {p: p.stat().st_mtime_ns for run in whole for p in run.path.rglob("*")}

    def test_resumes_to_the_same_bits(self, whole, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            stop_before(patch, 3)
            with pytest.raises(KeyboardInterrupt):
                execute_together(configs(tmp_path))
        for run, uninterrupted in zip(execute_together(configs(tmp_path)), whole, strict=True):
            assert_same_files(run, uninterrupted)
            assert run.timing["sessions"][-1]["from_epoch"] == 2, "at most one interval is lost"

    def test_killed_between_two_checkpoints_goes_on_in_groups(self, whole, tmp_path, monkeypatch):
        write, written = runs.write_tensors, []

        def failing(path, tensors):
            if path.name == "checkpoint.safetensors":
                written.append(path)
            if len(written) == 2:
                raise KeyboardInterrupt
            write(path, tensors)

        three = (0, 1, 2)
        with monkeypatch.context() as patch:
            patch.setattr(runs, "write_tensors", failing)
            with pytest.raises(KeyboardInterrupt):
                execute_together(configs(tmp_path, three))
        done = execute_together(configs(tmp_path, three))
        last = [run.timing["sessions"][-1] for run in done]
        assert [(session["from_epoch"], session.get("replicas", 1)) for session in last] == [(2, 1), (0, 2), (0, 2)]
        for run, uninterrupted in zip(done, whole, strict=False):
            assert_same_to_rounding(run, uninterrupted)

    def test_a_finished_one_stays_as_it_is_beside_new_ones(self, whole, tmp_path):
        shutil.copytree(whole[0].path, tmp_path / "seed0")
        done = execute_together(configs(tmp_path))
        assert_same_files(done[0], whole[0])
        assert len(done[0].timing["sessions"]) == 1
        assert_same_to_rounding(done[1], whole[1])

    def test_one_that_diverges_ends_alone(self, whole, tmp_path, monkeypatch):
        train = Trainer.epoch

        def diverging(trainer, state):
            state = train(trainer, state)
            state["history"][1, 2] = torch.nan
            state["theta"][1] = torch.nan
            return state

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "epoch", diverging)
            with pytest.raises(
                FloatingPointError, match=r"^the loss is not finite from epoch 2 on in run_dir '.*seed1'$"
            ):
                execute_together(configs(tmp_path))
        assert_same_files(Run(tmp_path / "seed0"), whole[0])
        assert not Run(tmp_path / "seed1").finished

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"latent": 2}, r"^latent is 2 in replica 1; it must be 16, the same in every replica of an ensemble\.$"),
            ({"epochs": 3}, r"^epochs is 3 in replica 1; it must be 4, the same in every run that trains together\.$"),
            ({"device": "auto"}, r"^device is 'auto' in replica 1; it must be 'cpu', the same in every run"),
            ({"seed": 0}, r"^run_dir is '.*seed0' in replicas 0 and 1; each needs its own\.$"),
        ],
    )
    def test_bad_input_gets_one_sentence_before_anything_is_written(self, tmp_path, change, message):
        first = configs(tmp_path, (0,))
        second = configs(tmp_path, (change.pop("seed", 1),), **change)
        with pytest.raises(ParameterError, match=message):
            execute_together(first + second)
        assert not list(tmp_path.iterdir())

    def test_of_none_is_none(self):
        assert execute_together([]) == []


def steps(folder, *arguments):
    """`python -m tvae_lib.sweep`, in this process."""
    sweep.main([*map(str, arguments), "--runs", str(folder / "runs")])


def test_steps_train_together_and_summarise(tmp_path):
    steps(tmp_path, "together", "tiny", 0, 1, "--parameters", json.dumps({**TINY, "device": "cpu"}))
    run, target = Run(tmp_path / "runs" / "tiny" / "seed1"), tmp_path / "results" / "tiny" / "seed1.json"
    steps(tmp_path, "summary", "tiny", 1, "--output", target)
    kept = json.loads(target.read_text())
    assert kept == {
        "generalisation": sweep.generalisation(run),
        "conditions": sweep.conditions(run),
        "trits": sweep.trits(run),
        "setting": "tiny",
        "seed": 1,
        "command": "snakemake results/sweep/tiny/seed1.json",
        "parameters": run.config["parameters"],
        "sessions": run.timing["sessions"],
        "metrics": run.metrics,
    }
    table = pd.read_csv(target.with_suffix(".csv"))
    pd.testing.assert_frame_equal(table[run.evaluations.columns], run.evaluations)
    assert set(table["epoch"]) == {0, 2, 4}
    both = kept["generalisation"]["A"]  # nine tenths were held out
    whole, _ = evaluation.generate(run.model().A.decoder, 16, 1024, 1, stream(1, 0, "generalisation A"))
    surprise = 0.1 * both["training"]["surprise"] + 0.9 * both["held_out"]["surprise"]
    assert surprise == pytest.approx(whole.kl_uniform(), abs=1e-4)
    assert all(0 <= part["exact"][0] < 0.1 for part in both.values())
    assert list(kept["trits"]) == [*(str(epoch) for epoch in run.snapshots() if epoch), "4"]
    last = evaluation.trit_accuracy(run.model(), all_operations().float(), run.history["rho"].iloc[-1])
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
    table = sweep.held(Fallen())
    assert table["epoch"].tolist() == [0, 10]
    assert (table["held_A"] * SIZE).round().tolist() == [SIZE - 1, SIZE - 2]
    assert table["held_B"].tolist() == [1, 1]


def test_results_are_read_by_setting_in_the_order_of_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="no results of setting tiny"):
        sweep.summaries("tiny")
    (tmp_path / "tiny").mkdir()
    for seed in (10, 2):
        runs.write_json(tmp_path / "tiny" / f"seed{seed}.json", {"seed": seed})
        runs.write_table(tmp_path / "tiny" / f"seed{seed}.csv", pd.DataFrame({"epoch": [0, 1]}))
    assert [kept["seed"] for kept in sweep.summaries("tiny")] == [2, 10]
    assert sweep.evaluations("tiny")["seed"].tolist() == [2, 2, 10, 10]


def test_steps_refuse_with_one_sentence(tmp_path):
    with pytest.raises(ParameterError, match=r"^seed is 3, but '.*seed3' holds no finished run of setting tiny\.$"):
        steps(tmp_path, "summary", "tiny", 3, "--output", tmp_path / "kept.json")
    with pytest.raises(ParameterError, match=r"^run_dir is 'x' in setting tiny; the sweep itself gives it\.$"):
        steps(tmp_path, "together", "tiny", 3, "--parameters", '{"run_dir": "x"}')
    assert not list(tmp_path.iterdir())


def test_every_setting_is_a_configuration_and_every_summary_is_of_its_setting():
    settings = yaml.safe_load((ROOT / "workflow" / "sweep.yaml").read_text())["settings"]
    for setting, parameters in settings.items():
        sweep.configuration(sweep.RUNS, setting, 0, **parameters)
    for path in sweep.RESULTS.glob("*/*.json"):
        kept = json.loads(path.read_text())
        config = sweep.configuration(sweep.RUNS, kept["setting"], kept["seed"], **settings[kept["setting"]])
        assert path == sweep.run_dir(sweep.RESULTS, kept["setting"], kept["seed"]).with_suffix(".json")
        assert kept["parameters"] == identity(config), path


LONG = {**TINY, "total_epochs": 40, "eval_every": 20, "checkpoint_every": 2}
SETTINGS = {"tiny": {**TINY, "epochs": 2}, "long": LONG, "broken": {"lr": 7.0}}


@pytest.fixture
def clone(tmp_path):
    """A clone with settings of its own and a notebook without figures."""
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    path = tmp_path / "workflow" / "sweep.yaml"
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(content | {"settings": SETTINGS, "seeds": "0-1", "device": "cpu"}))
    notebook = nbformat.read(ROOT / content["notebook"], 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:3]
    cells[2].source = "from tvae_lib.runs import execute\n\nrun = execute(config)"
    notebook.cells = cells
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / content["notebook"])
    return tmp_path


def launch(tree, *arguments):
    environment = {k: v for k, v in os.environ.items() if k != "TVAE_SHOW_REFERENCE"} | {"PYTHONPATH": str(ROOT)}
    command = [Path(sys.executable).parent / "snakemake", "--cores", "1", *arguments]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=tree, env=environment, start_new_session=True, **output)


def snakemake(tree, *arguments):
    """Its exit code and what it says."""
    process = launch(tree, *arguments)
    said, _ = process.communicate()
    return process.returncode, said


def jobs(tree, *arguments):
    """The runs and summaries that a dry run would make."""
    code, said = snakemake(tree, "-n", *arguments)
    assert code == 0, said
    lines = {line.strip() for line in said.splitlines()}
    return sorted(line.removeprefix("log: ") for line in lines if line.startswith("log: "))


def results_of(tree, seeds=(0, 1)):
    for setting in SETTINGS:
        for seed in seeds:
            for suffix in (".json", ".csv"):
                path = tree / "results" / "sweep" / setting / f"seed{seed}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("kept")


def test_a_clean_clone_with_every_result_has_nothing_to_do(clone):
    results_of(clone)
    files = [path for path in clone.rglob("*") if path.is_file()]
    times = random.Random(0)
    for path in files:
        os.utime(path, (moment := times.randrange(10**9, 2 * 10**9), moment))
    code, said = snakemake(clone)
    assert code == 0, said
    assert "Nothing to be done" in said
    assert not (clone / "runs").exists()
    assert all(path.read_text() == "kept" for path in (clone / "results").rglob("*.*"))


def test_a_part_is_chosen_by_settings_and_seeds(clone):
    log = "runs/sweep/{}/seed{}.log".format
    results_of(clone, seeds=(0,))
    wanted = [log(setting, seed) for setting in ("long", "tiny") for seed in (1, 3)]
    assert jobs(clone, "--config", "only=tiny,long", "seeds=0-1,3") == wanted
    assert jobs(clone, "results/sweep/long/seed7.json") == [log("long", 7)]
    code, said = snakemake(clone, "-n", "--config", "only=tony")
    assert code != 0
    assert "only is 'tony'; it must be one or more of" in said
    code, said = snakemake(clone, "-n", "--config", "seeds=x")
    assert code != 0
    assert "seeds is 'x'; it must be numbers and ranges" in said


def test_make_passes_the_choice_on():
    command = ["make", "-n", "sweep", "SETTINGS=document", "SEEDS=0,3"]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # as by hand
    said = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True).stdout
    assert said.splitlines()[-1].endswith("snakemake --config only=document seeds=0,3")


def test_slurm_takes_the_same_file(clone):
    profile = ("--workflow-profile", "workflow/profiles/slurm")
    assert len(jobs(clone, "--executor", "slurm", "--jobs", "9")) == 6
    code, said = snakemake(clone, "-n", *profile, "--config", "device=cuda", "only=tiny")
    assert code == 0, said
    assert "runs/sweep/tiny/together-0-1.log" in said
    assert "gpu=1" in said
    assert "mem_mb=4000" in said


def test_seeds_of_a_setting_train_in_one_job_and_each_has_its_page(clone):
    code, said = snakemake(clone, "results/sweep/tiny/seed1.json", "--config", "together=True")
    assert code == 0, said
    kept = json.loads((clone / "results" / "sweep" / "tiny" / "seed1.json").read_text())
    assert [session["replicas"] for session in kept["sessions"]] == [2]
    assert (clone / "runs" / "sweep" / "tiny" / "seed1.ipynb").exists()
    assert Run(clone / "runs" / "sweep" / "tiny" / "seed0").finished


def epoch_reached(run):
    try:
        return int(runs.read_tensors(run / "checkpoint.safetensors")["epoch"])
    except (FileNotFoundError, SafetensorError):
        return 0


def test_killed_it_goes_on_where_it_was_and_a_failing_run_stops_no_other(clone):
    run, choice = clone / "runs" / "sweep" / "long" / "seed0", ("--config", "seeds=0", "only=broken,long")
    for target, kill in ((2, lambda process: os.killpg(process.pid, signal.SIGKILL)), (8, lambda p: p.kill())):
        process = launch(clone, *choice)
        while epoch_reached(run) < target:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        kill(process)
        process.wait()
        process.stdout.close()
        assert epoch_reached(run) < 40
    code, said = snakemake(clone, *choice)
    assert code == 1, said
    assert "ParameterError: lr is 7.0" in said
    assert not list((clone / "results").glob("*/broken/*"))
    kept = json.loads((clone / "results" / "sweep" / "long" / "seed0.json").read_text())
    first, last = kept["sessions"]  # the last is of the kernel that outlived its Snakemake: it was waited for
    assert 2 <= first["to_epoch"] == last["from_epoch"] < last["to_epoch"] == 40
    shutil.rmtree(clone / "runs")
    code, said = snakemake(clone, "--config", "seeds=0", "only=long")
    assert code == 0, said
    assert "Nothing to be done" in said
