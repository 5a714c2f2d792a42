import math

import pytest
import torch
from torch import nn

from tvae_lib import evaluation
from tvae_lib.dual import DualVAE
from tvae_lib.frontier import hand_written
from tvae_lib.operations import (
    ENTROPY,
    SIZE,
    all_operations,
    expected_coverage,
    full_coverage,
    index_of,
    one_hot,
)
from tvae_lib.streams import stream
from tvae_lib.vae import DecoderA, Posterior, kl_to_prior, log_likelihood


class Constant(nn.Module):
    """The same logits for every code."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, z):
        return self.logits.expand(len(z), 9, 3)


class Linear(nn.Module):
    """Trit j reads coordinate j alone: logits (-k z - b, 0, k z - b); p(x) is a product of nine known marginals."""

    def __init__(self, slope, offset):
        super().__init__()
        self.slope, self.offset = slope, offset

    def forward(self, z):
        z = self.slope * z[:, :9]
        return torch.stack([-z - self.offset, torch.zeros_like(z), z - self.offset], -1)

    def trit_marginal(self):
        z = torch.linspace(-12, 12, 200_001, dtype=torch.float64).unsqueeze(1)
        density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
        p = torch.softmax(self(z.expand(-1, 9))[:, 0], -1)
        return (density * p).sum(0)


def test_factors_multiply_to_the_joint_probability_in_index_order(rng):
    logits = torch.randn(4, 9, 3, generator=rng)
    head, tail = evaluation.joint_factors(torch.softmax(logits, -1).movedim(0, -1))
    joint = (head.unsqueeze(1) * tail).flatten(0, 1).T
    indicators = one_hot(all_operations())
    for row in range(4):
        direct = log_likelihood(logits[row].expand(SIZE, 9, 3), indicators).exp()
        torch.testing.assert_close(joint[row], direct, rtol=1e-4, atol=1e-12)


def test_marginal_agrees_with_brute_force_on_a_small_decoder():
    torch.manual_seed(1)
    decoder = DecoderA(3)
    marginal, _ = evaluation.generate(decoder, 3, 20_000, 1, stream(0, 0, "test"))
    generator, chunk = stream(0, 0, "test"), evaluation.chunk_size(20_000, torch.device("cpu"))
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
    marginal, _ = evaluation.generate(DecoderA(4), 4, samples, 1, stream(0, 0, "sum"))
    assert marginal.p.sum().item() == pytest.approx(1, abs=1e-6)


def test_uniform_decoder_has_no_divergence_and_no_error():
    marginal, _ = evaluation.generate(Constant(torch.zeros(9, 3)), 2, 20_000, 1, stream(0, 0, "uniform"))
    assert marginal.kl_uniform() == pytest.approx(0, abs=1e-5)
    assert marginal.kl_error == pytest.approx(0, abs=1e-6)
    assert marginal.log_p().exp().tolist()[:3] == pytest.approx([1 / SIZE] * 3, rel=1e-5)


@pytest.mark.parametrize("offset", [4.3, 3.5])
def test_corrected_divergence_of_a_decoder_whose_divergence_is_known(offset):
    decoder = Linear(10.0, offset)
    known = -9 * (3 * decoder.trit_marginal()).log().mean().item()
    marginal, _ = evaluation.generate(decoder, 9, 2**17, 1, stream(0, 0, "known"))
    assert marginal.kl_uniform() == pytest.approx(known, abs=0.002 + 3 * marginal.kl_error)
    assert marginal.kl_uniform(corrected=False) > known + 0.01, "the plug-in estimate should be too high here"


def test_standard_error_is_the_spread_over_repetitions():
    decoder = Linear(1.0, 0.3)
    runs = [evaluation.generate(decoder, 9, 2**15, 1, stream(i, 0, "spread"))[0] for i in range(30)]
    spread = torch.tensor([m.kl_uniform() for m in runs]).std().item()
    claimed = sum(m.kl_error for m in runs) / len(runs)
    assert claimed == pytest.approx(spread, rel=0.5)


def test_drawn_trits_follow_their_softmax(rng):
    logits = torch.randn(9, 3, generator=rng)
    _, drawn = evaluation.generate(Constant(logits), 2, 1_024, 200_000, stream(0, 0, "draw"))
    p = torch.softmax(logits, -1)
    shares = one_hot(all_operations()[drawn.sampled]).mean(0)
    assert (shares - p).abs().max().item() < 5 * 0.5 / math.sqrt(200_000)
    assert drawn.argmax.unique().tolist() == [index_of(logits.argmax(-1) - 1).item()]


def test_likeliest_operation_is_the_argmax_of_each_trit_with_ties_to_the_lower_value(rng):
    p = torch.randint(0, 3, (9, 3, 500), generator=rng) / 7
    assert torch.equal(evaluation.likeliest(p), index_of((p.argmax(1) - 1).T))


def test_coverage_counts_distinct_operations_among_the_first_draws():
    drawn = torch.tensor([5, 5, 7, 5, 9])
    expected = {1: 1 / SIZE, 3: 2 / SIZE, 5: 3 / SIZE}
    assert evaluation.coverage(drawn, (1, 3, 5)) == pytest.approx(expected)


def test_coverage_of_a_uniform_decoder_meets_the_bound():
    verdict, log_p = evaluation.judge(Constant(torch.zeros(9, 3)), 2, 1_024, (10_000, 50_000), stream(0, 0, "judge"))
    for draws, bound in evaluation.uniform_bound((10_000, 50_000)).items():
        assert verdict["coverage"][draws] == pytest.approx(bound, abs=5 * 0.0017)
    assert verdict["coverage_argmax"]["50000"] == pytest.approx(1 / SIZE)
    assert verdict["min_log_p"] == pytest.approx(-ENTROPY, abs=1e-4)
    assert log_p.shape == (SIZE,)


def test_an_operation_that_no_sample_reaches_makes_the_divergence_infinite_not_a_number_in_json():
    logits = torch.full((9, 3), -1e4)
    logits[:, 0] = 0
    verdict, log_p = evaluation.judge(Constant(logits), 2, 1_024, (10,), stream(0, 0, "one"))
    assert verdict["kl_uniform"] is None
    assert verdict["coverage"]["10"] == pytest.approx(1 / SIZE)
    assert log_p[0] == 0


def test_reconstruction_tells_own_codes_from_injected_ones():
    """A codes the first eight trits, B the last; only what the decoder's own encoder codes comes back alone."""
    model = DualVAE(9)
    trits = all_operations()[::50].float()

    class Identity(nn.Module):
        def forward(self, x):
            return type("Q", (), {"mean": x})()

    for pathway, sign in ((model.A, 1.0), (model.B, -1.0)):
        pathway.encoder = Identity()
        pathway.decoder = Linear(sign * 5.0, 2.0)
    exact = evaluation.reconstruction(model, trits, 0.0)
    assert exact["alone_A"] == exact["coupled_A"] == 1
    assert exact["alone_B"] < 0.01
    assert evaluation.reconstruction(model, trits[:0], 0.5)["alone_A"] is None


def test_a_trit_that_is_not_coded_comes_back_in_a_third_of_all_operations():
    """A codes all trits but the third, B none: each reads what it is given."""
    model = DualVAE(9)

    class Masked(nn.Module):
        def __init__(self, mask):
            super().__init__()
            self.mask = torch.tensor(mask)

        def forward(self, x):
            return type("Q", (), {"mean": x * self.mask})()

    eight = [1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    for pathway, mask in ((model.A, eight), (model.B, [0.0] * 9)):
        pathway.encoder, pathway.decoder = Masked(mask), Linear(5.0, 2.0)
    third, trits = [1 / 3] * 9, all_operations().float()
    read = [1, 1, 1 / 3, 1, 1, 1, 1, 1, 1]
    assert evaluation.trit_accuracy(model, trits, 0.0).tolist() == [pytest.approx(read), pytest.approx(third)]
    assert evaluation.trit_accuracy(model, trits, 1.0).tolist() == [pytest.approx(third), pytest.approx(read)]


def gaussians(rng, n=40, d=3):
    return Posterior(
        torch.randn(n, d, generator=rng, dtype=torch.float64), torch.randn(n, d, generator=rng, dtype=torch.float64) - 1
    )


def test_aggregate_is_the_mean_of_all_densities(rng):
    posterior = gaussians(rng)
    z = torch.randn(300, 3, generator=rng, dtype=torch.float64)
    normal = torch.distributions.Normal(posterior.mean, torch.exp(posterior.log_variance / 2))
    direct = normal.log_prob(z.unsqueeze(1)).sum(2).exp().mean(1).log()
    torch.testing.assert_close(evaluation.log_aggregate(z, posterior), direct)


def test_information_has_its_two_limits_and_the_gaussian_value(rng):
    empty = Posterior(torch.zeros(50, 2), torch.zeros(50, 2))
    assert evaluation.information(empty, 200, rng)[0] == pytest.approx(0, abs=1e-6)
    apart = Posterior(100.0 * torch.arange(50.0).unsqueeze(1), torch.zeros(50, 1))
    assert evaluation.information(apart, 200, rng)[0] == pytest.approx(math.log(50), abs=1e-5)
    quantiles = torch.distributions.Normal(0.0, 2.0).icdf((torch.arange(2000) + 0.5) / 2000).unsqueeze(1)
    linear = Posterior(quantiles, torch.zeros(2000, 1))  # x of variance 4 and unit noise: log(5) / 2 nats
    value, error = evaluation.information(linear, 4000, rng)
    assert abs(value - math.log(5) / 2) < 4 * error + 0.01
    assert error < 0.03


def test_information_is_at_most_the_rate(rng):
    posterior = gaussians(rng, 300)
    value, error = evaluation.information(posterior, 2000, rng)
    assert value < kl_to_prior(posterior).mean() + 4 * error


def test_expected_log_likelihood_agrees_with_quadrature(rng):
    slope, offset = 2.0, 0.4
    decoder = Linear(slope, offset)
    trits = all_operations().float()
    posterior = Posterior(0.5 * trits, torch.full((SIZE, 9), -1.0))
    mean, error = evaluation.expected_log_likelihood(decoder, posterior, 16, rng)
    nodes = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    weights = torch.exp(-nodes.square() / 2) / math.sqrt(2 * math.pi) * (nodes[1] - nodes[0])
    of_value = []
    for value in (-1, 0, 1):
        z = 0.5 * value + math.exp(-0.5) * nodes
        log_p = torch.log_softmax(decoder(z.unsqueeze(1).expand(-1, 9))[:, 0], -1)[:, value + 1]
        of_value.append((log_p * weights).sum())
    direct = torch.stack(of_value)[all_operations().long() + 1].sum(1)
    assert ((mean - direct) / error).abs().max() < 12  # 16 samples: heavy tails
    total = error.square().sum().sqrt() / SIZE
    assert abs(mean.mean() - direct.mean()) < 5 * total


def test_cka_is_one_for_a_rotation_and_small_for_noise(rng):
    x = torch.randn(2000, 5, generator=rng)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=rng))[0]
    assert evaluation.cka(x, 3 * x @ rotation + 1) == pytest.approx(1, abs=1e-6)
    assert evaluation.cka(x, torch.randn(2000, 4, generator=rng)) < 0.02


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
    p, error = evaluation.importance(decoder, proposal, 30, stream(0, 0, "importance"))
    deviation = (p - known) / error
    assert (deviation.abs() < 3).double().mean() > within  # a proposal that is too narrow has skewed errors
    assert p.sum().item() == pytest.approx(1, abs=4 * error.square().sum().sqrt().item())


def test_importance_sampling_of_a_constant_decoder_has_no_bias_from_its_weights():
    proposal = Posterior(torch.ones(SIZE, 2), torch.zeros(SIZE, 2))
    p, error = evaluation.importance(Constant(torch.zeros(9, 3)), proposal, 40, stream(0, 0, "constant"))
    assert ((p - 1 / SIZE) / error).abs().mean() < 1.2
    assert p.mean().item() == pytest.approx(1 / SIZE, rel=2e-3)


def test_corrected_divergence_of_the_hand_written_decoder_is_zero_within_a_thousandth():
    marginal, _ = evaluation.generate(hand_written(10.0), 16, 2**20, 1, stream(0, 0, "hand-written"))
    assert abs(marginal.kl_uniform()) < 0.001
    assert marginal.kl_uniform(corrected=False) > 0.001
    assert marginal.p.sum().item() == pytest.approx(1, abs=1e-6)


def test_corrected_coverage_is_that_of_the_known_probabilities():
    decoder = Linear(6.0, 2.0)
    p = decoder.trit_marginal().double()[all_operations().long() + 1].prod(1)
    marginal, _ = evaluation.generate(decoder, 9, 2**19, 1, stream(0, 0, "coverage"))
    for draws in (50_000, 195_000):
        known = expected_coverage(p, draws)
        plain = expected_coverage(marginal.p, draws)
        assert plain < known - 5e-5, "the plain estimate should be too low here"
        assert abs(marginal.expected_coverage(draws) - known) < abs(plain - known) / 3
    known, plain = full_coverage(p, 600_000), full_coverage(marginal.p, 600_000)
    assert abs(marginal.full_coverage(600_000) - known) < abs(plain - known) / 2


def test_divergence_over_chosen_operations_averages_to_the_whole():
    marginal, _ = evaluation.generate(Linear(1.0, 0.3), 9, 2**14, 1, stream(0, 0, "chosen"))
    halves = [marginal.kl_uniform(chosen=torch.arange(i, SIZE - 1, 2)) for i in (0, 1)]
    assert sum(halves) / 2 == pytest.approx(marginal.kl_uniform(chosen=slice(SIZE - 1)), abs=1e-9)
    likely, rare = marginal.p.argsort()[-100:], marginal.p.argsort()[:100]
    assert marginal.kl_uniform(chosen=likely) < 0 < marginal.kl_uniform(chosen=rare)


def test_reconstruction_from_samples_is_that_of_independent_trits(rng):
    """A steep decoder reads the sign of z_j - 1/2 and z_j + 1/2, so that a trit survives with a normal probability."""
    sigma = 0.4
    posterior = Posterior(all_operations().float(), torch.full((SIZE, 9), 2 * math.log(sigma)))
    share, error = evaluation.sampled_reconstruction(Linear(1000.0, 500.0), posterior, 8, rng)
    one_side = 0.5 * (1 + math.erf(0.5 / sigma / math.sqrt(2)))
    trit = (2 * one_side + 2 * one_side - 1) / 3
    assert share == pytest.approx(trit**9, abs=4 * error + 1e-3)
    assert error < 0.003
