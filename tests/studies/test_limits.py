"""The repaired pair elsewhere: its data, and its study made small."""

import math

import pytest
import torch

from studies import limits
from studies.limits import DATA, favoured, measured_of, orbits, tables_of
from tvae_lib.operations import all_operations
from tvae_lib.rng import stream
from tvae_lib.system.vae import VAE, DecoderA


def test_tables_of_nine_trits_are_the_operations():
    assert torch.equal(tables_of(9), all_operations())
    assert tables_of(3).unique(dim=0).shape == (27, 3)


def test_a_tenth_is_favoured_ten_times_and_orbits_are_counted():
    counts = favoured(tables_of(5)).bincount()
    assert counts.unique().tolist() == [1, 10]
    assert (counts == 10).sum() == 24
    assert len(orbits(all_operations())) == 1734


def test_measures_of_a_decoder_that_is_uniform_by_hand():
    vae = VAE(DecoderA(trits=3), trits=3)
    for parameter in vae.decoder.parameters():
        parameter.data.zero_()
    chosen = torch.tensor([0, 0, 5])
    found = measured_of(vae, tables_of(3), chosen, 1728, stream(0, 0, "test"))
    of_data = 2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)
    assert found["kl_uniform"] == pytest.approx(0, abs=1e-5)
    assert found["kl_data"] == pytest.approx(of_data + math.log(27), abs=1e-4)
    assert found["within"] == pytest.approx(2 / 27, rel=1e-5)
    assert found["least"] == pytest.approx(1, rel=1e-4)
    assert found["coverage"] == pytest.approx(1 - (26 / 27) ** 69, rel=1e-5)
    assert found["uniform_coverage"] == pytest.approx(1 - (26 / 27) ** 69)
    assert found["exact"] == pytest.approx(1 / 27)  # all trits read as the first value
    assert found["exact_of_data"] == pytest.approx(2 / 3)
    assert 0 <= found["information"] <= math.log(3) - of_data


def test_lengths_and_data_differ(made):
    few = {
        "3 trits": {"trits": 3, "total_epochs": 20},
        "orbits": {"data": "orbits", "total_epochs": 1},
        "favoured": {"trits": 7, "data": "favoured", "total_epochs": 1},
    }
    table = made(limits.limits(few, range(1), 8)).set_index("variant")
    assert table["trits"].to_dict() == {"3 trits": 3, "orbits": 9, "favoured": 7}
    assert table.loc["3 trits", "data_from_uniform_A"] == pytest.approx(0, abs=1e-9)
    assert table.loc["orbits", "data_from_uniform_A"] == pytest.approx(math.log(19_683 / 1734))
    assert table.loc["favoured", "within_B"] == pytest.approx(1, abs=1e-6)
    assert set(table["data"]) == {"all", "orbits", "favoured"} == set(DATA)
