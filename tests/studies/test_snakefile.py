"""The workflow from outside, as an experimenter calls and kills it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pytest
import yaml
from shared import is_one_sentence

from studies import choices
from studies.catalogue import STUDIES, study_of
from studies.tables import FOLDER, Table, drop
from tvae_lib.errors import ParameterError
from tvae_lib.runs.directory import Run
from tvae_lib.runs.status import epoch_reached
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
    path.write_text(yaml.safe_dump(content | {"settings": SETTINGS, "seeds": "0-1", "device": "cpu", "examined": []}))
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
    assert "Snakemake has no notes on results that came with the repository" in said
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
    assert jobs(clone, "--config", "only=tiny long", "seeds=0 1 3") == wanted
    for choice, told in (
        ("only=tony", "only is 'tony'; it must be one or more of"),
        ("seeds=3-1", "seeds is '3-1'; it must be numbers and rising ranges"),
        ("seed=3", "seed is 3, but nothing reads it; allowed are"),
    ):
        code, said = snakemake(clone, "-n", "--config", choice)
        assert code != 0
        assert told in said


def test_make_passes_the_choice_on():
    def make(*choice):
        command = ["make", "-n", "studies", *choice, "DRY=1"]
        outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # as by hand
        return subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True)

    wanted = "snakemake --snakefile studies/Snakefile --dry-run --config 'only=phases document' 'seeds=0,3'"
    assert make("ONLY=phases document", "SEEDS=0,3").stdout.splitlines()[-1].endswith(wanted)
    assert "'only=repaired'" in make("SETTINGS=repaired").stdout
    assert "'only=phases repaired'" in make("ONLY=phases", "SETTINGS=repaired").stdout
    for wrong in ("SETTING=a b", "SEED=3"):
        done = make(wrong)
        assert done.returncode != 0
        assert f"{wrong.partition('=')[0]} is no variable of this Makefile" in done.stderr


def test_a_folder_that_cannot_be_written_is_said():
    """Root may write anywhere, and so asks somebody else."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / ".venv").mkdir()
        for file in ("requirements.txt", "pyproject.toml", ".venv/.ready"):
            (folder / file).touch()
        shutil.copy(ROOT / "Makefile", folder)
        folder.chmod(0o555)
        other = {"user": "nobody"} if os.geteuid() == 0 else {}
        done = subprocess.run(["make", "studies", "DRY=1"], cwd=folder, capture_output=True, text=True, **other)
        folder.chmod(0o755)
    assert done.returncode != 0
    assert "this folder cannot be written, and make studies keeps its runs and notes here" in done.stderr


SWEEPS = {
    "seed": ({"tiny": {"seed": 3}}, "seed is 3 in setting tiny; the sweep itself gives it."),
    "resume": ({"tiny": {"resume": False}}, "resume is False in setting tiny; the sweep itself gives it."),
    "a space": ({"my setting": {}}, "settings has the name 'my setting'; it must be of a-z, 0-9 and - alone"),
    "a folder above": ({"../up": {}}, "settings has the name '../up'"),
    "a command": ({"$(touch x)": {}}, "settings has the name '$(touch x)'"),
    "a plus": ({"a+b": {}}, "settings has the name 'a+b'"),
    "a table": ({"phases": {}}, "settings has the name 'phases'"),
    "no parameters": ({"tiny": 5}, "setting tiny is 5; it must be parameters with their values."),
    "a list": ({"tiny": {"lr": [1, 2]}}, "'lr' is [1, 2] in setting tiny; it must be one value."),
}


@pytest.mark.parametrize(("settings", "told"), SWEEPS.values(), ids=SWEEPS)
def test_settings_that_cannot_be_swept_are_refused_in_one_sentence(settings, told):
    with pytest.raises(ParameterError) as refusal:
        choices.check_settings(settings, STUDIES)
    assert told in str(refusal.value)
    assert is_one_sentence(str(refusal.value))


@pytest.mark.parametrize("given", ["x", "", "3-1", "0-3,2-1", "1.5", "-1", "0--3", "0-99999999999", "9" * 30, None, {}])
def test_seeds_are_taken_as_they_are_said_or_refused(given):
    with pytest.raises(ParameterError, match=r"^seeds is ") as refusal:
        choices.seeds(given)
    assert is_one_sentence(str(refusal.value))


def test_seeds_may_be_said_in_several_ways():
    assert choices.seeds("0-3, 7") == choices.seeds("0 1 2 3 7") == choices.seeds([0, 1, 2, 3, 7]) == [0, 1, 2, 3, 7]
    assert choices.told([0, 1, 2, 3, 7]) == "0-3.7"


def test_a_misuse_ends_snakemake_with_the_sentence(clone):
    mine = clone / "mine.yaml"
    mine.write_text("settings: {tiny: {seed: 3}}")
    code, said = snakemake(clone, "-n", "--configfile", "mine.yaml")
    assert code != 0
    assert "seed is 3 in setting tiny; the sweep itself gives it." in said


def test_a_setting_may_have_fewer_seeds_unless_the_call_says_which(clone):
    log, path = "runs/studies/tiny/seed{}.log".format, clone / "studies" / "whole_runs.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"seeds_of": {"tiny": 0}}))
    assert jobs(clone, "--config", "only=tiny") == [log(0)]
    assert jobs(clone, "--config", "only=tiny", "seeds=0-2") == [log(0), log(1), log(2)]
    for wrong, told in (({"tiny": "3-1"}, "seeds is '3-1'"), (5, "seeds_of is 5; it must be names of settings")):
        with pytest.raises(ParameterError, match=told):
            choices.check_seeds_of(wrong)


def test_a_path_with_a_space_is_no_hindrance(clone, tmp_path_factory):
    spaced = tmp_path_factory.mktemp("a folder") / "with a space"
    shutil.copytree(clone, spaced)
    choice = ("--config", "seeds=0", "only=tiny", "runs=my runs", "results=my results")
    code, said = snakemake(spaced, *choice)
    assert code == 0, said
    assert Run(spaced / "my runs" / "tiny" / "seed0").finished
    assert (spaced / "my results" / "tiny" / "seed0.json").exists()


def test_more_seeds_of_an_ensemble_are_the_only_ones_that_train(clone):
    results_of(clone, seeds=(0, 1))
    for finished in (False, True):
        if finished:  # run directories that are still there
            for seed in (0, 1):
                run = clone / "runs" / "studies" / "tiny" / f"seed{seed}"
                run.mkdir(parents=True)
                (run / "metrics.json").write_text("{}")
        made = jobs(clone, "--config", "only=tiny", "seeds=0-4", "together=true")
        assert [name for name in made if name.startswith("runs/studies/tiny/seed")] == [
            f"runs/studies/tiny/seed{seed}.log" for seed in (2, 3, 4)
        ]
        assert "runs/studies/tiny/together-0-4.log" in made


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
    folder = tree / "results" / "experiments"
    for seed in seeds:
        drop(SOBOL, folder, {"decoder": decoder, "seed": str(seed)})
    return SOBOL.in_table(folder)


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
