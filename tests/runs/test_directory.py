"""The run directory: what is in it, when it is refused, and the committed reference run."""

import json
import math

import pytest
import torch
from shared import FAST, SAME, is_one_sentence, start

from tvae_lib.errors import FileError, ParameterError
from tvae_lib.measures.reconstruction import exact_shares
from tvae_lib.operations import SIZE
from tvae_lib.runs import status
from tvae_lib.runs.directory import Run
from tvae_lib.runs.evaluate import COVERAGES, PATHWAYS, SYSTEMS, judge_both
from tvae_lib.runs.execute import execute
from tvae_lib.runs.files import FORMAT
from tvae_lib.system.schedules import temperature_A
from tvae_lib.system.statenet import CORRECTIONS, STATE
from tvae_lib.training.config import REFERENCE, Config, identity, make_config
from tvae_lib.training.state import HISTORY
from tvae_lib.training.trainer import Trainer


def test_directory_holds_what_the_contract_says(whole):
    names = {p.relative_to(whole.path).as_posix() for p in whole.path.rglob("*") if p.is_file()}
    snapshots = {f"snapshots/epoch_{e:04d}.safetensors" for e in (0, 2, 3)}  # 0, 40, 120, 150, 250 of 400, in 5 epochs
    single = {"config.json", "checkpoint.safetensors", "timing.json", ".lock"}
    assert names == single | set(SAME) | snapshots


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


def test_fewer_epochs_than_there_are_is_refused(whole):
    with pytest.raises(ParameterError, match=r"^epochs is 3; it must be at least 5"):
        start(whole.path, epochs=3)


def test_another_configuration_is_refused_by_name(whole):
    with pytest.raises(ParameterError, match=r"a run with lr 0\.001 where this one has 0\.002"):
        start(whole.path, lr=0.002)


def test_another_format_is_refused(whole, tmp_path):
    config = whole.config | {"format": 99}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match=rf"config\.json' is of format 99 where .* reads {FORMAT}; restore it"):
        start(tmp_path)


def test_a_published_run_without_its_checkpoint_is_shown_but_not_continued(tmp_path):
    run = start(tmp_path, epochs=1)
    (run.path / "checkpoint.safetensors").unlink()
    assert start(tmp_path, epochs=1).finished
    with pytest.raises(ParameterError, match="without the checkpoint"):
        start(tmp_path, epochs=2)


def test_a_directory_in_use_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(status, "LOCK_SECONDS", 0.2)
    with status.locked(tmp_path), pytest.raises(ParameterError, match="another process"):
        start(tmp_path)


class TestRunDirectory:
    def refused(self, **parameters):
        with pytest.raises(ParameterError) as refusal:
            execute(make_config(device="cpu", epochs=1, **parameters))
        assert is_one_sentence(str(refusal.value))
        assert str(refusal.value).startswith("run_dir is ")
        return str(refusal.value)

    def test_a_file(self, tmp_path):
        (tmp_path / "run").write_text("mine")
        assert "which is a file" in self.refused(run_dir=str(tmp_path / "run"))
        assert (tmp_path / "run").read_text() == "mine"

    def test_below_a_file(self, tmp_path):
        (tmp_path / "run").write_text("mine")
        self.refused(run_dir=str(tmp_path / "run" / "deeper"))

    def test_not_writable(self, tmp_path, monkeypatch):
        def denied(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(status.FileLock, "acquire", denied)
        assert "Permission denied" in self.refused(run_dir=str(tmp_path / "run"))

    def test_other_files(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("mine")
        assert "which holds other files" in self.refused(run_dir=str(tmp_path))
        assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]

    def test_not_empty_without_resume(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        assert "resume" in self.refused(run_dir=str(tmp_path), resume=False)


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
        exact = exact_shares(model, trainer.trits, self.run.history["rho"].iloc[-1])
        recorded = self.run.metrics["reconstruction"]["training"]
        assert exact == pytest.approx(recorded, abs=2e-4)
        verdicts, _ = judge_both(trainer, model, 2**19, 0, "check")
        draw = 0.5 / SIZE**0.5  # no coverage scatters more: M independent hits of probability one half
        for system in SYSTEMS:
            for kind in COVERAGES:
                mine, theirs = verdicts[system][kind], self.run.metrics[system][kind]
                assert mine == pytest.approx(theirs, abs=4 * math.sqrt(2) * draw)
        for pathway in PATHWAYS:
            mine, theirs = verdicts[pathway], self.run.metrics[pathway]
            error = math.hypot(mine["kl_uniform_error"], theirs["kl_uniform_error"])
            assert mine["kl_uniform"] == pytest.approx(theirs["kl_uniform"], abs=4 * error + 0.003)

    def test_realised_schedule_is_the_prescribed_one(self):
        history = self.run.history
        assert history["rho"].iloc[[0, 39, 40, 80, 120]].tolist() == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.3], abs=1e-6)
        opened = history["gate"].iloc[120:249].sum()
        assert history["rho"].iloc[249] == pytest.approx(0.3 + 0.4 / 130 * opened, abs=1e-4)
        assert (history["rho"].iloc[250:] - 0.7).abs().max() < 1e-6
        assert history["tau_A"].min() == pytest.approx(min(temperature_A(t) for t in range(400)))


def test_statenet_of_a_snapshot_gives_the_corrections_of_the_next_epoch():
    run = Run(REFERENCE)
    history, net = run.history, run.statenet(250)
    before, after = history.iloc[249], history.iloc[250]
    averages, weights = list(STATE[:5]), list(STATE[6:])
    state = [*before[averages], after["rho"], *before[weights]]
    corrections = net(torch.tensor(state, dtype=torch.float32)).tolist()
    assert corrections == pytest.approx(after[list(CORRECTIONS)].tolist(), abs=1e-5)
    assert run.statenet()(torch.tensor(state, dtype=torch.float32)).tolist() != corrections
