"""What a decoder generates from z ~ N(0, I), over all 19,683 operations at once.

p(x|z) factorises over the nine trits. With A (S, 243) the products of the probabilities of the first five trits for
each of S samples z, and B (S, 81) those of the last four, A^T B / S estimates p(x) for every x."""

import math
from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tvae_lib.coverage import expected_coverage, full_coverage
from tvae_lib.operations import SIZE, TRITS, VALUES, index_of
from tvae_lib.system.vae import joint_factors
from tvae_lib.training import recording
from tvae_lib.training.threads import Team, allowed

SECOND_EVERY = 4  # E p^2 comes from one chunk in so many: it serves a correction and needs few digits
CHUNKS = 32  # that are drawn, and then judged, together
LEAST_BLOCKS = 8  # before the error that they show is believed
LIFT = 2.0**27  # lifts squares of what is not negligible, and their products, into the range of float32


class Marginal(NamedTuple):
    """Estimate of p(x) for all x from S prior samples: Monte Carlo in z, exact in x.

    p: (M,) float64, unbiased. second: (M,) float64, E p(x|z)^2, from a part of the samples. kl_deviation: standard
    deviation of KL(U||p-hat)."""

    p: Tensor
    second: Tensor
    samples: int
    kl_deviation: float

    def log_p(self) -> Tensor:
        """log p-hat(x) in nats (M,), not corrected; -inf where no sample reached x."""
        return self.p.log()

    def kl_uniform(self, corrected: bool = True, chosen: Tensor | slice = slice(None)) -> float:
        """KL(U||p) in nats; `corrected` subtracts the bias of the logarithm, the mean of CV^2 / 2S.

        With `chosen` operations, indices, the mean is over them alone: what they miss of the uniform probability.
        Equation: eq-kl-uniform. Source: ours."""
        kl = -math.log(len(self.p)) - self.log_p()[chosen].mean().item()
        variation = (self.second / self.p.square() - 1)[chosen].mean().item() if corrected else 0.0
        return kl - variation / (2 * self.samples)

    @property
    def bias_left(self) -> float:
        """About what the correction of KL(U||p-hat) leaves of its bias, in nats.

        With v = CV^2 / S, and counts that are nearly Poisson, the next order of the logarithm is 3 v^2 / 4 - v^2 / 3;
        where v is great it counts no more than the correction itself, v / 2.
        Equation: eq-bias-left. Source: ours."""
        v = (self.second / self.p.square() - 1) / self.samples
        return (5 / 12 * v.square() / (1 + 5 / 6 * v)).mean().item()

    @property
    def kl_error(self) -> float:
        """Standard error of `kl_uniform`, corrected, in nats: the deviation, and the bias that is left."""
        return math.hypot(self.kl_deviation, self.bias_left)

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


def half_each(first: Marginal, second: Marginal) -> Marginal:
    """The estimate of p(x) of a pair, half of whose operations come from each of two generators.

    What is left of its noise is that of two independent parts. Equation: eq-half-each. Source: ours."""
    p = (first.p + second.p) / 2
    variances = [(one.second - one.p.square()) / one.samples for one in (first, second)]
    samples = first.samples + second.samples
    spread = p.square() + samples / 4 * sum(variances)
    return Marginal(p, spread, samples, math.hypot(first.kl_deviation, second.kl_deviation) / 2)


class Draws(NamedTuple):
    """Which operation each draw from a decoder was, by three readings of a trit: (N,) int64 each.

    A value sampled from its distribution, the likeliest value, and the expectation rounded to the nearest."""

    sampled: Tensor
    argmax: Tensor
    rounded: Tensor


def draw(p: Tensor, uniforms: Tensor) -> Tensor:
    """An operation for each column, each trit by the inverse distribution function: (9, 3, n), (9, n) -> (n,) index."""
    return _index_of_steps(uniforms >= p[:, 0], uniforms >= p[:, 0] + p[:, 1])


def likeliest(p: Tensor) -> Tensor:
    """The operation whose trits are likeliest, for each column: (9, 3, n) -> (n,) index. Ties go to the lower value."""
    low, middle, high = p.unbind(1)
    return _index_of_steps(torch.maximum(middle, high) > low, high > torch.maximum(low, middle))


def nearest(p: Tensor) -> Tensor:
    """The operation whose trits are the nearest to their expectations, for each column: (9, 3, n) -> (n,) index.

    A trit's expectation is p_+ - p_-. Equation: eq-rounded. Source: ours, for the published v5.5 code."""
    expectation = p[:, 2] - p[:, 0]
    return _index_of_steps(expectation >= -0.5, expectation > 0.5)


def _index_of_steps(above_first: Tensor, above_second: Tensor) -> Tensor:
    """Index of the operation whose trits are above their first value, and above their second: (9, n) -> (n,)."""
    return index_of((above_first.char() + above_second.char() - 1).T)


def chunk_size(samples: int, device: torch.device) -> int:
    """Samples handled at once: at least 16 chunks for the standard error, at most what fits a cache or fills a GPU."""
    return min(65_536 if device.type == "cuda" else 2048, max(64, samples // 16))


class Chunk(NamedTuple):
    """What a chunk of prior samples gives: sums of p(x|z), lifted sums of p(x|z)^2 or nothing, (243, 81); its draws."""

    sums: Tensor
    squares: Tensor
    draws: Draws


def of_chunk(decoder: nn.Module, z: Tensor, uniforms: Tensor, counted: int, square: bool) -> Chunk:
    """The chunk of codes z (n, d), of which the first `counted` count in the sums; draws where there are uniforms."""
    p = torch.softmax(decoder(z).movedim(0, -1), 1)  # batch last: softmax along rows of three is slow
    none = z.new_empty((3, 0), dtype=torch.int64)
    draws = Draws(draw(p, uniforms), likeliest(p), nearest(p)) if len(uniforms) else Draws(*none)
    head, tail = joint_factors(p[..., :counted])
    squares = (LIFT * head).square_() @ (LIFT * tail).square_().T if square else z.new_empty((0, 0))
    return Chunk(head @ tail.T, squares, draws)


def chunks(decoder: nn.Module, latent: int, sizes: Iterable[tuple[int, bool, bool]], size: int, generator):
    """The chunks of the given (counted, with draws, with squares), of `size` samples each.

    On a CPU a decoder of the system's has fused passes, shared by the threads that may be used; the random numbers,
    drawn while the chunks before are judged, are the same."""
    fused = recording.fused("decoding") if generator.device.type == "cpu" else None
    known = fused.known(decoder) if fused else None
    judge = partial(fused.of_chunk, known) if fused and known else partial(of_chunk, decoder)
    team, sizes, found, waiting = Team([allowed() if known else 1]), iter(sizes), {}, []

    def draw_numbers():
        for counted, drawn, square in islice(sizes, CHUNKS):
            z = torch.randn((size, latent), generator=generator, device=generator.device)
            uniforms = torch.rand((TRITS if drawn else 0, size), generator=generator, device=generator.device)
            waiting.append((z, uniforms, counted, square))

    def take(i, *arguments):
        found[i] = judge(*arguments)

    draw_numbers()
    while waiting:
        tasks = [(take, (i, *arguments)) for i, arguments in enumerate(waiting)]
        waiting.clear()
        team.run([(draw_numbers, ()), *tasks])
        for i in range(len(tasks)):
            sums, squares, draws = found.pop(i)
            yield Chunk(sums, squares, Draws(*draws))


@torch.no_grad()
def generate(
    decoder: nn.Module, latent: int, samples: int, draws: int, generator, error: float = 0.0
) -> tuple[Marginal, Draws]:
    """Send prior samples z ~ N(0, I) through a decoder alone: p(x) from `samples` of them, `draws` operations.

    Fewer samples do where the error of KL(U||p), and what its correction may leave, are below `error`. The draws use
    the first of the same z; without any, the decoder may be of tables of any length. Runs where the generator is;
    memory does not grow with `samples`.
    Equation: eq-marginal. Source: ours."""
    device, size = generator.device, chunk_size(samples, generator.device)
    trits = decoder(torch.zeros(1, latent, device=device)).shape[1]
    shape = VALUES ** -(-trits // 2), VALUES ** (trits // 2)
    first = torch.zeros(shape, dtype=torch.float64, device=device)
    second, squared, counted = torch.zeros_like(first), 0, 0
    blocks: list[tuple[Tensor, int]] = []
    block, in_block = torch.zeros_like(first), 0
    drawn: list[Draws] = []
    block_size = max(size, samples // 64)
    starts = range(0, max(samples, draws), size)
    sizes = (
        (max(0, min(size, samples - start)), start < draws, i % SECOND_EVERY == 0) for i, start in enumerate(starts)
    )
    for start, chunk in zip(starts, chunks(decoder, latent, sizes, size, generator), strict=True):
        more = max(0, min(size, samples - start))
        drawn.append(chunk.draws)
        if more:
            block += chunk.sums
            in_block += more
            if len(chunk.squares):
                second += chunk.squares
                squared += more
            if in_block >= block_size or start + size >= samples:
                first, counted = first + block, counted + in_block
                blocks.append(((block / in_block).float().flatten(), in_block))
                block, in_block = torch.zeros_like(first), 0
                if error and start + size >= draws and len(blocks) >= LEAST_BLOCKS:
                    marginal = _marginal(first, second, squared, counted, blocks)
                    if marginal.kl_error <= error:
                        break
    together = Draws(*(torch.cat(parts)[:draws] for parts in zip(*drawn, strict=True)))
    return _marginal(first, second, squared, counted, blocks), together


def _marginal(first: Tensor, second: Tensor, squared: int, samples: int, blocks: list[tuple[Tensor, int]]) -> Marginal:
    p = first.flatten() / samples
    # Linearised, KL(U||p-hat) is minus the mean over x of p-hat(x)/p(x); each block gives one value of it.
    means = torch.stack([(part / p).mean() for part, _ in blocks])
    sizes = torch.tensor([size for _, size in blocks], dtype=torch.float64, device=p.device)
    variance = (sizes * (means - 1).square()).sum().item() / (len(blocks) - 1)
    return Marginal(p, second.flatten() / (squared * LIFT**4), samples, math.sqrt(variance / samples))


def mean_and_error(values: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean of at least two independent estimates, tensors of one shape, and its standard error, element by element."""
    total = squares = torch.zeros(())
    count = 0
    for value in values:
        total, squares, count = total + value, squares + value.square(), count + 1
    mean = total / count
    return mean, ((squares / count - mean.square()).clamp(min=0) / (count - 1)).sqrt()
