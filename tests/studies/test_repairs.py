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
    forms = {"codes mixed": repairs.OTHER_FORMS["codes mixed"]}
    alone = {"coupling": repairs.ONE_ALONE["coupling"]}
    table = made(repairs.ablations(whole, out, forms, alone, range(2), range(1), **SHORT))
    found = {"repaired": 4, "no collisions": 4, "codes mixed": 2, "coupling alone": 2}
    assert table.groupby("variant").size().to_dict() == found
    assert table["kl_half"].gt(0).all()
    last = table[table["epoch"] == 2].set_index(["variant", "seed"])
    assert last.loc["repaired", "kl_uniform_A"].ne(last.loc["no collisions", "kl_uniform_A"]).all()


def test_a_mechanism_out_or_alone_differs_from_its_base_in_what_it_names():
    for base, changes in ((repairs.REPAIRED, repairs.ONE_OUT | repairs.OTHER_FORMS), (repairs.BARE, repairs.ONE_ALONE)):
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
        one, pair = repairs.OfThePairsSize(), DualVAE()
    size = sum(p.numel() for p in pair.parameters())
    for vae in (one.A, one.B):
        assert sum(p.numel() for p in vae.parameters()) == pytest.approx(size, rel=0.01)
    assert one.A.decoder(torch.zeros(2, 16, device="meta")).shape == (2, 9, 3)
    table = made(repairs.one_for_two(range(1), **SHORT)).set_index(["variant", "epoch"])
    assert table.loc[("A", 2), "norm_B"] == 0 < table.loc[("A", 2), "norm_A"]
    assert table.loc[("B", 2), "norm_A"] == 0 < table.loc[("B", 2), "norm_B"]
