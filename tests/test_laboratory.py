"""Everything that is measured of a trained pair: parts that must fit together, and a generator that is known."""

import math

import pytest
import torch

from tvae_lib import convergence, evaluation, laboratory, tables
from tvae_lib.frontier import hand_written
from tvae_lib.operations import ENTROPY, SIZE, uniform_coverage, uniform_coverage_deviation
from tvae_lib.vae import LATENT

QUICK = laboratory.Effort(prior=2**18, evaluations=4, information=512, parts=256, codes=2)


@pytest.fixture(scope="module")
def report() -> dict:
    """The pair of chapter 2, trained apart at temperature 1, with a coupling that it never had."""
    return laboratory.examine(tables.kept(), 0.0, 1.0, 1.0, effort=QUICK)


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


def test_sobol_samples_are_normal_and_repeat_with_their_seed():
    z = convergence.sobol_normal(4096, LATENT, 1)
    assert torch.equal(z, convergence.sobol_normal(4096, LATENT, 1))
    assert not torch.equal(z, convergence.sobol_normal(4096, LATENT, 2))
    assert z.isfinite().all()
    torch.testing.assert_close(z.mean(0), torch.zeros(LATENT), atol=0.01, rtol=0)
    torch.testing.assert_close(z.T.cov(), torch.eye(LATENT), atol=0.06, rtol=0)
    counts = (torch.special.ndtr(z.double()) * 64).floor().long()
    assert all((torch.bincount(column, minlength=64) == 64).all() for column in counts.T), "64 strata, equally full"


def test_a_rotated_decoder_generates_the_same_from_other_codes(rng):
    decoder = hand_written(3.0)
    turned = convergence.rotated(decoder, rng)
    z = torch.randn(500, LATENT, generator=rng)
    assert (turned(z) - decoder(z)).abs().max() > 1
    gram = turned.body[0].weight @ turned.body[0].weight.T
    torch.testing.assert_close(gram, decoder.body[0].weight @ decoder.body[0].weight.T, atol=1e-5, rtol=0)


def test_argmax_coverage_counts_what_the_first_codes_give():
    decoder = hand_written(3.0)
    z = torch.zeros(3, LATENT)
    z[2, 0] = 9.0
    assert convergence.argmax_coverage(decoder, z, (2, 3)) == pytest.approx({2: 1 / SIZE, 3: 2 / SIZE})


def test_importance_sampling_agrees_with_the_matrix_product_for_a_proposal_that_fits():
    decoder, trits = hand_written(3.0), evaluation.all_operations().float()
    mean = torch.cat([trits, torch.zeros(SIZE, LATENT - 9)], 1)
    posterior = evaluation.Posterior(mean, torch.full_like(mean, math.log(0.4)))
    posterior.log_variance[:, 9:] = -math.log(convergence.WIDER)
    found = convergence.agreement(decoder, posterior, "test", prior=2**18, tens=20)
    assert found["within"] > 0.97
    assert found["sum"] == pytest.approx(1, abs=4 * found["sum_error"])
