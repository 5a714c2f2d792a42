"""The tables behind chapters 2 to 7: made row by row, continued, and left alone when whole."""

import pandas as pd
import pytest

from tvae_lib import ensemble, experiments, phasing, rivals, tables
from tvae_lib.config import ROOT, ParameterError, make_config


@pytest.fixture
def small(tmp_path, monkeypatch):
    """One epoch on a tenth of the data, one seed, one constant and one rising beta."""

    def uncoupled(beta_start, beta_end, tau, seed, **more):
        return make_config(
            preset="corrected", beta_start=beta_start, beta_end=beta_end, tau=tau, seed=seed, device="cpu",
            total_epochs=1, holdout=0.9, **more,
        )  # fmt: skip

    monkeypatch.setattr(tables, "FOLDER", tmp_path)
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


def test_stability_and_coupling_are_made_and_left_alone(small, monkeypatch):
    make = make_config
    short = lambda **p: make(**(p | {"total_epochs": 1, "holdout": 0.9}))  # noqa: E731
    monkeypatch.setattr(rivals, "make_config", short)
    monkeypatch.setattr(rivals, "SETTINGS", ((0.5, 1.0, 1.0),))
    monkeypatch.setattr(rivals, "FACTORS", (0.5, 1.5))
    monkeypatch.setattr(rivals, "SMALL_SEEDS", range(1))
    monkeypatch.setattr(rivals, "SMALL", (1, 512))
    monkeypatch.setattr(rivals, "LATE", ())
    monkeypatch.setattr(rivals, "COUPLING_STOPS", (1,))
    monkeypatch.setattr(rivals, "SEEDS", range(1))
    monkeypatch.setattr(rivals, "SAMPLES", 4096)
    for name, rows in (("stability", 2), ("coupling", len(rivals.COUPLINGS))):
        experiments.main([name])
        table = experiments.read(name)
        assert len(table) == rows
        assert table.notna().all().all()
        before = (small / f"{name}.csv").read_bytes()
        experiments.main([name])
        assert (small / f"{name}.csv").read_bytes() == before
    table = table.set_index("variant")
    assert table.loc["no coupling", "rho"] == 0
    assert table["rho"].drop("no coupling").between(0.0999, 0.1001).all()


def test_phases_branch_off_and_go_on_where_they_were(small, monkeypatch):
    make = make_config
    monkeypatch.setattr(phasing, "make_config", lambda **p: make(**p, holdout=0.9))
    monkeypatch.setattr(phasing, "SEEDS", range(2))
    monkeypatch.setattr(phasing, "FEWER", range(1))
    monkeypatch.setattr(phasing, "SAMPLES", 4096)
    monkeypatch.setattr(phasing, "PHASE_4", 2)
    monkeypatch.setattr(phasing, "STOPS", (1, 2, 3))
    experiments.main(["phases"])
    table = experiments.read("phases")
    assert table.groupby("schedule").size().to_dict() == {
        "document": 6, "without boost": 1, "released": 1, "repaired": 3,
    }  # fmt: skip
    assert table.notna().all().all()
    by_schedule = table[(table["seed"] == 0) & (table["epoch"] == 3)].set_index("schedule")
    assert by_schedule.loc["released", "rho"] == 0
    assert by_schedule["rho"].drop("released").between(0.0999, 0.1001).all()
    whole = (small / "phases.csv").read_bytes()
    kept = table[table["schedule"] != "released"]
    kept.to_csv(small / "phases.csv", index=False)
    experiments.main(["phases"])  # the branch again, and nothing else
    again = experiments.read("phases")
    assert again.shape == table.shape
    assert (small / "phases.csv").read_bytes() == whole
    experiments.main(["phases"])
    assert (small / "phases.csv").read_bytes() == whole


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
    trained = len(experiments.VARIANTS) * len(experiments.PAIR_SEEDS)
    trained += len(experiments.SETTINGS_BY_HAND) * len(experiments.SMALL_SEEDS)
    assert len(pairs) == trained * len(experiments.STOPS)
    singles = pd.read_csv(ROOT / "results" / "experiments" / "singles.csv")
    assert len(singles) == len(experiments.SINGLES) * len(experiments.SEEDS)
    stability = pd.read_csv(ROOT / "results" / "experiments" / "stability.csv")
    settings = len(rivals.SETTINGS) * len(rivals.FACTORS) + len(rivals.LATE)
    assert len(stability) == settings * len(experiments.SMALL_SEEDS)
    coupling = pd.read_csv(ROOT / "results" / "experiments" / "coupling.csv")
    runs = len(rivals.COUPLINGS) * len(experiments.SEEDS)
    assert len(coupling) == runs * len(rivals.COUPLING_STOPS)
    equilibria = pd.read_csv(ROOT / "results" / "experiments" / "equilibria.csv")
    assert len(equilibria) == len(rivals.GAMES) * 200
    swing = pd.read_csv(ROOT / "results" / "experiments" / "swing.csv")
    assert len(swing) == len(rivals.SWING_SEEDS) * 200
    commons = pd.read_csv(ROOT / "results" / "experiments" / "commons.csv")
    kinds = len(rivals.COMMONS) * len(rivals.COMMONS_RHO)
    assert len(commons) == kinds * len(experiments.SMALL_SEEDS)
    phases = pd.read_csv(ROOT / "results" / "experiments" / "phases.csv")
    later = [stop for stop in phasing.STOPS if stop > phasing.PHASE_4]
    trained = len(phasing.SCHEDULES) - 1 - len(phasing.BRANCHES)
    rows = (len(phasing.SEEDS) + trained * len(phasing.FEWER)) * len(phasing.STOPS)
    assert len(phases) == rows + len(phasing.BRANCHES) * len(phasing.FEWER) * len(later)
    undefined = pairs[pairs["cka"].isna()]  # of codes that are the same for every operation
    assert (undefined[["knows_A", "knows_B"]].min(axis=1) < 1e-3).all()
    pairs = pairs.drop(columns="cka")
    for table in (rate, pairs, singles, stability, coupling, equilibria, swing, commons, phases):
        assert table.notna().all().all()
