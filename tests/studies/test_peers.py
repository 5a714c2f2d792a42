"""Other libraries' models as ours: what their decoders say, and a sentence where the library is missing."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch

from studies.peers import TheirDecoder, TheirEncoder, by_pythae
from tvae_lib.errors import UserError


def test_their_outputs_are_read_as_shares_of_a_trit():
    outputs = torch.tensor([[0.2, 0.3, 0.5] * 9, [0.5, 0.5, 1.0] * 9])
    logits = TheirDecoder(lambda z: SimpleNamespace(reconstruction=outputs))(torch.zeros(2, 16))
    assert logits.shape == (2, 9, 3)
    expected = torch.tensor([[0.2, 0.3, 0.5], [0.25, 0.25, 0.5]])
    torch.testing.assert_close(logits.softmax(-1), expected[:, None].expand(2, 9, 3))


def test_their_encoder_is_given_indicators():
    seen = []

    def theirs(x):
        seen.append(x)
        return SimpleNamespace(embedding=x[:, :2], log_covariance=x[:, 2:4])

    posterior = TheirEncoder(theirs)(torch.tensor([[-1.0, 0, 1, 1, 1, 1, 1, 1, 1]]))
    assert seen[0].tolist() == [[1, 0, 0, 0, 1, 0] + [0, 0, 1] * 7]
    assert posterior.mean.tolist() == [[1, 0]]
    assert posterior.log_variance.tolist() == [[0, 0]]


@pytest.mark.skipif(importlib.util.find_spec("pythae") is not None, reason="pythae is installed here")
def test_where_pythae_is_missing_one_sentence_says_so():
    with pytest.raises(UserError, match=r"^pythae is not installed here; `make peers` .*\.$"):
        by_pythae("VAE")(0, 1)
