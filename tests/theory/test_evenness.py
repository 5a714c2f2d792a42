"""Where likelihood and collisions agree."""

import math

import pytest
import torch

from tvae_lib.theory.evenness import compromise


def objective(p, law, weight):
    return -torch.xlogy(law, p).sum() + weight / 2 * (len(law) * p.square().sum() - 1)


@pytest.mark.parametrize("weight", [0.01, 1.0, 16.0, 1000.0])
def test_even_data_ask_for_an_even_generator(weight):
    law = torch.full((81,), 1 / 81, dtype=torch.float64)
    torch.testing.assert_close(compromise(law, weight), law)


@pytest.mark.parametrize("weight", [0.1, 1.0, 16.0])
def test_no_other_distribution_has_less(weight):
    generator = torch.Generator().manual_seed(0)
    law = torch.rand(27, generator=generator, dtype=torch.float64) ** 4
    law[:5] = 0
    law /= law.sum()
    p = compromise(law, weight)
    assert p.sum().item() == pytest.approx(1)
    least = objective(p, law, weight)
    for size in (1e-1, 1e-3):
        for _ in range(100):
            other = p * torch.exp(size * torch.randn(27, generator=generator, dtype=torch.float64))
            assert objective(other / other.sum(), law, weight) > least


def test_what_was_never_seen_is_rarer_by_a_closed_form():
    law = torch.zeros(90, dtype=torch.float64)
    law[:80] = 1 / 80
    p = compromise(law, 16.0)
    seen, unseen = p[0].item(), p[-1].item()
    assert unseen / seen == pytest.approx(1 - (1 / 80) / (16 * 90 * seen**2), rel=1e-9)
    assert math.log(seen / unseen) == pytest.approx(0.0717, abs=1e-4)


def test_a_weight_of_nearly_nothing_leaves_the_data_and_a_great_one_nothing_of_them():
    law = torch.tensor([0.7, 0.2, 0.1, 0.0], dtype=torch.float64)
    torch.testing.assert_close(compromise(law, 1e-9), law, atol=1e-6, rtol=0)
    torch.testing.assert_close(compromise(law, 1e9), torch.full_like(law, 0.25), atol=1e-6, rtol=0)
