"""The repaired pair's studies, made small."""

import pytest
import torch

from studies import repairs
from tvae_lib.measures.pair import Effort
from tvae_lib.system.dual import DualVAE
from tvae_lib.training.config import make_config

EFFORT = Effort(4096, information=64, codes=2, draws=195_000)
SHORT = {"stops": (1, 2), "effort": EFFORT, "total_epochs": 2, "holdout": 0.9}


def test_each_mechanism_is_taken_out_and_put_in_alone(made):
    whole, out = {"repaired": repairs.REPAIRED}, {"no collisions": repairs.OFF}
    alone = {"coupling": repairs.ONE_ALONE["coupling"]}
    table = made(repairs.ablations(whole, out, alone, range(2), range(1), **SHORT))
    assert table.groupby("variant").size().to_dict() == {"repaired": 4, "no collisions": 4, "coupling alone": 2}
    assert table["kl_half"].gt(0).all()
    last = table[table["epoch"] == 2].set_index(["variant", "seed"])
    assert last.loc["repaired", "kl_uniform_A"].ne(last.loc["no collisions", "kl_uniform_A"]).all()


def test_a_mechanism_out_or_alone_differs_from_its_base_in_what_it_names():
    for base, changes in ((repairs.REPAIRED, repairs.ONE_OUT), (repairs.BARE, repairs.ONE_ALONE)):
        whole = make_config(**base, device="cpu")
        for name, change in changes.items():
            config = make_config(**(base | change), device="cpu")
            differing = {key for key in change if getattr(config, key) != getattr(whole, key)}
            assert differing == set(change), name
    alone = make_config(**(repairs.BARE | repairs.ONE_ALONE["collisions"]), device="cpu")
    repaired = make_config(**repairs.REPAIRED, device="cpu")
    for name in ("diversity", "diversity_end", "prior_samples"):
        assert getattr(alone, name) == getattr(repaired, name)


def test_starts_are_those_of_statenet_and_without_it(made):
    table = made(repairs.starts({"lr 0.002": {"lr": 0.002}}, range(1), **SHORT))
    assert table.groupby("statenet").size().to_dict() == {"off": 2, "rate": 2}
    of_off = table[table["statenet"] == "off"].set_index("epoch")
    assert of_off["lr"].loc[1] == pytest.approx(0.002)


def test_one_vae_has_the_pairs_size_and_trains_alone(made):
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in one.parameters()) for one in (repairs.OfThePairsSize().B, DualVAE())]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
    table = made(repairs.one_for_two(range(1), **SHORT)).set_index("epoch")
    assert table.loc[2, "norm_A"] == 0 < table.loc[2, "norm_B"]
