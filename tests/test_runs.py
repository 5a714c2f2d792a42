"""The run directory: what is in it, what a stop leaves, what a second run finds."""

import json
import math
import os
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from tvae_lib import runs
from tvae_lib.config import REFERENCE, Config, ParameterError, identity, make_config
from tvae_lib.operations import SIZE
from tvae_lib.runs import Run, execute, read_tensors, write_atomic
from tvae_lib.statenet import CORRECTIONS, STATE
from tvae_lib.training import HISTORY, Trainer

FAST = {
    "device": "cpu",
    "holdout": 0.9,
    "total_epochs": 5,
    "eval_every": 2,
    "eval_samples": 2048,
    "final_samples": 2048,
    "coverage_samples": "100,1000",
    "checkpoint_every": 2,
}
SAME = ("model.safetensors", "history.csv", "evaluations.csv", "evaluations.safetensors", "metrics.json")


def start(path, **parameters):
    return execute(make_config(**(FAST | parameters), run_dir=str(path)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Five epochs without a stop."""
    return start(tmp_path_factory.mktemp("runs") / "whole")


def assert_same_files(run, other):
    for name in SAME:
        assert (run.path / name).read_bytes() == (other.path / name).read_bytes(), name


def test_directory_holds_what_the_contract_says(whole):
    names = {p.relative_to(whole.path).as_posix() for p in whole.path.rglob("*") if p.is_file()}
    snapshots = {f"snapshots/epoch_{e:04d}.safetensors" for e in (0, 2, 3)}  # 0, 40, 120, 150, 250 of 400, in 5 epochs
    single = {"config.json", "checkpoint.safetensors", "timing.json", ".lock"}
    assert names == single | set(SAME) | snapshots


def test_evaluations_and_checkpoints_have_intervals_of_their_own(tmp_path):
    run = start(tmp_path / "run", eval_every=2, checkpoint_every=3, epochs=4)
    assert run.evaluations["epoch"].tolist() == [0, 2, 4]


def test_files_say_what_happened(whole):
    assert list(whole.history) == list(HISTORY)
    assert whole.history["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert whole.evaluations["epoch"].tolist() == [0, 2, 4]
    assert whole.config["parameters"] == identity(make_config(**FAST))
    assert whole.config["run_id"].startswith("document-seed0-")
    assert whole.metrics["epochs"] == 5
    untrained = whole.metrics["untrained"]["A"]["coverage"]["1000"]
    assert untrained == pytest.approx(whole.evaluations["coverage_1000_A"][0])
    assert whole.timing["sessions"][0]["to_epoch"] == 5
    epochs, log_p = whole.log_p()
    assert epochs.tolist() == [0, 2, 4]
    torch.testing.assert_close(log_p.float().exp().sum(-1), torch.ones(3, 2), rtol=1e-2, atol=1e-2)


def test_final_evaluation_is_that_of_the_saved_weights(whole):
    model = whole.model()
    everything = runs.evaluation.reconstruction(model, Trainer(make_config(**FAST), "cpu").data.trits, 0.7)
    parts = whole.metrics["reconstruction"]
    mixed = 0.1 * parts["training"]["alone_A"] + 0.9 * parts["held_out"]["alone_A"]
    assert everything["alone_A"] == pytest.approx(mixed, abs=1e-4)
    assert not torch.equal(whole.model(0).A.encoder.mean.weight, model.A.encoder.mean.weight)


def test_no_time_path_or_date_outside_config_and_timing(whole, tmp_path):
    assert_same_files(start(tmp_path / "another place"), whole)


def test_seed_changes_the_model(whole, tmp_path):
    other = start(tmp_path, seed=1)
    assert (other.path / "model.safetensors").read_bytes() != (whole.path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("stop", range(5))
def test_resume_after_a_stop_in_any_epoch_gives_the_same_bits(whole, tmp_path, monkeypatch, stop):
    train = Trainer.epoch

    def stopping(trainer, state):
        if int(state["epoch"]) == stop:
            raise KeyboardInterrupt
        return train(trainer, state)

    monkeypatch.setattr(Trainer, "epoch", stopping)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path)
    monkeypatch.setattr(Trainer, "epoch", train)
    run = start(tmp_path)
    assert_same_files(run, whole)
    assert run.timing["sessions"][-1]["from_epoch"] == stop // 2 * 2, "at most one checkpoint interval is lost"


class Killed(BaseException):
    """What a killed process is to the code that runs in it: nothing catches it."""


@pytest.mark.parametrize("extended", [False, True])
def test_a_stop_at_any_write_leaves_a_run_that_resumes_to_the_same_bits(whole, tmp_path, monkeypatch, extended):
    """The n-th file is not written, for every n until the run needs fewer."""
    write = runs.write_atomic

    def failing_at(n):
        left = iter(range(n - 1))

        def attempt(target, content):
            if next(left, None) is None:
                raise Killed
            write(target, content)

        return attempt

    for n in range(1, 100):
        path = tmp_path / str(n)
        if extended:
            start(path, epochs=2)
        monkeypatch.setattr(runs, "write_atomic", failing_at(n))
        try:
            start(path)
        except Killed:
            monkeypatch.setattr(runs, "write_atomic", write)
            assert not Run(path).finished or Run(path).metrics["epochs"] == len(Run(path).history) == 2
            assert_same_files(start(path), whole)
        else:
            break
    assert 10 < n < 99


def test_an_unfinished_run_that_is_further_is_refused_and_kept(tmp_path, monkeypatch):
    train = Trainer.epoch

    def stopping(trainer, state):
        if int(state["epoch"]) == 4:
            raise Killed
        return train(trainer, state)

    monkeypatch.setattr(Trainer, "epoch", stopping)
    with pytest.raises(Killed):
        start(tmp_path)
    with pytest.raises(ParameterError, match=r"^epochs is 3; it must be at least 4"):
        start(tmp_path, epochs=3)
    assert not Run(tmp_path).finished


def test_a_run_that_diverges_says_when(tmp_path, monkeypatch):
    train = Trainer.epoch

    def diverging(trainer, state):
        state = train(trainer, state)
        if int(state["epoch"]) >= 3:
            state["history"][int(state["epoch"]) - 1] = math.nan
        return state

    monkeypatch.setattr(Trainer, "epoch", diverging)
    with pytest.raises(FloatingPointError, match="not finite from epoch 3 on"):
        start(tmp_path)


def test_training_further_in_steps_gives_the_same_bits(whole, tmp_path):
    for epochs in (1, 2, 5):
        run = start(tmp_path, epochs=epochs)
        assert run.metrics["epochs"] == epochs
    assert_same_files(run, whole)


def test_evaluating_and_saving_at_other_epochs_leaves_the_model_alone(whole, tmp_path):
    other = start(tmp_path, eval_every=3, checkpoint_every=1, eval_samples=1024, coverage_samples="50")
    assert (other.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()


def test_finished_run_is_shown_and_not_touched(whole):
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in whole.path.rglob("*") if p.is_file()}
    assert start(whole.path).metrics == whole.metrics
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in whole.path.rglob("*") if p.is_file()}


def test_fewer_epochs_than_there_are_is_refused(whole):
    with pytest.raises(ParameterError, match=r"^epochs is 3; it must be at least 5"):
        start(whole.path, epochs=3)


def test_another_configuration_is_refused_by_name(whole):
    with pytest.raises(ParameterError, match=r"a run with lr 0\.001 where this one has 0\.002"):
        start(whole.path, lr=0.002)


def test_another_format_is_refused(whole, tmp_path):
    config = whole.config | {"format": 99}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ParameterError, match="a run of format 99 where this version writes 1"):
        start(tmp_path)
    runs.write_atomic(tmp_path / "old.safetensors", runs.save({"a": torch.zeros(1)}, metadata={"format": "0"}))
    with pytest.raises(ValueError, match="format 0"):
        read_tensors(tmp_path / "old.safetensors")


def test_a_published_run_without_its_checkpoint_is_shown_but_not_continued(tmp_path):
    run = start(tmp_path, epochs=1)
    (run.path / "checkpoint.safetensors").unlink()
    assert start(tmp_path, epochs=1).finished
    with pytest.raises(ParameterError, match="without the checkpoint"):
        start(tmp_path, epochs=2)


def test_a_checkpoint_that_is_broken_is_refused(tmp_path):
    run = start(tmp_path, epochs=1)
    (run.path / "checkpoint.safetensors").write_bytes(b"half a file")
    with pytest.raises(ParameterError, match="whose checkpoint cannot be read"):
        start(tmp_path)


def test_a_directory_in_use_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "LOCK_SECONDS", 0.2)
    with runs._locked(tmp_path), pytest.raises(ParameterError, match="another process"):
        start(tmp_path)


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_killed_twice_and_resumed_is_the_uninterrupted_run(tmp_path):
    """SIGKILL of a real process, at whatever moment it happens to be in."""
    script = textwrap.dedent("""
        import sys
        from tvae_lib.config import make_config
        from tvae_lib.runs import execute
        execute(make_config(device="cpu", holdout=0.9, total_epochs=40, eval_every=4, eval_samples=2048,
                            final_samples=2048, coverage_samples="100", checkpoint_every=3, run_dir=sys.argv[1]))
    """)

    def launch(path):
        return subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)

    def epoch_reached(path):
        try:
            return int(read_tensors(path / "checkpoint.safetensors")["epoch"])
        except FileNotFoundError:
            return 0

    for target in (3, 15):
        process = launch(tmp_path / "killed")
        while epoch_reached(tmp_path / "killed") < target:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
        process.communicate()
    assert epoch_reached(tmp_path / "killed") < 40
    for path in (tmp_path / "killed", tmp_path / "whole"):
        process = launch(path)
        process.communicate()
        assert process.returncode == 0
    assert len(Run(tmp_path / "killed").timing["sessions"]) >= 2
    assert_same_files(Run(tmp_path / "killed"), Run(tmp_path / "whole"))


class TestReference:
    """The committed run is whole, is of the default configuration, and its metrics are those of its weights."""

    run = Run(REFERENCE)

    def test_is_the_default_run(self):
        assert self.run.config["parameters"] == identity(Config())
        assert len(self.run.history) == 400
        assert self.run.metrics["epochs"] == 400
        assert self.run.history.notna().all(axis=None)
        assert self.run.timing["sessions"][-1]["device"]

    def test_snapshots_are_there(self):
        for epoch in (0, 40, 120, 150, 250):
            self.run.model(epoch)

    def test_metrics_are_those_of_the_weights(self):
        model, trainer = self.run.model(), Trainer(make_config(device="cpu"), "cpu")
        exact = runs.evaluation.reconstruction(model, trainer.data.trits, self.run.history["rho"].iloc[-1])
        recorded = self.run.metrics["reconstruction"]["training"]
        assert exact == pytest.approx(recorded, abs=2e-4)
        verdicts, _ = runs._judge_both(trainer, model, 2**19, 0, "check")
        for pathway in ("A", "B"):
            mine, theirs = verdicts[pathway], self.run.metrics[pathway]
            error = math.hypot(mine["kl_uniform_error"], theirs["kl_uniform_error"])
            assert mine["kl_uniform"] == pytest.approx(theirs["kl_uniform"], abs=4 * error + 0.003)
            draw = 0.5 / SIZE**0.5  # no coverage scatters more: M independent hits of probability one half
            for kind in ("coverage", "coverage_argmax"):
                assert mine[kind] == pytest.approx(theirs[kind], abs=4 * math.sqrt(2) * draw)

    def test_realised_schedule_is_the_prescribed_one(self):
        history = self.run.history
        assert history["rho"].iloc[[0, 39, 40, 80, 120]].tolist() == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.3], abs=1e-6)
        opened = history["gate"].iloc[120:249].sum()
        assert history["rho"].iloc[249] == pytest.approx(0.3 + 0.4 / 130 * opened, abs=1e-4)
        assert (history["rho"].iloc[250:] - 0.7).abs().max() < 1e-6
        assert history["tau_A"].min() == pytest.approx(0.05)


def test_statenet_of_a_snapshot_gives_the_corrections_of_the_next_epoch():
    run = Run(REFERENCE)
    history, net = run.history, run.statenet(250)
    before, after = history.iloc[249], history.iloc[250]
    averages, weights = list(STATE[:5]), list(STATE[6:])
    state = [*before[averages], after["rho"], *before[weights]]
    corrections = net(torch.tensor(state, dtype=torch.float32)).tolist()
    assert corrections == pytest.approx(after[list(CORRECTIONS)].tolist(), abs=1e-5)
    assert run.statenet()(torch.tensor(state, dtype=torch.float32)).tolist() != corrections
