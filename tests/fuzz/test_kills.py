"""Processes that are killed at any moment: the same command goes on, to the same bits."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import yaml
from attempts import SCALE
from shared import assert_same_files

from tvae_lib.runs.directory import Run
from tvae_lib.runs.files import read_sealed
from tvae_lib.training.config import ROOT

PARAMETERS = {
    "device": "cpu",
    "holdout": 0.9,
    "total_epochs": 24,
    "eval_every": 3,
    "eval_samples": 2048,
    "final_samples": 2048,
    "coverage_samples": "100",
    "checkpoint_every": 2,
}
# `die_at` n: the process kills itself at its n-th rename.
SCRIPT = textwrap.dedent("""
    import os, signal, sys
    from tvae_lib.runs.execute import execute_together
    from tvae_lib.training.config import make_config

    folder, die_at, *seeds = sys.argv[1], *map(int, sys.argv[2:])
    replace, left = os.replace, iter(range(die_at - 1))

    def dying(source, target):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    if die_at:
        os.replace = dying
    print("ready", flush=True)
    given = PARAMETERS if len(seeds) == 1 else PARAMETERS | {"total_epochs": 8}
    execute_together([make_config(**given, seed=seed, run_dir=f"{folder}/seed{seed}") for seed in seeds])
""").replace("PARAMETERS", repr(PARAMETERS))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def launch(folder, seeds, die_at=0):
    command = [sys.executable, "-c", SCRIPT, str(folder), str(die_at), *map(str, seeds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    process.stdout.readline()
    return process


def finish(process):
    process.stdout.read()
    code = process.wait()
    process.stdout.close()
    return code


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs without a stop, one alone and two together, and how long each took once it was ready."""
    found = {}
    for seeds in ((0,), (0, 1)):
        folder = tmp_path_factory.mktemp("whole")
        process, started = launch(folder, seeds), time.monotonic()
        assert finish(process) == 0
        found[seeds] = folder, time.monotonic() - started
    return found


@pytest.mark.parametrize(
    ("seeds", "at_writes", "number"), [((0,), False, 20), ((0,), True, 12), ((0, 1), False, 6), ((0, 1), True, 6)]
)
def test_kills(whole, tmp_path, dice, seeds, at_writes, number):
    folder, seconds = whole[seeds]
    for attempt in range(max(1, round(number * SCALE))):
        place = tmp_path / str(attempt)
        place.mkdir()
        kills = 0
        while kills < dice.choice([1, 2]):
            process = launch(place, seeds, dice.randrange(1, 40) if at_writes else 0)
            if not at_writes:
                time.sleep(dice.random() * seconds)
                process.send_signal(dice.choice(SIGNALS))
            if finish(process) == 0:
                break
            kills += 1
        assert finish(launch(place, seeds)) == 0
        for seed in seeds:
            assert_same_files(Run(place / f"seed{seed}"), Run(folder / f"seed{seed}"))


@pytest.mark.skipif(SCALE < 1, reason="make fuzz; the tests of the workflow kill one every day")
def test_kills_during_make_studies(whole, tmp_path, dice):
    folder, _ = whole[(0,)]
    for part in ("studies", "notebooks", "results", "tvae_lib"):
        shutil.copytree(ROOT / part, tmp_path / part)
    path = tmp_path / "studies" / "whole_runs.yaml"
    plan = yaml.safe_load(path.read_text())
    setting = {name: value for name, value in PARAMETERS.items() if name != "device"}
    path.write_text(
        yaml.safe_dump(plan | {"settings": {"killed": setting}, "seeds": 0, "device": "cpu", "examined": []})
    )
    shown = os.environ.keys() - {"TVAE_SHOW_REFERENCE"}
    command = [sys.executable, "-m", "snakemake", "--snakefile", "studies/Snakefile", "--config", "only=killed"]
    for _ in range(6):
        for place in (tmp_path / "runs", tmp_path / "results" / "sweep" / "killed"):
            shutil.rmtree(place, ignore_errors=True)
        for last in (False, True):
            process = subprocess.Popen(
                command,
                cwd=tmp_path,
                env={name: os.environ[name] for name in shown} | {"PYTHONPATH": str(tmp_path)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            if not last:
                time.sleep(5 + 20 * dice.random())
                os.killpg(process.pid, dice.choice(SIGNALS))
            code = process.wait()
        assert code == 0
        assert_same_files(Run(tmp_path / "runs" / "studies" / "killed" / "seed0"), Run(folder / "seed0"))
        assert read_sealed(tmp_path / "results" / "sweep" / "killed" / "seed0.json")["metrics"]["epochs"] == 24
