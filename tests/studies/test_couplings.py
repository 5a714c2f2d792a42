"""The other couplings that chapter 4 trains, and its studies, made small."""

import pytest
import torch

from studies import couplings
from tvae_lib.measures.pair import Effort, Pair
from tvae_lib.operations import SIZE
from tvae_lib.system.dual import DualVAE
from tvae_lib.system.vae import Posterior
from tvae_lib.theory.coupling import critical_beta, equilibrium


@pytest.fixture
def codes(rng):
    posteriors = [
        Posterior(torch.randn(8, 4, generator=rng).requires_grad_(), torch.randn(8, 4, generator=rng)) for _ in "AB"
    ]
    z = [torch.randn(8, 4, generator=rng).requires_grad_() for _ in "AB"]
    return (*posteriors, *z)


def test_shared_gradients_read_the_same_and_let_gradients_through(codes):
    stopped, shared = DualVAE(4).couple(*codes, 0.3), couplings.SharedGradients(4).couple(*codes, 0.3)
    for a, b in zip(stopped, shared, strict=True):
        assert torch.equal(a, b)
    z_A, z_B = codes[2:]
    assert torch.autograd.grad(stopped[0].sum(), z_B, allow_unused=True)[0] is None
    torch.testing.assert_close(torch.autograd.grad(shared[0].sum(), z_B)[0], torch.full_like(z_B, 0.3))
    torch.testing.assert_close(torch.autograd.grad(shared[1].sum(), z_A)[0], torch.full_like(z_A, 0.3))


def test_other_couplings_inject_what_they_say(codes):
    posterior_A, posterior_B, z_A, z_B = codes
    read_A, read_B = couplings.PartnersMean(4).couple(*codes, 0.3)
    torch.testing.assert_close(read_A, 0.7 * z_A + 0.3 * posterior_B.mean)
    torch.testing.assert_close(read_B, 0.7 * z_B + 0.3 * posterior_A.mean)
    assert torch.autograd.grad(read_A.sum(), posterior_B.mean, allow_unused=True)[0] is None
    read_A, read_B = couplings.ForeignCode(4).couple(*codes, 0.3)
    torch.testing.assert_close(read_A, 0.7 * z_A + 0.3 * torch.cat([z_B[-1:], z_B[:-1]]))
    torch.testing.assert_close(read_B, 0.7 * z_B + 0.3 * torch.cat([z_A[-1:], z_A[:-1]]))


def test_readings_replace_what_they_say():
    model = DualVAE(4)
    pair = Pair(model, {"rho": 0.3, "tau_A": 1.0, "tau_B": 1.0}, (0, 0, "readings"), Effort(1))
    a, b = pair.A.posterior.mean, pair.B.posterior.mean
    read = couplings.readings(pair, model, {"A": torch.zeros_like(a), "B": torch.zeros_like(b)})
    half = SIZE // 2
    torch.testing.assert_close(read["trained"][0], 0.7 * a + 0.3 * b)
    torch.testing.assert_close(read["foreign"][0], 0.7 * a + 0.3 * b.roll(half, 0))
    torch.testing.assert_close(read["others"][1], 0.7 * b.roll(half, 0) + 0.3 * a)
    torch.testing.assert_close(read["silent"][1], 0.7 * b)
    torch.testing.assert_close(read["alone"][0], a)


def test_couplings_are_trained_and_read(made):
    short = {"stops": (1,), "effort": Effort(4096, information=64), "total_epochs": 1, "holdout": 0.9}
    table = made(couplings.other_couplings(seeds=range(1), **short)).set_index("variant")
    assert set(table.index) == set(couplings.COUPLINGS)
    assert table.loc["no coupling", "rho"] == 0
    assert table["rho"].drop("no coupling").between(0.0999, 0.1001).all()
    uncoupled = table.loc["no coupling"]
    assert uncoupled["trained_A"] == uncoupled["foreign_A"] == uncoupled["silent_A"] == uncoupled["alone_A"]


def test_stability_has_both_sides_of_the_boundary(made):
    study = couplings.stability(((0.5, 1.0, 1.0),), (0.5, 1.5), sizes=((1, 512),), seeds=1, holdout=0.9)
    table = made(study)
    assert list(study.parts) == ["rho0.5-tau1.0-beta_ratio1.0-epochs1"]
    assert (table["beta_A"] / critical_beta(0.5, 1.0)).tolist() == pytest.approx([0.5, 1.5])


def test_commons_are_with_and_without_stop_gradient(made):
    table = made(couplings.commons(rhos=(0.3,), epochs=1, seeds=1, holdout=0.9))
    assert set(table["coupling"]) == set(couplings.COMMONS)


def test_equilibria_are_those_of_the_schedules_with_the_gate_open(made):
    table = made(couplings.equilibria(epochs=(400,))).set_index("game")
    assert table["rho"].to_dict() == pytest.approx({"injection": 0.7, "no coupling": 0.0})
    settings = table.loc["injection", ["rho", "tau_A", "tau_B", "beta_A", "beta_B"]].tolist()
    assert table.loc["injection", ["rate_A", "rate_B"]].tolist() == pytest.approx(
        [share.rate for share in equilibrium(*settings)], abs=1e-6
    )
