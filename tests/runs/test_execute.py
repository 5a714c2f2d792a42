"""Runs: what a stop leaves, what a second call finds, and runs that train together."""

import math
import shutil

import pytest
import torch
from shared import FAST, assert_same_files, start

from tvae_lib.errors import DivergenceError, ParameterError
from tvae_lib.runs import directory, files
from tvae_lib.runs.directory import Run
from tvae_lib.runs.execute import execute, execute_together
from tvae_lib.training.config import identity, make_config
from tvae_lib.training.ensemble import Ensemble
from tvae_lib.training.state import flatten, initial_state
from tvae_lib.training.trainer import Trainer


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
    write = files.write_atomic

    def failing_at(n):
        left = iter(range(n - 1))

        def attempt(target, content):
            if next(left, None) is None:
                raise Killed
            write(target, content)

        return attempt

    def patched(function):
        monkeypatch.setattr(files, "write_atomic", function)

    for n in range(1, 100):
        path = tmp_path / str(n)
        if extended:
            start(path, epochs=2)
        patched(failing_at(n))
        try:
            start(path)
        except Killed:
            patched(write)
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
    told = r"diverged by epoch 3: .* of epoch 3 is not finite; its checkpoint of epoch 2 is good"
    with pytest.raises(DivergenceError, match=told):
        start(tmp_path)


def test_training_further_in_steps_gives_the_same_bits(whole, tmp_path):
    for epochs in (1, 2, 5):
        run = start(tmp_path, epochs=epochs)
        assert run.metrics["epochs"] == epochs
    assert_same_files(run, whole)


def test_evaluating_and_saving_at_other_epochs_leaves_the_model_alone(whole, tmp_path):
    other = start(tmp_path, eval_every=3, checkpoint_every=1, eval_samples=1024, coverage_samples="50")
    assert torch.equal(flatten(other.model()), flatten(whole.model()))
    assert torch.equal(flatten(other.statenet()), flatten(whole.statenet()))


def test_finished_run_is_shown_and_not_touched(whole):
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in whole.path.rglob("*") if p.is_file()}
    assert start(whole.path).metrics == whole.metrics
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in whole.path.rglob("*") if p.is_file()}


def configs(folder, seeds=(0, 1), **parameters):
    given = {**FAST, "total_epochs": 4, **parameters}
    return [make_config(**given, seed=seed, run_dir=str(folder / f"seed{seed}")) for seed in seeds]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two runs that trained together without a stop."""
    return execute_together(configs(tmp_path_factory.mktemp("together")))


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
    def test_takes_the_steps_of_the_ensemble_and_writes_what_a_run_alone_writes(self, both, tmp_path):
        members = configs(tmp_path)
        replicas = Ensemble(members, "cpu")
        state = replicas.stack([initial_state(config, replicas.device) for config in members])
        for _ in range(4):
            state = replicas.epoch(state)
        for config, run, mine in zip(members, both, replicas.unstack(state), strict=True):
            assert torch.equal(flatten(run.model()), mine["theta"])
            alone = execute(config)
            assert_same_to_rounding(run, alone)
            assert run.config["parameters"] == alone.config["parameters"] == identity(config)
            assert [p.name for p in sorted(run.path.rglob("*"))] == [p.name for p in sorted(alone.path.rglob("*"))]
            assert run.timing["sessions"][0]["replicas"] == 2
            assert "replicas" not in alone.timing["sessions"][0]

    def test_is_shown_and_not_touched_once_it_is_finished(self, both):
        before = {p: p.stat().st_mtime_ns for run in both for p in run.path.rglob("*")}
        shown = execute_together(configs(both[0].path.parent))
        assert [run.metrics for run in shown] == [run.metrics for run in both]
        assert before == {p: p.stat().st_mtime_ns for run in both for p in run.path.rglob("*")}

    def test_resumes_to_the_same_bits(self, both, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            stop_before(patch, 3)
            with pytest.raises(KeyboardInterrupt):
                execute_together(configs(tmp_path))
        for run, uninterrupted in zip(execute_together(configs(tmp_path)), both, strict=True):
            assert_same_files(run, uninterrupted)
            assert run.timing["sessions"][-1]["from_epoch"] == 2, "at most one interval is lost"

    @pytest.mark.parametrize("last", range(1, 5))
    def test_killed_between_two_checkpoints_is_at_one_epoch_again(self, both, tmp_path, monkeypatch, last):
        """The checkpoints of both are written, and then both put in their place: a kill after each of the four."""
        left = iter(range(last))

        def killed_after(act):
            def attempt(source, *rest, **marks):
                of_checkpoint = source.name == directory.NEXT
                if of_checkpoint and next(left, None) is None:
                    raise Killed
                act(source, *rest, **marks)

            return attempt

        with monkeypatch.context() as patch:
            for name in ("write_tensors", "replace"):
                patch.setattr(f"tvae_lib.runs.execute.{name}", killed_after(getattr(files, name)))
            with pytest.raises(Killed):
                execute_together(configs(tmp_path))
        done = execute_together(configs(tmp_path))
        assert [run.timing["sessions"][-1]["from_epoch"] for run in done] == [0 if last < 3 else 2] * 2
        for run, uninterrupted in zip(done, both, strict=True):
            assert_same_files(run, uninterrupted)
            assert not (run.path / directory.NEXT).exists()

    def test_at_different_epochs_they_go_on_in_groups(self, both, tmp_path):
        three = (0, 1, 2)
        execute_together(configs(tmp_path, (0,), epochs=2))
        done = execute_together(configs(tmp_path, three))
        last = [run.timing["sessions"][-1] for run in done]
        assert [(session["from_epoch"], session.get("replicas", 1)) for session in last] == [(2, 1), (0, 2), (0, 2)]
        for run, uninterrupted in zip(done, both, strict=False):
            assert_same_to_rounding(run, uninterrupted)

    def test_a_finished_one_stays_as_it_is_beside_new_ones(self, both, tmp_path):
        shutil.copytree(both[0].path, tmp_path / "seed0")
        done = execute_together(configs(tmp_path))
        assert_same_files(done[0], both[0])
        assert len(done[0].timing["sessions"]) == 1
        assert_same_to_rounding(done[1], both[1])

    def test_one_that_diverges_ends_alone(self, both, tmp_path, monkeypatch):
        train = Trainer.epoch

        def diverging(trainer, state):
            state = train(trainer, state)
            state["history"][1, 2] = torch.nan
            state["theta"][1] = torch.nan
            return state

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "epoch", diverging)
            with pytest.raises(DivergenceError, match=r"seed1' diverged by epoch 1: theta is not finite"):
                execute_together(configs(tmp_path))
        assert_same_files(Run(tmp_path / "seed0"), both[0])
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
