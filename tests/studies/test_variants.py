"""The document's pair, its readings and what is left without a mechanism, made small."""

from studies import variants
from tvae_lib.measures.generation import Draws
from tvae_lib.measures.pair import Effort
from tvae_lib.training.config import make_config

SHORT = {"stops": (1, 2), "effort": Effort(4096, information=64, draws=195_000), "total_epochs": 2, "holdout": 0.9}


def test_the_base_is_judged_at_every_stop_under_three_readings_of_a_trit_and_three_of_the_system(made):
    table = made(variants.base(range(2), **SHORT))
    assert table[["seed", "epoch"]].values.tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
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
    for name, change in (variants.FIRST_READINGS | variants.MORE_READINGS).items():
        config = make_config(**change, device="cpu")
        assert {key: getattr(config, key) for key in change} == change, name
        assert all(getattr(make_config(device="cpu"), key) != value for key, value in change.items()), name


def test_the_last_cycle_is_judged_at_five_places():
    assert variants.LAST_CYCLE == (376, 382, 388, 394, 400)
    assert set(variants.STOPS) <= set(variants.STOPS_OF_BASE)
