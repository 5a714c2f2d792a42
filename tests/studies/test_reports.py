"""Everything that is measured of a trained pair: parts that must fit together, and a generator that is known."""

import itertools
import math

import pytest
import torch

from studies import reports
from studies.tables import kept
from tvae_lib.coverage import uniform_coverage, uniform_coverage_deviation
from tvae_lib.operations import ENTROPY, SIZE
from tvae_lib.system.vae import Posterior

QUICK = reports.Samples(prior=2**18, evaluations=4, information=512, parts=256, codes=2)


@pytest.fixture(scope="module")
def report() -> dict:
    """The pair of chapter 2, trained apart at temperature 1, with a coupling that it never had."""
    return reports.examine(kept(), 0.0, 1.0, 1.0, samples=QUICK)


@pytest.mark.parametrize("pathway", "AB")
def test_parts_of_the_rate_and_both_bounds_fit_together(report, pathway):
    part = report[pathway]
    information, error = part["own"]["information"]
    (correlation, error_2), (prior_gap, error_3) = part["total_correlation"], part["dimension_wise_kl"]
    assert part["charged"] == pytest.approx(part["rate"])
    parts = information + correlation + prior_gap
    assert parts == pytest.approx(part["rate"], abs=5 * math.hypot(error, error_2, error_3))
    distortion, error = part["own"]["distortion"]
    assert distortion + part["rate"] > ENTROPY - 5 * error  # the negative ELBO is above the entropy of the data
    for kind in ("information", "distortion", "exact"):  # without coupling a decoder reads its own code
        (own, error), (read, error_2) = part["own"][kind], part["read"][kind]
        assert own == pytest.approx(read, abs=5 * math.hypot(error, error_2) + 0.001)
    assert part["own"]["exact"][0] < part["own"]["exact_at_mean"] == part["read"]["exact_at_mean"] == 1


@pytest.mark.parametrize("pathway", "AB")
def test_measured_coverage_is_the_predicted_one(report, pathway):
    alone = report[pathway]["alone"]
    for draws, (mean, deviation) in alone["coverage"].items():
        measured, error = alone["measured"][draws]
        assert abs(measured - mean) < 4 * deviation / math.sqrt(QUICK.evaluations) + 0.0005  # for that of p
        assert error < 3 * deviation / math.sqrt(QUICK.evaluations)
        assert measured < uniform_coverage(draws) + 4 * uniform_coverage_deviation(draws)
    assert alone["sum_p"] == pytest.approx(1, abs=1e-6)


def test_the_pair_shares_no_more_than_either_knows(report):
    shared, error = report["pair"]["shared_information"]
    joint, _ = report["pair"]["joint_information"]
    least = min(report[pathway]["own"]["information"][0] for pathway in "AB")
    assert shared < least + 4 * error
    assert least < joint + 0.1 <= math.log(SIZE) + 0.1


def test_two_noisy_readings_of_one_number_share_what_gaussians_share(rng):
    x = torch.distributions.Normal(0.0, 2.0).icdf((torch.arange(2000) + 0.5) / 2000).double().unsqueeze(1)
    reading = Posterior(x, torch.zeros_like(x))  # signal of variance 4, noise of variance 1: correlation 4/5
    value, error = reports.shared_information(reading, reading, 4000, rng)
    assert value == pytest.approx(-0.5 * math.log(1 - 0.64), abs=4 * error + 0.01)
    assert error < 0.03


BITS = ((50.0, 50.0, -50.0, -50.0), (50.0, -50.0, 50.0, -50.0))


def test_a_bit_in_both_codes_is_shared_and_two_different_bits_are_not(rng):
    bit, other = (Posterior(torch.tensor(means).unsqueeze(1), torch.zeros(4, 1)) for means in BITS)
    assert reports.shared_information(bit, bit, 200, rng)[0] == pytest.approx(math.log(2))
    assert reports.shared_information(bit, other, 200, rng)[0] == pytest.approx(0, abs=1e-9)


def test_rarefied_coverage_is_the_mean_over_all_subsets():
    drawn = [0, 0, 1, 2, 2, 2, 4]
    counts = torch.bincount(torch.tensor(drawn), minlength=6)
    for draws in range(len(drawn) + 1):
        subsets = list(itertools.combinations(drawn, draws))
        direct = sum(len(set(subset)) for subset in subsets) / len(subsets) / 6
        assert reports.rarefied(counts, draws) == pytest.approx(direct, abs=1e-12)
    with pytest.raises(ValueError, match="draws is 8; it must be from 0 to 7"):
        reports.rarefied(counts, 8)
