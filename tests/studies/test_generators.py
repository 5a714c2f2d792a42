"""Decoders that no training touched, and other ways to draw from a decoder."""

import math

import pytest
import torch
from shared import Constant, Linear

from studies import generators, tables
from studies.reports import Samples
from tvae_lib.measures.pair import Effort
from tvae_lib.operations import SIZE, all_operations
from tvae_lib.rng import stream
from tvae_lib.system.vae import LATENT, DecoderB, Posterior
from tvae_lib.theory.product_codes import hand_written


def test_sobol_samples_are_normal_and_repeat_with_their_seed():
    z = generators.sobol_normal(4096, LATENT, 1)
    assert torch.equal(z, generators.sobol_normal(4096, LATENT, 1))
    assert not torch.equal(z, generators.sobol_normal(4096, LATENT, 2))
    assert z.isfinite().all()
    torch.testing.assert_close(z.mean(0), torch.zeros(LATENT), atol=0.01, rtol=0)
    torch.testing.assert_close(z.T.cov(), torch.eye(LATENT), atol=0.06, rtol=0)
    counts = (torch.special.ndtr(z.double()) * 64).floor().long()
    assert all((torch.bincount(column, minlength=64) == 64).all() for column in counts.T), "64 strata, equally full"


def test_a_rotated_decoder_generates_the_same_from_other_codes(rng):
    decoder = hand_written(3.0)
    turned = generators.rotated(decoder, rng)
    z = torch.randn(500, LATENT, generator=rng)
    assert (turned(z) - decoder(z)).abs().max() > 1
    gram = turned.body[0].weight @ turned.body[0].weight.T
    torch.testing.assert_close(gram, decoder.body[0].weight @ decoder.body[0].weight.T, atol=1e-5, rtol=0)


def test_argmax_coverage_counts_what_the_first_codes_give():
    decoder = hand_written(3.0)
    z = torch.zeros(3, LATENT)
    z[2, 0] = 9.0
    assert generators.argmax_coverage(decoder, z, (2, 3)) == pytest.approx({2: 1 / SIZE, 3: 2 / SIZE})


def exact_proposal(decoder) -> Posterior:
    """Mean and variance of p(z|x) for a decoder whose trit j reads coordinate j alone, by quadrature."""
    z = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    weights = torch.softmax(decoder(z.unsqueeze(1).expand(-1, 9))[:, 0], -1) * torch.exp(-z.square() / 2).unsqueeze(1)
    weights = weights / weights.sum(0)
    mean = (weights * z.unsqueeze(1)).sum(0)
    variance = (weights * (z.unsqueeze(1) - mean).square()).sum(0)
    of_trit = all_operations().long() + 1
    return Posterior(mean[of_trit].float(), variance[of_trit].log().float())


@pytest.mark.parametrize(("widen", "within"), [(1.5, 0.99), (0.5, 0.5)])
def test_importance_sampling_finds_the_known_probability(widen, within):
    decoder = Linear(3.0, 0.8)
    known = decoder.trit_marginal().double()[all_operations().long() + 1].prod(1)
    proposal = exact_proposal(decoder)
    proposal = proposal._replace(log_variance=proposal.log_variance + math.log(widen))
    p, error = generators.importance_sampling(decoder, proposal, 30, stream(0, 0, "importance"))
    deviation = (p - known) / error
    assert (deviation.abs() < 3).double().mean() > within  # a proposal that is too narrow has skewed errors
    assert p.sum().item() == pytest.approx(1, abs=4 * error.square().sum().sqrt().item())


def test_importance_sampling_of_a_constant_decoder_has_no_bias_from_its_weights():
    proposal = Posterior(torch.ones(SIZE, 2), torch.zeros(SIZE, 2))
    p, error = generators.importance_sampling(Constant(torch.zeros(9, 3)), proposal, 40, stream(0, 0, "constant"))
    assert ((p - 1 / SIZE) / error).abs().mean() < 1.2
    assert p.mean().item() == pytest.approx(1 / SIZE, rel=2e-3)


def test_importance_sampling_agrees_with_the_matrix_product_for_a_proposal_that_fits():
    decoder, trits = hand_written(3.0), all_operations().float()
    mean = torch.cat([trits, torch.zeros(SIZE, LATENT - 9)], 1)
    posterior = Posterior(mean, torch.full_like(mean, math.log(0.4)))
    posterior.log_variance[:, 9:] = -math.log(generators.WIDER)
    found = generators.agreement(decoder, posterior, "test", prior=2**18, tens=20)
    assert found["within"] > 0.97
    assert found["sum"] == pytest.approx(1, abs=4 * found["sum_error"])
    assert {"model", "pathway", "proposal", *found} == set(tables.read("importance"))


def test_untrained_decoders_are_judged(made):
    quick = Samples(prior=2**15, evaluations=4)
    table = made(generators.generators(range(1), quick, quick), parts=["untrained-seed0"])
    assert table["pathway"].tolist() == ["A", "B"]
    assert (table["kl_uniform"] < 0.1).all()
    assert table["coverage_50000"].tolist() == pytest.approx(table["measured_50000"].tolist(), abs=0.005)


def test_sobol_and_independent_samples_are_compared(made):
    table = made(generators.sobol(seeds=range(1)), parts=["hand-written"])
    assert table["sampler"].tolist() == ["independent", "sobol"]
    independent, sobol = table["coverage_195000"]
    assert 0.999 < independent < sobol


def test_early_epochs_are_judged_one_by_one(made):
    table = made(generators.early((1, 2), range(1), Effort(4096), total_epochs=2, holdout=0.9))
    assert table["epoch"].tolist() == [1, 2]


def test_proposals_are_the_encoders_posteriors():
    decoder, given = generators.proposals("document", "B")
    assert sum(p.numel() for p in decoder.parameters()) == sum(p.numel() for p in DecoderB().parameters())
    assert {name: posterior.mean.shape for name, posterior in given.items()} == {
        "own": (SIZE, LATENT), "injected": (SIZE, LATENT),
    }  # fmt: skip


def test_errors_of_the_divergence_are_held_against_many_samples():
    short = {"total_epochs": 2, "holdout": 0.9}
    study = generators.claimed_errors((2048, 4096), replicates=3, truth=2**15, seeds=range(1), **short)
    rows = [row for case in study.make([{"seed": 0}], "cpu") for row in case]
    assert [(row["pathway"], row["samples"]) for row in rows] == [(p, n) for p in "AB" for n in (2048, 4096)]
    assert all(row["within"] in (0, 1 / 3, 2 / 3, 1) and row["claimed"] > 0 for row in rows)
