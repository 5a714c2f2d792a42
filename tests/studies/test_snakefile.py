"""The workflow from outside, as an experimenter calls and kills it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import yaml
from safetensors import SafetensorError

from studies.catalogue import study_of
from studies.tables import FOLDER, Table
from tvae_lib.runs.directory import Run
from tvae_lib.runs.files import read_tensors
from tvae_lib.training.config import ROOT

TINY = {
    "holdout": 0.9,
    "total_epochs": 4,
    "eval_every": 2,
    "eval_samples": 1024,
    "final_samples": 1024,
    "coverage_samples": "100",
    "checkpoint_every": 2,
}


LONG = {**TINY, "total_epochs": 40, "eval_every": 20, "checkpoint_every": 2}


SETTINGS = {"tiny": {**TINY, "epochs": 2}, "long": LONG, "broken": {"lr": 7.0}}


@pytest.fixture
def clone(tmp_path):
    """A clone with the tables, settings of its own and a notebook without figures."""
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    path = tmp_path / "studies" / "whole_runs.yaml"
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(content | {"settings": SETTINGS, "seeds": "0-1", "device": "cpu"}))
    notebook = nbformat.read(ROOT / content["notebook"], 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:3]
    cells[2].source = "from tvae_lib.runs.execute import execute\n\nrun = execute(config)"
    notebook.cells = cells
    shutil.copytree(ROOT / "results" / "experiments", tmp_path / "results" / "experiments")
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / content["notebook"])
    return tmp_path


def launch(tree, *arguments):
    environment = {k: v for k, v in os.environ.items() if k != "TVAE_SHOW_REFERENCE"} | {"PYTHONPATH": str(ROOT)}
    command = [
        Path(sys.executable).parent / "snakemake",
        "--snakefile",
        "studies/Snakefile",
        "--cores",
        "1",
        *arguments,
    ]
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
    assert all(path.read_text() == "kept" for path in (clone / "results" / "sweep").rglob("*.*"))
    for path in FOLDER.iterdir():
        assert (clone / "results" / "experiments" / path.name).read_bytes() == path.read_bytes()


def test_a_part_is_chosen_by_settings_and_seeds(clone):
    log = "runs/studies/{}/seed{}.log".format
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
    command = ["make", "-n", "studies", "ONLY=phases,document", "SEEDS=0,3", "DRY=1"]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # as by hand
    said = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True).stdout
    wanted = "snakemake --snakefile studies/Snakefile --dry-run --config only=phases,document seeds=0,3"
    assert said.splitlines()[-1].endswith(wanted)


def test_slurm_takes_the_same_file(clone):
    profile = ("--workflow-profile", "studies/profiles/slurm")
    assert len(jobs(clone, "--executor", "slurm", "--jobs", "9")) == 6
    code, said = snakemake(clone, "-n", *profile, "--config", "device=cuda", "only=tiny")
    assert code == 0, said
    assert "runs/studies/tiny/together-0-1.log" in said
    assert "gpu=1" in said
    assert "mem_mb=4000" in said


def test_seeds_of_a_setting_train_in_one_job_and_each_has_its_page(clone):
    code, said = snakemake(clone, "results/sweep/tiny/seed1.json", "--config", "together=True")
    assert code == 0, said
    kept = json.loads((clone / "results" / "sweep" / "tiny" / "seed1.json").read_text())
    assert [session["replicas"] for session in kept["sessions"]] == [2]
    assert (clone / "runs" / "studies" / "tiny" / "seed1.ipynb").exists()
    assert Run(clone / "runs" / "studies" / "tiny" / "seed0").finished


def epoch_reached(run):
    try:
        return int(read_tensors(run / "checkpoint.safetensors")["epoch"])
    except (FileNotFoundError, SafetensorError):
        return 0


def test_killed_it_goes_on_where_it_was_and_a_failing_run_stops_no_other(clone):
    run, choice = clone / "runs" / "studies" / "long" / "seed0", ("--config", "seeds=0", "only=broken,long")
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
    assert 0 <= last["from_epoch"] - first["to_epoch"] <= 2 <= first["to_epoch"]  # killed behind a checkpoint
    assert last["to_epoch"] == 40
    shutil.rmtree(clone / "runs")
    code, said = snakemake(clone, "--config", "seeds=0", "only=long")
    assert code == 0, said
    assert "Nothing to be done" in said


SOBOL = study_of("sobol")


def without(tree, decoder, seeds):
    """The table sobol.csv of a tree without some rows of a decoder."""
    table = SOBOL.in_table(tree / "results" / "experiments")
    rows = [row for row in table.rows if row["decoder"] != decoder or row["seed"] not in seeds]
    table.path.unlink()
    kept = Table(table.path, SOBOL.keys)
    kept.add(rows)
    return kept


def test_rows_that_a_table_lacks_are_made_part_by_part_and_nothing_else(clone):
    results_of(clone)
    before = without(clone, "hand-written", range(4))
    assert jobs(clone, "--config", "only=sobol,rate") == ["runs/studies/sobol/hand-written.log"]
    process = launch(clone, "--config", "only=sobol")
    begun = clone / "runs" / "studies" / "sobol" / "hand-written.begun.csv"
    while not begun.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    at_kill = Table(begun, SOBOL.keys).rows
    assert 0 < len(at_kill) < 8
    code, said = snakemake(clone, "--config", "only=sobol")
    assert code == 0, said
    made = SOBOL.in_table(before.path.parent)
    assert SOBOL.lacking(before.path.parent) == []
    assert all(row in made.rows for row in before.rows + at_kill)
    committed = SOBOL.in_table(FOLDER).rows
    assert [row["coverage_195000"] for row in made.rows] == pytest.approx(
        [row["coverage_195000"] for row in committed], abs=1e-3
    )
    code, said = snakemake(clone, "--config", "only=sobol")
    assert code == 0, said
    assert "Nothing to be done" in said
