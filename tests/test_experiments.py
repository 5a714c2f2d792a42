"""The tables behind chapters 2 and 3: made row by row, continued, and left alone when whole."""

import pandas as pd
import pytest

from tvae_lib import ensemble, experiments
from tvae_lib.config import ROOT, ParameterError, make_config


@pytest.fixture
def small(tmp_path, monkeypatch):
    """One epoch on a tenth of the data, one seed, one constant and one rising beta."""

    def uncoupled(beta_start, beta_end, tau, seed, **more):
        return make_config(
            preset="corrected", beta_start=beta_start, beta_end=beta_end, tau=tau, seed=seed, device="cpu",
            total_epochs=1, holdout=0.9, **more,
        )  # fmt: skip

    monkeypatch.setattr(experiments, "FOLDER", tmp_path)
    monkeypatch.setattr(experiments, "uncoupled", uncoupled)
    monkeypatch.setattr(experiments, "SAMPLES", 4096)
    monkeypatch.setattr(experiments, "CONSTANT", (0.5,))
    monkeypatch.setattr(experiments, "RISING", (0.98,))
    monkeypatch.setattr(experiments, "SEEDS", range(1))
    return tmp_path


def test_rate_is_made_row_by_row_and_goes_on_where_it_was(small, monkeypatch):
    progress = ensemble.progress
    monkeypatch.setattr(ensemble, "progress", lambda configs, *rest: progress(configs[:1], *rest))
    experiments.main(["rate"])  # as if stopped after one training
    assert len(experiments.read("rate")) == 2
    monkeypatch.setattr(ensemble, "progress", progress)
    experiments.main(["rate"])
    table = experiments.read("rate")
    assert len(table) == 2 * 4
    assert not table.duplicated(["beta_start", "beta_end", "tau", "seed", "pathway"]).any()
    assert experiments.kept().A.encoder.mean.out_features == 16
    made = (small / "made.json").read_bytes()

    def fail(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(ensemble, "progress", fail)
    experiments.main(["rate"])
    assert (small / "made.json").read_bytes() == made


def test_singles_have_the_columns_of_rate(small, monkeypatch):
    monkeypatch.setattr(experiments, "SINGLES", (("unskipped", 0.3, 0.98, "cosine"), ("wide", 0.6, 1.0, "none")))
    experiments.main(["singles"])
    table = experiments.read("singles")
    assert table["kind"].tolist() == ["unskipped", "wide"]
    assert table["kl_uniform"].between(0, 1).all()
    assert (table["distortion"] + table["rate"] > 9.88).all()


def test_unskipped_decoder_has_as_many_parameters(rng):
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(experiments.UnskippedDecoder()) == count(experiments.DecoderB())


def test_an_unknown_experiment_is_refused():
    with pytest.raises(ParameterError, match="experiment is 'rates'"):
        experiments.main(["rates"])


def test_committed_tables_are_whole():
    rate = pd.read_csv(ROOT / "results" / "experiments" / "rate.csv")
    settings = len(experiments.CONSTANT) + len(experiments.RISING) + 2
    assert len(rate) == 2 * settings * len(experiments.SEEDS)
    pairs = pd.read_csv(ROOT / "results" / "experiments" / "pairs.csv")
    assert len(pairs) == len(experiments.VARIANTS) * len(experiments.PAIR_SEEDS) * len(experiments.STOPS)
    singles = pd.read_csv(ROOT / "results" / "experiments" / "singles.csv")
    assert len(singles) == len(experiments.SINGLES) * len(experiments.SEEDS)
    for table in (rate, pairs, singles):
        assert table.notna().all().all()
