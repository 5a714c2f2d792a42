"""The document's pair, its readings and what is left without a mechanism, made small."""

import pandas as pd

from studies import study, variants
from tvae_lib.measures.generation import Draws
from tvae_lib.measures.pair import Effort
from tvae_lib.training.config import make_config

SHORT = {"stops": (1, 2), "effort": Effort(4096, information=64, draws=195_000), "total_epochs": 2, "holdout": 0.9}

FEW = SHORT | {"seeds": range(2), "fewer": range(0)}


def test_the_base_is_judged_at_every_stop_under_three_readings_of_a_trit_and_three_of_the_system(made):
    table = made(variants.base(range(2), **SHORT))
    assert table[["seed", "epoch"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    for reading in Draws._fields:
        each, half, union = (
            table[[f"{reading}_195000_{p}" for p in "AB"]],
            table[f"{reading}_half_195000"],
            table[f"{reading}_union_195000"],
        )
        assert (union >= each.max(axis=1)).all()
        assert (union >= half).all()
        assert (half > each.min(axis=1) - 0.01).all()


def test_one_reading_at_a_time_is_changed():
    assert variants.FIRST_READINGS["document"] == {}
    for name, change in (variants.FIRST_READINGS | variants.MORE_READINGS).items():
        config = make_config(**change, device="cpu")
        assert {key: getattr(config, key) for key in change} == change, name
        assert all(getattr(make_config(device="cpu"), key) != value for key, value in change.items()), name


def test_the_last_cycle_is_judged_at_five_places():
    assert variants.LAST_CYCLE == (376, 382, 388, 394, 400)
    assert set(variants.STOPS) <= set(variants.STOPS_OF_BASE)


def test_a_nudge_moves_each_parameter_by_about_its_rounding(made):
    short = SHORT | {"stops": (1,), "total_epochs": 1}
    table = made(variants.nudges(times=range(3), **short)).set_index(["variant", "nudge"])
    assert len(table) == 6
    of_document = table.loc["document", "kl_uniform_A"]
    assert of_document.nunique() == 3
    assert of_document.max() - of_document.min() < 0.2
    assert table["read_A"].between(0, 9).all()
    assert table["least_read_B"].between(0.2, 1).all()


def test_on_a_gpu_cases_train_as_ensembles_and_are_measured_beside(made, monkeypatch):
    """On a CPU that passes for a GPU: replicas in groups, processes that measure, every part whole."""
    alone = made(variants.mechanisms(without={"no balance": {"gradient_balance": False}}, by_hand={}, **FEW))
    monkeypatch.setattr(study, "is_gpu", lambda device: True)
    changes = {"no balance": {"gradient_balance": False}, "last ReLU": {"last_relu": True}}
    together = made(variants.mechanisms(without=changes, by_hand={}, **FEW), into="together")
    assert together.groupby("variant").size().to_dict() == {"no balance": 4, "last ReLU": 4}
    same = together[together["variant"] == "no balance"].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, alone, rtol=0.05, atol=0.05)
