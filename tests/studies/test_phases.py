"""Other schedules than the document's, and the study of chapter 7, made small."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from studies import phases
from studies.variants import turnover
from tvae_lib.measures.pair import Effort
from tvae_lib.system.schedules import permeability
from tvae_lib.training.config import make_config
from tvae_lib.training.state import prescribe


def test_straight_permeability_is_that_of_an_open_gate():
    rho, opened = torch.zeros(()), []
    for t in range(400):
        rho = permeability(t, t - 1, rho, torch.ones(()))
        opened.append(rho.item())
    assert [phases.straight_permeability(t) for t in range(400)] == pytest.approx(opened, abs=1e-5)


def test_boosted_temperatures_are_positive_continuous_and_rise_in_phase_4():
    times = [t / 100 for t in range(40_001)]
    for schedule in (phases.boosted_temperature_A, phases.boosted_temperature_B):
        values = [schedule(t) for t in times]
        assert min(values) >= 0.15
        assert max(abs(a - b) for a, b in itertools.pairwise(values)) < 0.002
    assert phases.boosted_temperature_B(250) == pytest.approx(0.2)
    assert phases.boosted_temperature_B(400) == pytest.approx(0.3)
    base = lambda t: 1 - 0.7 * t / 400  # noqa: E731
    swing = lambda a, b: max(abs(phases.boosted_temperature_A(t) / base(t) - 1) for t in range(a, b))  # noqa: E731
    assert swing(0, 250) == pytest.approx(0.1, abs=0.001)
    assert 0.44 < swing(370, 400) < 0.5


@pytest.mark.parametrize("lag", [0.0, math.pi / 4, math.pi / 2, math.pi])
def test_two_lagging_weights_are_never_both_below_the_bound(lag):
    greater = [max(phases.cycle(t / 20, 0.0), phases.cycle(t / 20, lag)) for t in range(600)]
    assert min(greater) == pytest.approx(1 - 0.3 * math.cos(lag / 2), abs=1e-3)
    assert phases.cycle(0.0, 0.0, depth=0.5) == 0.5
    later = 30 * lag / (2 * math.pi)
    assert phases.cycle(later, lag) == pytest.approx(0.7)  # lowest as much later as it lags


def test_schedules_are_trained_and_judged(made):
    short = {"stops": (1, 2), "effort": Effort(4096, information=64, draws=195_000), "holdout": 0.9, "batch_size": 256}
    table = made(phases.phases(seeds=range(1), origin=1, **short))
    assert table.groupby("schedule").size().to_dict() == {"without boost": 2, "released": 2, "repaired": 2}
    assert table["rho"].between(0.0999, 0.1001).all()
    assert set(table.loc[table["epoch"] == 1, ["new_A", "gone_B", "found_A"]].to_numpy().flat) == {0}


def test_a_pair_is_released_when_phase_4_starts_and_is_the_documents_until_then():
    config = make_config(device="cpu")
    for epoch in (0, 100, 249):
        assert phases.released(config, epoch) == prescribe(config, epoch)
        assert phases.without_boost(config, epoch) == prescribe(config, epoch)
    given = phases.released(config, 250)
    assert (given.phased, given.rho) == (False, 0.0)
    assert phases.without_boost(config, 300).tau_B > prescribe(config, 300).tau_B


def test_turnover_is_since_the_last_epoch_and_since_the_origin():
    hold = lambda *operations: torch.isin(torch.arange(10), torch.tensor(operations))  # noqa: E731
    pair = SimpleNamespace(each={"A": SimpleNamespace(held=hold(1, 2, 3, 4))})
    held = {2: {"A": hold(1, 9)}, 5: {"A": hold(1, 2, 7, 8, 9)}}
    assert turnover(pair, held, 2) == {"found_A": 0.2, "lost_A": 0.3, "new_A": 0.3, "gone_A": 0.1}
    assert set(turnover(pair, {}, 2).values()) == {0}
