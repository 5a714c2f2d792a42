"""One VAE of either kind, made small."""

from studies import rates, tables
from tvae_lib.measures.pair import Effort

SHORT = {"effort": Effort(4096, information=64, codes=2), "total_epochs": 1, "holdout": 0.9}


def test_rates_are_of_both_pathways_and_one_pair_is_kept(made, tmp_path, monkeypatch):
    settings = ((0.5, 0.5, 1.0), (0.3, 0.98, 1.0))
    table = made(rates.rate(settings, range(1), folder=tmp_path / "tables", **SHORT))
    assert table[["beta_start", "pathway"]].values.tolist() == [[0.3, "A"], [0.3, "B"], [0.5, "A"], [0.5, "B"]]
    monkeypatch.setattr(tables, "FOLDER", tmp_path / "tables")
    assert tables.kept().A.encoder.mean.out_features == 16


def test_singles_are_of_both_kinds(made):
    table = made(rates.singles((("unskipped", 0.3, 0.98, "cosine"), ("wide", 0.6, 1.0, "none")), range(1), **SHORT))
    assert table["kind"].tolist() == ["unskipped", "wide"]
    assert table["kl_uniform"].between(0, 1).all()
    assert (table["distortion"] + table["rate"] > 9.88).all()


def test_unskipped_decoder_has_as_many_parameters(rng):
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(rates.UnskippedDecoder()) == count(rates.DecoderB())
