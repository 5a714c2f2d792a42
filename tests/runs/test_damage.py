"""Runs that something happened to: what is damaged is said, what is whole is kept, what is not ours is left alone."""

import errno
import json
import math
import os
import shutil

import pytest
import torch
from shared import SAME, assert_same_files, is_one_sentence, start

from tvae_lib.errors import DivergenceError, FileError, ParameterError, UserError
from tvae_lib.runs import directory, files, status
from tvae_lib.runs.directory import Run
from tvae_lib.runs.execute import execute_together
from tvae_lib.runs.status import epoch_reached
from tvae_lib.training.trainer import Trainer


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the finished run, to be damaged."""
    shutil.copytree(whole.path, tmp_path / "run")
    return Run(tmp_path / "run")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def refusal_of(path, kind=UserError, **parameters):
    """What the run command says, and that it changed nothing."""
    before = contents(path)
    with pytest.raises(kind) as refusal:
        start(path, **parameters)
    assert is_one_sentence(str(refusal.value)), refusal.value
    assert contents(path) == before
    return str(refusal.value)


SPOILED = {
    "one infinite weight": lambda state: state["theta"].view(-1)[7].fill_(math.inf),
    "weights of NaN": lambda state: state["theta"].fill_(math.nan),
    "weights too large to compute with": lambda state: state["theta"].mul_(1e30),
    "StateNet of NaN": lambda state: state["statenet_theta"].fill_(math.nan),
    "a moment of AdamW": lambda state: state["moment_2"].view(-1)[0].fill_(math.nan),
    "a gradient norm in the history": lambda state: state["history"][int(state["epoch"]) - 1, -2].fill_(math.nan),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
@pytest.mark.parametrize(("at", "kept"), [(5, 4), (4, 2)], ids=["in the last step", "at a checkpoint"])
def test_a_model_that_is_not_finite_is_never_kept(whole, tmp_path, monkeypatch, spoil, at, kept):
    """Not in a checkpoint, not as a finished run; and the last good checkpoint leads to the undisturbed run."""
    train = Trainer.epoch

    def spoiling(trainer, state):
        state = train(trainer, state)
        if int(state["epoch"]) == at:
            spoil(state)
        return state

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "epoch", spoiling)
        for _ in range(2):
            with pytest.raises(DivergenceError) as refusal:
                start(tmp_path)
            told = str(refusal.value)
            assert is_one_sentence(told)
            assert f"its checkpoint of epoch {kept} is good" in told
            assert "lower lr or another seed" in told
            assert not Run(tmp_path).finished
            assert epoch_reached(tmp_path) == kept
    assert_same_files(start(tmp_path), whole)


def test_a_checkpoint_of_an_infinite_state_is_not_gone_on_from(copy):
    state = files.read_tensors(copy.path / "checkpoint.safetensors")
    state["theta"][0] = math.inf
    files.write_tensors(copy.path / "checkpoint.safetensors", state, identity=copy.identity)
    (copy.path / "metrics.json").unlink()
    assert "theta is not finite" in refusal_of(copy.path, FileError)


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "a bit": lambda path: path.write_bytes(bytes([*(c := path.read_bytes())[:-40], c[-40] ^ 1, *c[-39:]])),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "missing": lambda path: path.unlink(),
    "a link": lambda path: (path.rename(path.with_suffix(".mine")), path.symlink_to(path.with_suffix(".mine"))),
}
VOUCHED = (*SAME, "config.json", "snapshots/epoch_0002.safetensors")


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", VOUCHED)
def test_a_damaged_finished_run_is_not_shown(copy, name, damage):
    if name == "metrics.json" and damage is DAMAGES["missing"]:
        return  # then it is not finished
    damage(copy.path / name)
    told = refusal_of(copy.path)
    assert name.rpartition("/")[2] in told or "other files" in told


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_not_gone_on_from(copy, damage, finished):
    if not finished:
        (copy.path / "metrics.json").unlink()
    damage(copy.path / "checkpoint.safetensors")
    if finished and damage is DAMAGES["missing"]:
        assert start(copy.path).finished  # as published runs are
    else:
        assert "checkpoint.safetensors" in refusal_of(copy.path)


@pytest.mark.parametrize("name", [*directory.RESTORABLE, "metrics.json"])
def test_what_a_whole_checkpoint_can_restore_comes_back(copy, whole, name):
    DAMAGES["cut"](copy.path / name)
    told = refusal_of(copy.path, FileError)
    if name != "metrics.json":
        assert "the checkpoint is whole: delete metrics.json, and the command that made the run writes it again" in told
    (copy.path / "metrics.json").unlink()
    assert_same_files(start(copy.path), whole)


def test_a_file_is_not_even_read_alone_once_it_is_damaged(copy):
    lines = (copy.path / "history.csv").read_text().splitlines(keepends=True)
    (copy.path / "history.csv").write_text("".join(lines[:3]))
    with pytest.raises(FileError, match=r"history\.csv' is not what the run wrote"):
        _ = copy.history
    shutil.copy(copy.path / "snapshots" / "epoch_0002.safetensors", copy.path / "model.safetensors")
    with pytest.raises(FileError, match=r"model\.safetensors' is not what the run wrote"):
        copy.model()


def test_a_checkpoint_of_another_seed_or_epoch_is_refused(copy, tmp_path):
    (copy.path / "metrics.json").unlink()
    other = start(tmp_path / "other", seed=1)
    shutil.copy(other.path / "checkpoint.safetensors", copy.path)
    assert "belongs to another run" in refusal_of(copy.path, FileError)
    state = files.read_tensors(other.path / "checkpoint.safetensors")
    for epoch in (torch.tensor(math.nan), torch.tensor([4, 4]), torch.tensor(99), torch.tensor(0), torch.tensor(-1)):
        files.write_tensors(copy.path / "checkpoint.safetensors", state | {"epoch": epoch}, identity=copy.identity)
        assert "holds" in refusal_of(copy.path, FileError)


def test_a_snapshot_that_is_damaged_is_named_before_the_run_goes_on(copy, whole):
    (copy.path / "metrics.json").unlink()
    DAMAGES["a bit"](copy.path / "snapshots" / "epoch_0003.safetensors")
    assert refusal_of(copy.path, FileError).endswith("delete it to go on without it.")


WRONG_STATES = {
    "no theta": lambda state: state.pop("theta"),
    "one too many": lambda state: state.update(more=torch.zeros(1)),
    "another size": lambda state: state.update(theta=state["theta"][:-1]),
    "another type": lambda state: state.update(theta=state["theta"].double()),
}


@pytest.mark.parametrize("change", WRONG_STATES.values(), ids=WRONG_STATES)
def test_extending_a_finished_run_that_cannot_go_on_leaves_it_finished(tmp_path, change):
    run = start(tmp_path, epochs=2)
    state = files.read_tensors(run.path / "checkpoint.safetensors")
    change(state)
    files.write_tensors(run.path / "checkpoint.safetensors", state, identity=run.identity)
    assert "holds no state of this configuration" in refusal_of(tmp_path, FileError, epochs=5)
    assert run.finished


def test_a_finished_run_stays_finished_until_its_extension_is_written(tmp_path, monkeypatch, whole):
    run = start(tmp_path, epochs=2)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path)
    assert run.metrics["epochs"] == 2
    assert start(tmp_path, epochs=2).finished
    assert_same_files(start(tmp_path), whole)


@pytest.mark.parametrize("content", ["", "[", "[]", '{"sessions": 5}', '{"sessions": [1]}'])
def test_timing_is_never_worth_a_run(copy, whole, content):
    (copy.path / "timing.json").write_text(content)
    assert start(copy.path).timing == {"sessions": []}
    (copy.path / "metrics.json").unlink()
    assert_same_files(start(copy.path), whole)
    assert len(copy.timing["sessions"]) == 1


def test_a_run_that_lost_its_only_checkpoint_is_not_begun_again(copy):
    (copy.path / "metrics.json").unlink()
    (copy.path / "checkpoint.safetensors").unlink()
    assert "is missing, though history.csv shows that there was one" in refusal_of(copy.path, FileError)


class TestNotOurs:
    def test_a_linked_lock_is_not_opened(self, tmp_path):
        (tmp_path / "mine").write_text("mine")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / ".lock").symlink_to(tmp_path / "mine")
        assert ".lock is no regular file" in refusal_of(tmp_path / "run", ParameterError)
        assert (tmp_path / "mine").read_text() == "mine"

    @pytest.mark.parametrize("name", ["config.json", "checkpoint.safetensors", ".lock", "metrics.json"])
    def test_a_pipe_is_refused_and_does_not_hang(self, tmp_path, name):
        os.mkfifo(tmp_path / name)
        assert f"{name} is no regular file" in refusal_of(tmp_path, ParameterError)

    def test_snapshots_are_not_written_through_a_link(self, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "epoch_0000.safetensors").write_text("mine")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "snapshots").symlink_to(tmp_path / "elsewhere")
        assert "snapshots is no folder of its own" in refusal_of(tmp_path / "run", ParameterError)
        assert (tmp_path / "elsewhere" / "epoch_0000.safetensors").read_text() == "mine"

    def test_temporary_files_of_others_stay(self, copy, whole):
        (copy.path / "metrics.json").unlink()
        others = (".backup.tmp", ".thesis.tex.0123abcd.tmp", "nested/.history.csv.0123abcd.tmp", "snapshots/.x.tmp")
        for name in others:
            (copy.path / name).parent.mkdir(exist_ok=True)
            (copy.path / name).write_text("mine")
        ours = ".history.csv.0123abcd.tmp", "snapshots/.epoch_0002.safetensors.0123abcd.tmp"
        for name in ours:
            (copy.path / name).write_text("half")
        assert_same_files(start(copy.path), whole)
        assert all((copy.path / name).read_text() == "mine" for name in others)
        assert not any((copy.path / name).exists() for name in ours)

    def test_a_directory_with_nothing_but_a_temporary_file_of_others_is_not_new(self, tmp_path):
        (tmp_path / ".backup.tmp").write_text("mine")
        assert "which holds other files" in refusal_of(tmp_path, ParameterError)


class TestNamesOfDirectories:
    @pytest.mark.parametrize("name", ["a\0b", "~nouser/x", "a" * 5000, "\ud800", "new\nline/\0"])
    def test_one_that_cannot_be_is_refused_in_one_sentence(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ParameterError, match=r"^run_dir is ") as refusal:
            start(name)
        assert is_one_sentence(str(refusal.value))
        assert not list(tmp_path.iterdir())

    def test_a_loop_of_links(self, tmp_path):
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        with pytest.raises(ParameterError, match=r"^run_dir is ") as refusal:
            start(tmp_path / "a")
        assert is_one_sentence(str(refusal.value))

    def test_a_working_directory_that_is_gone(self, tmp_path, monkeypatch):
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        with pytest.raises(ParameterError, match=r"^run_dir is 'run', which leads nowhere \(No such file"):
            start("run")

    def test_a_line_break_in_a_name_stays_in_one_sentence_and_works(self, tmp_path):
        (tmp_path / "two\nlines").write_text("mine")
        with pytest.raises(ParameterError, match="which is a file") as refusal:
            start(tmp_path / "two\nlines")
        assert is_one_sentence(str(refusal.value))
        assert start(tmp_path / "a\nrun", epochs=1).finished


class TestFileSystems:
    def test_a_full_disk_is_said_and_the_same_command_goes_on(self, tmp_path, monkeypatch, whole):
        replace, written = os.replace, []

        def full(source, target):
            written.append(target)
            if len(written) > 8:
                raise OSError(errno.ENOSPC, "No space left on device")
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "replace", full)
            with pytest.raises(FileError, match=r"No space left on device.*the same command goes on") as refusal:
                start(tmp_path)
            assert is_one_sentence(str(refusal.value))
        assert_same_files(start(tmp_path), whole)

    def test_stale_files_of_a_network_are_named(self, copy, monkeypatch):
        def stale(path):
            raise OSError(errno.ESTALE, "Stale file handle")

        monkeypatch.setattr(files.Path, "read_bytes", stale)
        with pytest.raises(FileError, match=r"config\.json' cannot be read \(Stale file handle\)"):
            start(copy.path)

    def test_without_locks_the_lock_file_names_host_and_process(self, tmp_path, monkeypatch, capsys):
        import fcntl

        def unsupported(*_):
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(fcntl, "flock", unsupported)
        with status.locked(tmp_path):
            process, host = (tmp_path / ".lock").read_text().split()[:2]
            assert (int(process), host) == (os.getpid(), os.uname().nodename)
            monkeypatch.setattr(status, "LOCK_SECONDS", 0.2)
            with pytest.raises(ParameterError, match=f"another process is at work.*{process} {host}"):
                start(tmp_path)
        assert "has no file locks" in capsys.readouterr().out
        assert start(tmp_path, epochs=1).finished


def test_a_member_whose_directory_vanishes_does_not_end_the_others(tmp_path, monkeypatch):
    from test_execute import configs

    train = Trainer.epoch

    def vanishing(trainer, state):
        if int(state["epoch"].max()) == 1:
            shutil.rmtree(tmp_path / "seed1")
        return train(trainer, state)

    monkeypatch.setattr(Trainer, "epoch", vanishing)
    with pytest.raises(FileError, match=r"seed1.* cannot be written") as refusal:
        execute_together(configs(tmp_path))
    assert is_one_sentence(str(refusal.value))
    assert Run(tmp_path / "seed0").finished
    assert json.loads((tmp_path / "seed0" / "metrics.json").read_text())["epochs"] == 4
