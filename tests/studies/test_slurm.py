"""The workflow on a Slurm of one node: its jobs reach their time limit, are killed, and outlive their Snakemake."""

import contextlib
import json
import os
import signal
import time
from itertools import pairwise

import pytest
from slurm_node import environment, missing, slurm, start, stop
from test_snakefile import LONG, SOBOL, clone, launch, without  # noqa: F401

from tvae_lib.runs.directory import Run

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no {', '.join(missing())} on this machine; try make slurm")

STUDY = ("--workflow-profile", "studies/profiles/slurm", "--slurm-init-seconds-before-status-checks", "5")
STUDY += ("--config", "only=long,sobol")


@pytest.fixture
def node(tmp_path_factory, monkeypatch):
    """The folder of a node that is up, and that every Snakemake of the test finds."""
    folder = tmp_path_factory.mktemp("slurm") / "node"
    for name, value in (environment(folder) | {"TMPDIR": str(folder.parent)}).items():
        monkeypatch.setenv(name, value)
    try:
        start(folder)
        yield folder
    finally:
        stop(folder)


@contextlib.contextmanager
def studying(tree):
    """A Snakemake at work on the study, which is killed at the end."""
    process = launch(tree, *STUDY)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def wait(process, holds):
    """Until something holds, while a Snakemake is at work."""
    end = time.monotonic() + 300
    while not holds():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(process.communicate()[0])
        time.sleep(0.05)


def jobs(node, name):
    """The number and the state of each job that Slurm was given for a rule and its wildcards, in order."""
    lines = slurm(node, "squeue", "--noheader", "--states=all", "--format=%i %T %k").splitlines()
    return sorted((int(number), state) for number, state, of in map(str.split, lines) if of == f"rule_{name}")


def states(node, name):
    return [state for _, state in jobs(node, name)]


def send(node, job, number):
    """A signal to every process of the step of a job."""
    for line in slurm(node, "scontrol", "listpids", f"{job}.0", "one").splitlines()[1:]:
        os.kill(int(line.split()[0]), number)


def sessions(run):
    """The epochs from which and to which each session of a run has come, as far as it has checkpoints."""
    kept = Run(run).timing["sessions"] if (run / "timing.json").exists() else []
    return [(session["from_epoch"], session["to_epoch"]) for session in kept]


def at_last_cell(log, since):
    """Whether a log that is younger than a moment tells that the notebook has come to its training."""
    try:
        return log.stat().st_mtime > since and "Executing Cell 4" in log.read_text()
    except FileNotFoundError:
        return False


def name_of(run):
    return f"run_wildcards_long_{run.name.removeprefix('seed')}"


def pause(node, process, counts):
    """Stop the last job of each run as soon as so many sessions have left a checkpoint: its speed matters no more."""
    waiting = dict(counts)

    def all_stopped():
        for run in [run for run, count in waiting.items() if len(sessions(run)) == count]:
            send(node, jobs(node, name_of(run))[-1][0], signal.SIGSTOP)
            del waiting[run]
        return not waiting

    wait(process, all_stopped)
    assert all(sessions(run)[-1][1] < LONG["total_epochs"] for run in counts)


def test_killed_jobs_go_on_and_a_job_that_outlives_its_snakemake_is_waited_for(node, clone):  # noqa: F811
    first, second = (clone / "runs" / "studies" / "long" / f"seed{seed}" for seed in (0, 1))
    before = without(clone, "hand-written", range(2))

    with studying(clone) as process:
        pause(node, process, {first: 1, second: 1})
        [(limited, _)], [(outliving, _)] = jobs(node, name_of(first)), jobs(node, name_of(second))
        slurm(node, "scontrol", "update", f"JobId={limited}", "EndTime=now")
        pause(node, process, {first: 2})
    assert states(node, name_of(first)) == ["TIMEOUT", "RUNNING"]
    assert states(node, name_of(second)) == ["RUNNING"]
    slurm(node, "scancel", "--full", "--signal=KILL", str(jobs(node, name_of(first))[-1][0]))
    killed, at_kill = time.time(), sessions(second)

    with studying(clone) as process:
        wait(process, lambda: at_last_cell(second.with_suffix(".log"), killed))
        wait(process, lambda: Run(first).finished)
        assert states(node, name_of(second)) == ["RUNNING", "RUNNING"]
        assert sessions(second) == at_kill  # the run is still the old job's
        send(node, outliving, signal.SIGCONT)
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said

    at_limit, at_signal, last = states(node, name_of(first))
    assert (at_limit, last) == ("TIMEOUT", "COMPLETED")
    assert at_signal in ("CANCELLED", "FAILED")
    assert states(node, name_of(second)) == ["COMPLETED", "COMPLETED"]
    for name in ("part_wildcards_sobol_hand-written", "merge_wildcards_sobol", "summary_wildcards_long_1"):
        assert states(node, name)[-1] == "COMPLETED"
    slurm_log = clone / ".snakemake" / "slurm_logs" / "rule_run" / "long_0" / f"{limited}.log"
    assert "DUE TO TIME LIMIT" in slurm_log.read_text()
    for run, count in ((first, 3), (second, 1)):
        kept = json.loads((clone / "results" / "sweep" / "long" / f"{run.name}.json").read_text())
        assert [(session["from_epoch"], session["to_epoch"]) for session in kept["sessions"]] == sessions(run)
        assert len(sessions(run)) == count
        assert sessions(run)[-1][1] == LONG["total_epochs"]
    for (_, reached), (begun, _) in pairwise(sessions(first)):
        assert 0 < reached <= begun <= reached + 2  # a checkpoint may be ahead of what is noted of its session
    made = SOBOL.in_table(before.path.parent)
    assert SOBOL.lacking(before.path.parent) == []
    assert all(row in made.rows for row in before.rows)
