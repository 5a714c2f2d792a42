import math

import pytest
import torch
from shared import Linear
from torch import nn

from tvae_lib.measures import reconstruction
from tvae_lib.operations import SIZE, all_operations
from tvae_lib.rng import stream
from tvae_lib.system.dual import DualVAE
from tvae_lib.system.vae import Posterior


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
    exact = reconstruction.exact_shares(model, trits, 0.0)
    assert exact["alone_A"] == exact["coupled_A"] == 1
    assert exact["alone_B"] < 0.01
    assert reconstruction.exact_shares(model, trits[:0], 0.5)["alone_A"] is None


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
    assert reconstruction.trit_accuracy(model, trits, 0.0).tolist() == [pytest.approx(read), pytest.approx(third)]
    assert reconstruction.trit_accuracy(model, trits, 1.0).tolist() == [pytest.approx(third), pytest.approx(read)]


def test_expected_log_likelihood_agrees_with_quadrature(rng):
    slope, offset = 2.0, 0.4
    decoder = Linear(slope, offset)
    trits = all_operations().float()
    posterior = Posterior(0.5 * trits, torch.full((SIZE, 9), -1.0))
    mean, error = reconstruction.expected_log_likelihood(decoder, posterior, 16, rng)
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


def test_reconstruction_from_samples_is_that_of_independent_trits(rng):
    """A steep decoder reads the sign of z_j - 1/2 and z_j + 1/2, so that a trit survives with a normal probability."""
    sigma = 0.4
    posterior = Posterior(all_operations().float(), torch.full((SIZE, 9), 2 * math.log(sigma)))
    share, error = reconstruction.sampled_reconstruction(Linear(1000.0, 500.0), posterior, 8, rng)
    one_side = 0.5 * (1 + math.erf(0.5 / sigma / math.sqrt(2)))
    trit = (2 * one_side + 2 * one_side - 1) / 3
    assert share == pytest.approx(trit**9, abs=4 * error + 1e-3)
    assert error < 0.003


def test_distortion_is_the_mean_surprise_of_all_operations():
    posterior = Posterior(all_operations().float(), torch.zeros(SIZE, 9))
    mean, error = reconstruction.expected_log_likelihood(Linear(2.0, 0.4), posterior, 3, stream(0, 0, "distortion"))
    value, its_error = reconstruction.distortion(Linear(2.0, 0.4), posterior, 3, stream(0, 0, "distortion"))
    assert value == pytest.approx(-mean.mean().item())
    assert its_error == pytest.approx(error.norm().item() / SIZE)


def test_operations_are_read_and_compared_one_by_one():
    decoder, everything = Linear(5.0, 2.0), all_operations().float()
    spoiled = everything.clone()
    spoiled[7] = everything[8]
    assert reconstruction.decode(decoder, spoiled[5:9]).tolist() == [5, 6, 8, 8]
    assert (~reconstruction.is_exact(decoder, spoiled)).nonzero().tolist() == [[7]]


def test_means_are_read_alone_or_injected():
    model, trits = DualVAE(4), all_operations()[:6].float()
    found = reconstruction.means_read(model, trits, 0.3)
    A, B = found["alone"]
    torch.testing.assert_close(A, model.A.encoder(trits).mean)
    torch.testing.assert_close(B, model.B.encoder(trits).mean)
    torch.testing.assert_close(found["coupled"], (0.7 * A + 0.3 * B, 0.7 * B + 0.3 * A))
