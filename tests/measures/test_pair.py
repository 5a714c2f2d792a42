"""The columns of tables are what the plain functions say of the same samples."""

import pytest
import torch
from shared import Linear

from tvae_lib.coverage import expected_coverage, measured_coverage
from tvae_lib.measures import codes
from tvae_lib.measures.generation import generate
from tvae_lib.measures.pair import OF_BOTH, OF_ONE, Effort, Pair, Pathway, measured, measured_alone
from tvae_lib.measures.reconstruction import distortion, exact_shares, is_exact
from tvae_lib.operations import SIZE, all_operations
from tvae_lib.rng import stream
from tvae_lib.system.dual import DualVAE
from tvae_lib.system.vae import Posterior, kl_to_prior, tempered
from tvae_lib.training.config import make_config
from tvae_lib.training.state import untrained

EFFORT = Effort(2048, information=64, codes=2, draws=195_000)
SETTINGS = {"rho": 0.3, "tau_A": 0.8, "tau_B": -0.6}
GENERATED = (
    *("kl_uniform", "kl_uniform_error", "min_log_p", "rarest_log_p"),
    *("coverage_50000", "coverage_195000", "sampled_50000", "argmax_195000", "rounded_195000", "complete", "has"),
)


class FirstTrits(torch.nn.Module):
    """An encoder that writes the first n trits as they are, and nothing of the others."""

    def __init__(self, n):
        super().__init__()
        self.n = n

    def forward(self, x):
        mean = torch.zeros(len(x), 16)
        mean[:, : self.n] = x[:, : self.n]
        return Posterior(mean, torch.zeros_like(mean))


@pytest.fixture(scope="module")
def model() -> DualVAE:
    """An untrained pair."""
    return untrained(make_config(seed=1, device="cpu"))[0].eval()


@pytest.fixture
def pair(model) -> Pair:
    return Pair(model, SETTINGS, (1, 5, "test"), EFFORT)


@pytest.fixture(scope="module")
def posteriors(model) -> dict:
    with torch.no_grad():
        return {p: getattr(model, p).encoder(all_operations().float()) for p in "AB"}


@pytest.mark.parametrize("p", "AB")
def test_what_a_decoder_generates(pair, model, p):
    marginal, drawn = generate(getattr(model, p).decoder, 16, 2048, 195_000, stream(1, 5, f"test {p}"))
    log_p = marginal.log_p()
    assert measured_alone(pair.each[p], GENERATED) == {
        "kl_uniform": marginal.kl_uniform(),
        "kl_uniform_error": marginal.kl_error,
        "min_log_p": log_p.min().item(),
        "rarest_log_p": log_p.quantile(0.01).item(),
        "coverage_50000": expected_coverage(marginal.p, 50_000),
        "coverage_195000": expected_coverage(marginal.p, 195_000),
        "sampled_50000": measured_coverage(drawn.sampled, (50_000,))[50_000],
        "argmax_195000": measured_coverage(drawn.argmax, (195_000,))[195_000],
        "rounded_195000": measured_coverage(drawn.rounded, (195_000,))[195_000],
        "complete": marginal.full_coverage(195_000),
        "has": (marginal.p >= 0.5 / SIZE).double().mean().item(),
    }


def test_what_the_pair_covers(pair, model):
    """Half of the draws from each is between the two; as many from each together is what either has found."""
    drawn = [
        generate(vae.decoder, 16, 2048, 195_000, stream(1, 5, f"test {p}"))[1]
        for p, vae in (("A", model.A), ("B", model.B))
    ]
    row = measured(pair, ("argmax_half_50000", "argmax_union_50000"))
    A, B = (one.argmax[:50_000] for one in drawn)
    assert row["argmax_union_50000"] == len(torch.cat([A, B]).unique()) / SIZE
    assert row["argmax_half_50000"] == len(torch.cat([A[:25_000], B[:25_000]]).unique()) / SIZE


@pytest.mark.parametrize("p", "AB")
def test_what_own_codes_say_and_cost(pair, posteriors, p):
    used = tempered(posteriors[p], SETTINGS[f"tau_{p}"])
    information, error = codes.information(used, 64, stream(1, 5, f"test {p}"))
    assert measured_alone(pair.each[p], ("information", "information_error", "charged", "rate", "active")) == {
        "information": information,
        "information_error": error,
        "charged": pytest.approx(kl_to_prior(posteriors[p]).mean().item(), rel=1e-5),
        "rate": pytest.approx(kl_to_prior(used).mean().item(), rel=1e-5),
        "active": codes.active_units(posteriors[p]),
    }


@pytest.mark.parametrize("p", "AB")
def test_distortion_of_own_codes(pair, model, posteriors, p):
    used = tempered(posteriors[p], SETTINGS[f"tau_{p}"])
    direct = distortion(getattr(model, p).decoder, used, 2, stream(1, 5, f"test {p}"))
    assert tuple(measured_alone(pair.each[p], ("distortion", "distortion_error")).values()) == direct


def test_what_comes_back_from_own_injected_and_foreign_means(pair, model, posteriors):
    columns = ("exact", "exact_injected", "exact_of_partner", "exact_both")
    own = {p: is_exact(getattr(model, p).decoder, posteriors[p].mean) for p in "AB"}
    foreign = {p: is_exact(getattr(model, p).decoder, posteriors[q].mean) for p, q in ("AB", "BA")}
    whole = exact_shares(model, all_operations().float(), SETTINGS["rho"])
    row = {}
    for p in "AB":
        row |= {f"exact_{p}": whole[f"alone_{p}"], f"exact_injected_{p}": whole[f"coupled_{p}"]}
        row |= {f"exact_of_partner_{p}": foreign[p].double().mean().item()}
    assert measured(pair, columns) == row | {"exact_both": (own["A"] & own["B"]).double().mean().item()}


def test_what_comes_back_of_eight_trits_and_of_nine():
    """What is not coded is read as 0, which is right in a third of all operations."""
    model = DualVAE()
    for vae, n in ((model.A, 9), (model.B, 8)):
        vae.encoder, vae.decoder = FirstTrits(n), Linear(5.0, 2.0)
    pair = Pair(model, SETTINGS, (1, 5, "test"), EFFORT)
    row = measured(pair, ("exact", "exact_injected", "exact_of_partner", "exact_both"))
    assert [name for name, share in row.items() if share == 1] == ["exact_A", "exact_injected_A", "exact_of_partner_B"]
    assert [row[name] for name in ("exact_of_partner_A", "exact_B", "exact_injected_B", "exact_both")] == [1 / 3] * 4


def test_what_both_have_and_say_together(pair, model, posteriors):
    streams = {p: stream(1, 5, f"test {p}") for p in "AB"}
    held = [generate(getattr(model, p).decoder, 16, 2048, 195_000, streams[p])[0].p >= 0.5 / SIZE for p in "AB"]
    used = [tempered(posteriors[p], SETTINGS[f"tau_{p}"]) for p in "AB"]
    information, error = codes.information(codes.joint(*used), 64, stream(1, 5, "test joint"))
    assert measured(pair, ("joint", "has_both", "cka", "joint_error")) == {
        "joint": information,
        "has_both": (held[0] & held[1]).double().mean().item(),
        "cka": codes.cka(posteriors["A"].mean, posteriors["B"].mean),
        "joint_error": error,
    }


def test_columns_come_as_asked_for_those_of_both_last(pair):
    assert list(measured(pair, ("cka", "charged", "exact"))) == ["charged_A", "exact_A", "charged_B", "exact_B", "cka"]


def test_a_quantity_is_measured_once(pair):
    first = measured(pair, (*OF_ONE, *OF_BOTH))
    assert measured(pair, (*OF_BOTH, *OF_ONE)) == first


def test_a_pathway_alone_is_its_own_partner(model):
    alone = Pathway(model.A, 1.0, stream(0, 0, "alone"), EFFORT)
    found = measured_alone(alone, ("exact", "exact_injected", "exact_of_partner"))
    assert len(set(found.values())) == 1
