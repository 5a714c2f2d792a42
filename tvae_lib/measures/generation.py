"""What a decoder generates from z ~ N(0, I), over all 19,683 operations at once.

p(x|z) factorises over the nine trits. With A (S, 243) the products of the probabilities of the first five trits for
each of S samples z, and B (S, 81) those of the last four, A^T B / S estimates p(x) for every x."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tvae_lib.coverage import expected_coverage, full_coverage
from tvae_lib.operations import ENTROPY, SIZE, TRITS, index_of

HEAD = 5  # trits in the first factor of `joint_factors`
NEGLIGIBLE = 1e-17
SECOND_EVERY = 4  # E p^2 comes from one chunk in so many: it serves a correction and needs few digits
LIFT = 2.0**27  # lifts squares of what is not negligible, and their products, into the range of float32


class Marginal(NamedTuple):
    """Estimate of p(x) for all x from S prior samples: Monte Carlo in z, exact in x.

    p: (M,) float64, unbiased. second: (M,) float64, E p(x|z)^2, from a part of the samples. kl_error: standard error of
    KL(U||p-hat)."""

    p: Tensor
    second: Tensor
    samples: int
    kl_error: float

    def log_p(self) -> Tensor:
        """log p-hat(x) in nats (M,), not corrected; -inf where no sample reached x."""
        return self.p.log()

    def kl_uniform(self, corrected: bool = True, chosen: Tensor | slice = slice(None)) -> float:
        """KL(U||p) in nats; `corrected` subtracts the bias of the logarithm, the mean of CV^2 / 2S.

        With `chosen` operations, indices, the mean is over them alone: what they miss of the uniform probability.
        Equation: eq-kl-uniform. Source: ours."""
        kl = -ENTROPY - self.log_p()[chosen].mean().item()
        variation = (self.second / self.p.square() - 1)[chosen].mean().item() if corrected else 0.0
        return kl - variation / (2 * self.samples)

    def expected_coverage(self, draws: int) -> float:
        """Expected fraction of operations among N independent draws; what the noise of p-hat hides is corrected for.

        (1 - p)^N is convex, so that the plain estimate is too low, to second order by half its curvature times the
        variance of p-hat. Equation: eq-corrected-coverage. Source: ours."""
        variance = (self.second - self.p.square()) / self.samples
        curvature = draws * (draws - 1) * torch.exp((draws - 2) * torch.log1p(-self.p))
        return expected_coverage(self.p, draws) + (curvature * variance).mean().item() / 2

    def full_coverage(self, draws: int) -> float:
        """Probability that N independent draws hit every operation, corrected likewise.

        The number that is missed is nearly Poisson where it is small, so that the probability is raised by the
        exponential of what the correction takes from its mean."""
        excess = SIZE * (self.expected_coverage(draws) - expected_coverage(self.p, draws))
        return min(1.0, full_coverage(self.p, draws) * math.exp(excess))


class Draws(NamedTuple):
    """Which operation each draw from a decoder was, trits sampled and trits taken by argmax: (N,) int64 each."""

    sampled: Tensor
    argmax: Tensor


def joint_factors(p: Tensor) -> tuple[Tensor, Tensor]:
    """Products of the trits' probabilities, each combination of values once: (9, 3, n) -> (243, n), (81, n).

    Their outer products, read row by row, are p(x|z) in the order of the operations' index. Factors below 1e-17 are set
    to zero, since their products would be denormal numbers, which are slow. Equation: eq-factors. Source: ours."""
    p = torch.threshold(p, NEGLIGIBLE, 0)

    def product(first: int, last: int) -> Tensor:
        out = p[last - 1]
        for j in range(last - 2, first - 1, -1):  # the last trit is the innermost digit
            out = torch.threshold_((p[j].unsqueeze(1) * out).flatten(0, 1), NEGLIGIBLE, 0)
        return out

    half = -(-len(p) // 2)
    return product(0, half), product(half, len(p))


def draw(p: Tensor, uniforms: Tensor) -> Tensor:
    """An operation for each column, each trit by the inverse distribution function: (9, 3, n), (9, n) -> (n,) index."""
    return _index_of_steps(uniforms >= p[:, 0], uniforms >= p[:, 0] + p[:, 1])


def likeliest(p: Tensor) -> Tensor:
    """The operation whose trits are likeliest, for each column: (9, 3, n) -> (n,) index. Ties go to the lower value."""
    low, middle, high = p.unbind(1)
    return _index_of_steps(torch.maximum(middle, high) > low, high > torch.maximum(low, middle))


def _index_of_steps(above_first: Tensor, above_second: Tensor) -> Tensor:
    """Index of the operation whose trits are above their first value, and above their second: (9, n) -> (n,)."""
    return index_of((above_first.char() + above_second.char() - 1).T)


def chunk_size(samples: int, device: torch.device) -> int:
    """Samples handled at once: at least 16 chunks for the standard error, at most what fits a cache or fills a GPU."""
    return min(65_536 if device.type == "cuda" else 2048, max(64, samples // 16))


@torch.no_grad()
def generate(decoder: nn.Module, latent: int, samples: int, draws: int, generator) -> tuple[Marginal, Draws]:
    """Send prior samples z ~ N(0, I) through a decoder alone: p(x) from `samples` of them, `draws` operations.

    The draws use the first of the same z. Runs where the generator is; memory does not grow with `samples`.
    Equation: eq-marginal. Source: ours."""
    device = generator.device
    shape = (3**HEAD, 3 ** (TRITS - HEAD))
    first = torch.zeros(shape, dtype=torch.float64, device=device)
    second, squared = torch.zeros_like(first), 0
    blocks, sampled, argmax = [], [], []
    block, in_block = torch.zeros_like(first), 0
    chunk = chunk_size(samples, device)
    block_size = max(chunk, samples // 64)
    for start in range(0, max(samples, draws), chunk):
        z = torch.randn((chunk, latent), generator=generator, device=device)
        p = torch.softmax(decoder(z).movedim(0, -1), 1)  # batch last: softmax along rows of three is slow
        if start < draws:
            uniforms = torch.rand((TRITS, chunk), generator=generator, device=device)
            sampled.append(draw(p, uniforms))
            argmax.append(likeliest(p))
        if start < samples:
            head, tail = joint_factors(p[..., : samples - start])
            block += head @ tail.T
            in_block += head.shape[1]
            if start // chunk % SECOND_EVERY == 0:
                second += (LIFT * head).square_() @ (LIFT * tail).square_().T
                squared += head.shape[1]
            if in_block >= block_size or start + chunk >= samples:
                first += block
                blocks.append(((block / in_block).float().flatten(), in_block))
                block, in_block = torch.zeros_like(first), 0
    marginal = first.flatten() / samples
    # Linearised, KL(U||p-hat) is minus the mean over x of p-hat(x)/p(x); each block gives one value of it.
    means = torch.stack([(part / marginal).mean() for part, _ in blocks])
    sizes = torch.tensor([size for _, size in blocks], dtype=torch.float64, device=device)
    variance = (sizes * (means - 1).square()).sum().item() / (len(blocks) - 1)
    error = math.sqrt(variance / samples)
    drawn = Draws(torch.cat(sampled)[:draws], torch.cat(argmax)[:draws])
    return Marginal(marginal, second.flatten() / (squared * LIFT**4), samples, error), drawn


def mean_and_error(values: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean of at least two independent estimates, tensors of one shape, and its standard error, element by element."""
    total = squares = torch.zeros(())
    count = 0
    for value in values:
        total, squares, count = total + value, squares + value.square(), count + 1
    mean = total / count
    return mean, ((squares / count - mean.square()).clamp(min=0) / (count - 1)).sqrt()
