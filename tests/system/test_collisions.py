"""Collisions of generated operations, with a memory and among themselves."""

import math

import pytest
import torch
from torch import nn

from tvae_lib.operations import SIZE, VALUES
from tvae_lib.system.collisions import ALPHA_MEMORY, HEAD, TAIL, collision_excess, collisions, remember, uniform_memory
from tvae_lib.system.vae import DecoderA


@pytest.fixture
def logits(rng):
    return (3 * torch.randn(64, 9, VALUES, generator=rng)).double()


def p_of(logits):
    """p(x|z) of every operation, (K, M), trit by trit."""
    p = torch.softmax(logits, -1)
    out = p.new_ones(len(p), 1)
    for j in range(p.shape[1]):
        out = (out.unsqueeze(-1) * p[:, j].unsqueeze(1)).flatten(1)
    return out


def test_they_are_the_inner_product_with_the_memory(logits, rng):
    memory = torch.rand(SIZE, generator=rng, dtype=torch.float64)
    direct = SIZE * (p_of(logits).mean(0) * memory).sum() - 1
    torch.testing.assert_close(collisions(logits, memory.view(HEAD, TAIL)), direct)


def test_a_uniform_memory_pushes_nothing(logits):
    logits.requires_grad_()
    value = collisions(logits, uniform_memory().double())
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert gradient.abs().max() < 1e-6


def test_nothing_flows_into_the_memory(logits):
    memory = uniform_memory().double().requires_grad_()
    assert not torch.autograd.grad(collisions(logits.requires_grad_(), memory), memory, allow_unused=True)[0]
    assert not remember(memory.detach(), logits).requires_grad


def test_what_is_remembered_is_an_average_of_distributions(logits):
    memory = remember(uniform_memory().double(), logits)
    direct = ALPHA_MEMORY / SIZE + (1 - ALPHA_MEMORY) * p_of(logits).mean(0)
    torch.testing.assert_close(memory.flatten(), direct)
    assert memory.sum().item() == pytest.approx(1)


def test_the_memory_of_a_generator_at_rest_makes_the_term_its_chi_square(rng):
    decoder, generated = DecoderA().double(), uniform_memory().double()
    nn.init.normal_(decoder.body[4].weight, std=1.0, generator=rng)
    with torch.no_grad():
        every = decoder(torch.randn(4096, 16, generator=rng, dtype=torch.float64))
        for part in every.split(256) * 10:
            generated = remember(generated, part, 0.9)
        p = p_of(every).mean(0)
        chi_square = (SIZE * p.square().sum() - 1).item()
        assert collisions(every, generated).item() == pytest.approx(chi_square, rel=0.15)
    assert chi_square > 1


def test_pairs_of_codes_estimate_the_chi_square_without_bias(rng):
    """Of codes that are drawn, with replacement, from a few: the mean over all draws of two is the chi-square."""
    few = (2 * torch.randn(4, 9, VALUES, generator=rng)).double()
    pairs = [collision_excess(few[[i, j]]) for i in range(4) for j in range(4)]
    p = p_of(few).mean(0)
    torch.testing.assert_close(torch.stack(pairs).mean(), SIZE * p.square().sum() - 1)


def test_pairs_are_those_of_different_codes(logits):
    p = p_of(logits)
    agreed = p @ p.T
    agreed.fill_diagonal_(0)
    torch.testing.assert_close(collision_excess(logits), SIZE * agreed.sum() / (64 * 63) - 1)


def test_they_are_counted_over_any_number_of_trits(rng):
    flat = torch.zeros(5, 11, VALUES, dtype=torch.float64)
    assert collision_excess(flat).item() == pytest.approx(0, abs=1e-9)
    sure = torch.full((5, 3, VALUES), -100.0).index_fill(-1, torch.tensor([1]), 100.0)
    assert collision_excess(sure).item() == pytest.approx(VALUES**3 - 1)


def test_near_the_uniform_generator_they_are_twice_the_divergence(logits):
    p = 0.9999 / SIZE + 0.0001 * p_of(logits).mean(0)
    chi_square = (SIZE * p.square().sum() - 1).item()
    assert chi_square == pytest.approx(-2 * (p.log().mean().item() + math.log(SIZE)), rel=0.01)
    assert chi_square > 0
