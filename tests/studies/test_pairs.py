"""Pairs and StateNet set by hand, made small."""

from studies import pairs
from tvae_lib.measures.pair import Effort


def test_variants_and_settings_by_hand_are_judged_at_every_stop(made):
    variants, by_hand = {"document": {}, "no coupling": {"cross_injection": False}}, {"lr 0.003": {"lr": 0.003}}
    short = {"stops": (1, 2), "effort": Effort(4096), "total_epochs": 2, "holdout": 0.9}
    table = made(pairs.pairs(variants, by_hand, seeds=2, fewer=1, **short))
    assert table.groupby("variant").size().to_dict() == {"document": 4, "no coupling": 4, "lr 0.003": 2}
    assert table.set_index("variant").loc["lr 0.003", "lr"].between(0.00299, 0.00301).all()
    assert (table["rho"] == 0).tolist() == (table["variant"] == "no coupling").tolist()
    assert (table[["has_both"]].values <= table[["has_A", "has_B"]].values).all()


def test_columns_are_renamed_before_their_pathway_too():
    row = {"exact": 1, "exact_A": 2, "exact_both": 3, "other": 4}
    renamed = pairs.renamed(row, {"exact": "knows", "exact_both": "all"})
    assert renamed == {"knows": 1, "knows_A": 2, "all": 3, "other": 4}
