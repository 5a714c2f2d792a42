import math

import pytest
import torch
from shared import Constant, Linear

from tvae_lib.coverage import expected_coverage, full_coverage
from tvae_lib.measures import generation
from tvae_lib.operations import ENTROPY, SIZE, all_operations, index_of, one_hot
from tvae_lib.rng import stream
from tvae_lib.system.vae import DecoderA, log_likelihood
from tvae_lib.theory.product_codes import hand_written


def test_factors_multiply_to_the_joint_probability_in_index_order(rng):
    logits = torch.randn(4, 9, 3, generator=rng)
    head, tail = generation.joint_factors(torch.softmax(logits, -1).movedim(0, -1))
    joint = (head.unsqueeze(1) * tail).flatten(0, 1).T
    indicators = one_hot(all_operations())
    for row in range(4):
        direct = log_likelihood(logits[row].expand(SIZE, 9, 3), indicators).exp()
        torch.testing.assert_close(joint[row], direct, rtol=1e-4, atol=1e-12)


def test_marginal_agrees_with_brute_force_on_a_small_decoder():
    torch.manual_seed(1)
    decoder = DecoderA(3)
    marginal, _ = generation.generate(decoder, 3, 20_000, 1, stream(0, 0, "test"))
    generator, chunk = stream(0, 0, "test"), generation.chunk_size(20_000, torch.device("cpu"))
    first = torch.randn((chunk, 3), generator=generator)
    torch.rand((9, chunk), generator=generator)  # for the one draw
    rest = [torch.randn((chunk, 3), generator=generator) for _ in range(20_000 // chunk)]
    z = torch.cat([first, *rest])[:20_000]
    with torch.no_grad():
        logits = decoder(z).double()
    for operation in all_operations()[::997]:
        direct = log_likelihood(logits, one_hot(operation).double().expand_as(logits)).exp().mean().item()
        assert marginal.p[index_of(operation)].item() == pytest.approx(direct, rel=1e-4)


@pytest.mark.parametrize("samples", [1_024, 8_192, 30_000, 600_000])
def test_probabilities_sum_to_one(samples):
    torch.manual_seed(2)
    marginal, _ = generation.generate(DecoderA(4), 4, samples, 1, stream(0, 0, "sum"))
    assert marginal.p.sum().item() == pytest.approx(1, abs=1e-6)


def test_uniform_decoder_has_no_divergence_and_no_error():
    marginal, _ = generation.generate(Constant(torch.zeros(9, 3)), 2, 20_000, 1, stream(0, 0, "uniform"))
    assert marginal.kl_uniform() == pytest.approx(0, abs=1e-5)
    assert marginal.kl_error == pytest.approx(0, abs=1e-6)
    assert marginal.log_p().exp().tolist()[:3] == pytest.approx([1 / SIZE] * 3, rel=1e-5)


@pytest.mark.parametrize("offset", [4.3, 3.5])
def test_corrected_divergence_of_a_decoder_whose_divergence_is_known(offset):
    decoder = Linear(10.0, offset)
    known = -9 * (3 * decoder.trit_marginal()).log().mean().item()
    marginal, _ = generation.generate(decoder, 9, 2**17, 1, stream(0, 0, "known"))
    assert marginal.kl_uniform() == pytest.approx(known, abs=0.002 + 3 * marginal.kl_error)
    assert marginal.kl_uniform(corrected=False) > known + 0.01, "the plug-in estimate should be too high here"


def test_standard_error_is_the_spread_over_repetitions():
    decoder = Linear(1.0, 0.3)
    runs = [generation.generate(decoder, 9, 2**15, 1, stream(i, 0, "spread"))[0] for i in range(30)]
    spread = torch.tensor([m.kl_uniform() for m in runs]).std().item()
    claimed = sum(m.kl_deviation for m in runs) / len(runs)
    assert claimed == pytest.approx(spread, rel=0.5)


@pytest.mark.parametrize("samples", [2**14, 2**16])
def test_the_error_of_a_divergence_contains_the_bias_that_its_correction_leaves(samples):
    decoder = Linear(10.0, 4.3)
    known = -9 * (3 * decoder.trit_marginal()).log().mean().item()
    runs = [generation.generate(decoder, 9, samples, 1, stream(i, 0, "bias"))[0] for i in range(10)]
    assert sum(abs(m.kl_uniform() - known) <= 2 * m.kl_error for m in runs) >= 9


def test_a_rounded_trit_is_the_value_nearest_to_its_expectation(rng):
    p = torch.softmax(2 * torch.randn(500, 9, 3, generator=rng), -1)
    expectation = (p * torch.tensor([-1.0, 0.0, 1.0])).sum(-1)
    values = torch.tensor([-1.0, 0.0, 1.0])
    direct = values[(expectation.unsqueeze(-1) - values).abs().argmin(-1)]
    assert torch.equal(generation.nearest(p.movedim(0, -1)), index_of(direct))


def test_drawn_trits_follow_their_softmax(rng):
    logits = torch.randn(9, 3, generator=rng)
    _, drawn = generation.generate(Constant(logits), 2, 1_024, 200_000, stream(0, 0, "draw"))
    p = torch.softmax(logits, -1)
    shares = one_hot(all_operations()[drawn.sampled]).mean(0)
    assert (shares - p).abs().max().item() < 5 * 0.5 / math.sqrt(200_000)
    assert drawn.argmax.unique().tolist() == [index_of(logits.argmax(-1) - 1).item()]


def test_likeliest_operation_is_the_argmax_of_each_trit_with_ties_to_the_lower_value(rng):
    p = torch.randint(0, 3, (9, 3, 500), generator=rng) / 7
    assert torch.equal(generation.likeliest(p), index_of((p.argmax(1) - 1).T))


def test_corrected_divergence_of_the_hand_written_decoder_is_zero_within_a_thousandth():
    marginal, _ = generation.generate(hand_written(10.0), 16, 2**20, 1, stream(0, 0, "hand-written"))
    assert abs(marginal.kl_uniform()) < 0.001
    assert marginal.kl_uniform(corrected=False) > 0.001
    assert marginal.p.sum().item() == pytest.approx(1, abs=1e-6)


def test_corrected_coverage_is_that_of_the_known_probabilities():
    decoder = Linear(6.0, 2.0)
    p = decoder.trit_marginal().double()[all_operations().long() + 1].prod(1)
    marginal, _ = generation.generate(decoder, 9, 2**19, 1, stream(0, 0, "coverage"))
    for draws in (50_000, 195_000):
        known = expected_coverage(p, draws)
        plain = expected_coverage(marginal.p, draws)
        assert plain < known - 5e-5, "the plain estimate should be too low here"
        assert abs(marginal.expected_coverage(draws) - known) < abs(plain - known) / 3
    known, plain = full_coverage(p, 600_000), full_coverage(marginal.p, 600_000)
    assert abs(marginal.full_coverage(600_000) - known) < abs(plain - known) / 2


def test_divergence_over_chosen_operations_averages_to_the_whole():
    marginal, _ = generation.generate(Linear(1.0, 0.3), 9, 2**14, 1, stream(0, 0, "chosen"))
    halves = [marginal.kl_uniform(chosen=torch.arange(i, SIZE - 1, 2)) for i in (0, 1)]
    assert sum(halves) / 2 == pytest.approx(marginal.kl_uniform(chosen=slice(SIZE - 1)), abs=1e-9)
    likely, rare = marginal.p.argsort()[-100:], marginal.p.argsort()[:100]
    assert marginal.kl_uniform(chosen=likely) < 0 < marginal.kl_uniform(chosen=rare)


def test_mean_and_error_are_those_of_the_estimates(rng):
    values = torch.randn(7, 5, generator=rng, dtype=torch.float64)
    mean, error = generation.mean_and_error(iter(values))
    torch.testing.assert_close(mean, values.mean(0))
    torch.testing.assert_close(error, values.std(0) / math.sqrt(7))


def test_a_pair_generates_the_mean_of_both_and_its_divergence_is_known_as_well():
    """Two decoders of independent trits, whose mixture is computed by hand."""
    trits = torch.tensor([[[0.5, 0.3, 0.2]] * 9, [[0.2, 0.3, 0.5]] * 9]).double()
    known = [of_trits.log().float() for of_trits in trits]
    marginals = [
        generation.generate(Constant(logits), 2, 65_536, 1, stream(0, 0, str(i)))[0] for i, logits in enumerate(known)
    ]
    every = all_operations().long() + 1
    p = torch.stack([torch.stack([of[j, every[:, j]] for j in range(9)]).prod(0) for of in trits]).mean(0)
    mixed = generation.half_each(*marginals)
    torch.testing.assert_close(mixed.p, p, rtol=1e-5, atol=0)
    assert mixed.kl_uniform() == pytest.approx(-(p.log().mean().item() + ENTROPY), abs=1e-5)
    assert mixed.samples == 2 * 65_536


def test_the_noise_of_a_pair_is_that_of_two_halves():
    p, second = torch.full((SIZE,), 1 / SIZE, dtype=torch.float64), torch.full((SIZE,), 1 / SIZE, dtype=torch.float64)
    one = generation.Marginal(p, second, 1000, 0.02)
    pair = generation.half_each(one, one)
    of_one, of_pair = (((m.second - m.p.square()) / m.samples).mean().item() for m in (one, pair))
    assert of_pair == pytest.approx(of_one / 2)
    assert pair.kl_deviation == pytest.approx(0.02 / math.sqrt(2))
