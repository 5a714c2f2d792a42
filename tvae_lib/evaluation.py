"""Chapter 9: what a decoder generates, over all 19,683 operations at once.

p(x|z) factorises over the nine trits. With A (S, 243) the products of the probabilities of the first five trits
for each of S samples z, and B (S, 81) those of the last four, A^T B / S estimates p(x) for every x.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tvae_lib.dual import DualVAE, cross_inject
from tvae_lib.operations import (
    ENTROPY,
    SIZE,
    TRITS,
    all_operations,
    expected_coverage,
    full_coverage,
    index_of,
    one_hot,
    uniform_coverage,
)
from tvae_lib.vae import Posterior, log_likelihood, reparameterise

HEAD = 5  # trits in the first factor of `joint_factors`
NEGLIGIBLE = 1e-17
SECOND_EVERY = 4  # E p^2 comes from one chunk in so many: it serves a correction and needs few digits
LIFT = 2.0**27  # lifts squares of what is not negligible, and their products, into the range of float32


class Marginal(NamedTuple):
    """Estimate of p(x) for all x from S prior samples: Monte Carlo in z, exact in x.

    p: (M,) float64, unbiased. second: (M,) float64, E p(x|z)^2, from a part of the samples. kl_error: standard error of
    KL(U||p-hat).
    """

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
        Equation: eq-kl-uniform. Source: ours.
        """
        kl = -ENTROPY - self.log_p()[chosen].mean().item()
        variation = (self.second / self.p.square() - 1)[chosen].mean().item() if corrected else 0.0
        return kl - variation / (2 * self.samples)

    def expected_coverage(self, draws: int) -> float:
        """Expected fraction of operations among N independent draws; what the noise of p-hat hides is corrected for.

        (1 - p)^N is convex, so that the plain estimate is too low, to second order by half its curvature times the
        variance of p-hat. Equation: eq-corrected-coverage. Source: ours.
        """
        variance = (self.second - self.p.square()) / self.samples
        curvature = draws * (draws - 1) * torch.exp((draws - 2) * torch.log1p(-self.p))
        return expected_coverage(self.p, draws) + (curvature * variance).mean().item() / 2

    def full_coverage(self, draws: int) -> float:
        """Probability that N independent draws hit every operation, corrected likewise.

        The number that is missed is nearly Poisson where it is small, so that the probability is raised by the
        exponential of what the correction takes from its mean.
        """
        excess = SIZE * (self.expected_coverage(draws) - expected_coverage(self.p, draws))
        return min(1.0, full_coverage(self.p, draws) * math.exp(excess))


class Draws(NamedTuple):
    """Which operation each draw from a decoder was, trits sampled and trits taken by argmax: (N,) int64 each."""

    sampled: Tensor
    argmax: Tensor


def joint_factors(p: Tensor) -> tuple[Tensor, Tensor]:
    """Products of the trits' probabilities, each combination of values once: (9, 3, n) -> (243, n), (81, n).

    (For another number of trits, the first factor takes half of them, rounded up.)

    Column s of the first times column s of the second, as an outer product read row by row, is p(x|z_s) in the order
    of the operations' index. Factors below 1e-17 are set to zero: they change no p(x) that matters, and their
    products would be denormal numbers, which are slow. Equation: eq-factors. Source: ours.
    """
    p = nn.functional.threshold(p, NEGLIGIBLE, 0)

    def product(first: int, last: int) -> Tensor:
        out = p[last - 1]
        for j in range(last - 2, first - 1, -1):  # the last trit is the innermost digit
            out = nn.functional.threshold_((p[j].unsqueeze(1) * out).flatten(0, 1), NEGLIGIBLE, 0)
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
    Equation: eq-marginal. Source: ours.
    """
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


def coverage(drawn: Tensor, counts: tuple[int, ...]) -> dict[int, float]:
    """Fraction of the M operations among the first N draws, for each N in `counts`: (n,) index -> {N: fraction}.

    Equation: eq-coverage. Source: Foundations, "Empirical Validation".
    """
    order = torch.arange(len(drawn), device=drawn.device)
    first_seen = torch.full((SIZE,), max(counts), device=drawn.device)
    first_seen.scatter_reduce_(0, drawn, order, "amin")
    return {n: (first_seen < n).double().mean().item() for n in counts}


def judge(decoder: nn.Module, latent: int, samples: int, counts: tuple[int, ...], generator) -> tuple[dict, Tensor]:
    """The verdict on a decoder alone, as plain numbers for JSON, and log p-hat of every operation (M,).

    Coverage at each N in `counts` with trits sampled and by argmax; KL(U||p) in nats, corrected, with standard
    error; the least log p(x). A KL that is infinite (no sample reached some x) is None.
    """
    marginal, drawn = generate(decoder, latent, samples, max(counts), generator)
    log_p = marginal.log_p()
    finite = bool(log_p.isfinite().all())
    return {
        "coverage": {str(n): value for n, value in coverage(drawn.sampled, counts).items()},
        "coverage_argmax": {str(n): value for n, value in coverage(drawn.argmax, counts).items()},
        "kl_uniform": marginal.kl_uniform() if finite else None,
        "kl_uniform_plugin": marginal.kl_uniform(corrected=False) if finite else None,
        "kl_uniform_error": marginal.kl_error if finite else None,
        "min_log_p": log_p.min().item() if finite else None,
        "samples": samples,
    }, log_p


@torch.no_grad()
def expected_log_likelihood(decoder: nn.Module, posterior: Posterior, samples: int, generator) -> tuple[Tensor, Tensor]:
    """E_q log p(x|z) of every operation, from `samples` codes of each posterior, with standard errors: (M,), (M,).

    `posterior` (M, d) is that of the codes the decoder reads. Minus the mean of the first is the distortion D, and
    its standard error the root of the summed squares of the second over M. In nats; `samples` at least 2.
    Equation: eq-distortion. Source: ours.
    """
    device = generator.device
    indicators = one_hot(all_operations().to(device))
    total, squares = (torch.zeros(SIZE, dtype=torch.float64, device=device) for _ in range(2))
    for _ in range(samples):
        noise = torch.randn(posterior.mean.shape, generator=generator, device=device)
        value = log_likelihood(decoder(reparameterise(posterior, noise)), indicators).double()
        total += value
        squares += value.square()
    mean = total / samples
    return mean, ((squares / samples - mean.square()).clamp(min=0) / (samples - 1)).sqrt()


@torch.no_grad()
def importance(decoder: nn.Module, proposal: Posterior, tens: int, generator) -> tuple[Tensor, Tensor]:
    """p(x) of every operation by importance sampling: estimate and standard error, (M,) float64.

    Codes come in tens, one from the prior and nine from the operation's proposal (M, d), all weighted for that
    mixture, so that no weight exceeds 10 p(x|z). Unbiased for every proposal; `tens` at least 2.
    Equation: eq-importance. Source: ours.
    """
    device = generator.device
    indicators = one_hot(all_operations().to(device))
    total, squares = (torch.zeros(SIZE, dtype=torch.float64, device=device) for _ in range(2))
    for _ in range(tens):
        value = torch.zeros_like(total)
        for k in range(10):
            noise = torch.randn(proposal.mean.shape, generator=generator, device=device)
            z = reparameterise(proposal, noise) if k else noise
            surprise = (z - proposal.mean).square() * torch.exp(-proposal.log_variance) + proposal.log_variance
            log_odds = 0.5 * (z.square() - surprise).sum(1)  # log q(z|x) - log p(z)
            log_weight = math.log(10) - nn.functional.softplus(log_odds + math.log(9))  # of p / ((9 q + p) / 10)
            value += torch.exp((log_likelihood(decoder(z), indicators) + log_weight).double()) / 10
        total += value
        squares += value.square()
    mean = total / tens
    return mean, ((squares / tens - mean.square()).clamp(min=0) / (tens - 1)).sqrt()


def log_aggregate(z: Tensor, posterior: Posterior) -> Tensor:
    """log q(z) of the aggregate posterior, the mean of the Gaussians of all n operations: (N, d) -> (N,), float64.

    Squares expanded, the N x n exponents are one matrix product. Equation: eq-aggregate. Source: ours.
    """
    mean, log_variance = (part.double() for part in posterior)
    precision = torch.exp(-log_variance)
    features = torch.cat([-0.5 * precision, mean * precision], 1)
    constant = -0.5 * (mean.square() * precision + log_variance + math.log(2 * math.pi)).sum(1) - math.log(len(mean))
    z = z.double()
    parts = [torch.logsumexp(torch.addmm(constant, p, features.T), 1) for p in torch.cat([z.square(), z], 1).split(128)]
    return torch.cat(parts)


@torch.no_grad()
def information(posterior: Posterior, samples: int, generator) -> tuple[float, float]:
    """I(x; z) of uniform operations and codes from their posteriors (n, d), and its standard error, in nats.

    Exact in the n components of q(z), Monte Carlo in (x, z): the mean of log q(z|x) - log q(z). At most log n.
    Equation: eq-information. Source: ours.
    """
    device = posterior.mean.device
    chosen = torch.randint(len(posterior.mean), (samples,), generator=generator, device=device)
    own = Posterior(*(part[chosen] for part in posterior))
    noise = torch.randn(own.mean.shape, generator=generator, device=device)
    log_own = -0.5 * (noise.double().square() + own.log_variance.double() + math.log(2 * math.pi)).sum(1)
    gain = log_own - log_aggregate(reparameterise(own, noise), posterior)
    return gain.mean().item(), gain.std().item() / math.sqrt(samples)


def cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of two codes of the same operations, (n, d) and (n, d'): 0 ... 1.

    1 where one is a rotation of the other times a factor. Equation: eq-cka. Source: Kornblith et al. (2019).
    """
    a, b = (part.double() - part.double().mean(0) for part in (first, second))
    return ((a.T @ b).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm())).item()


def uniform_bound(counts: tuple[int, ...]) -> dict[str, float]:
    """Expected coverage of the uniform generator at each N, the bound for independent draws: {N: fraction}."""
    return {str(n): uniform_coverage(n) for n in counts}


@torch.no_grad()
def reconstruction(model: DualVAE, trits: Tensor, rho: float) -> dict[str, float | None]:
    """Fraction of operations that come back exactly by argmax from the posterior means: trits (n, 9) as floats.

    `alone_*`: each decoder reads its own mean; `coupled_*`: it reads the injected one. None where n = 0.
    """
    if not len(trits):
        return dict.fromkeys(("alone_A", "alone_B", "coupled_A", "coupled_B"))
    mean_A, mean_B = model.A.encoder(trits).mean, model.B.encoder(trits).mean

    index = index_of(trits)

    def exact(decoder: nn.Module, z: Tensor) -> float:
        found = [likeliest(decoder(part).movedim(0, -1)) for part in z.split(2048)]
        return (torch.cat(found) == index).double().mean().item()

    return {
        "alone_A": exact(model.A.decoder, mean_A),
        "alone_B": exact(model.B.decoder, mean_B),
        "coupled_A": exact(model.A.decoder, cross_inject(mean_A, mean_B, rho)),
        "coupled_B": exact(model.B.decoder, cross_inject(mean_B, mean_A, rho)),
    }


@torch.no_grad()
def trit_accuracy(model: DualVAE, trits: Tensor, rho: float) -> Tensor:
    """Share of operations, trits (n, 9) as floats, whose trit j comes back by argmax from the injected means: (2, 9).

    Rows are A and B. Equation: eq-trit-accuracy. Source: ours.
    """
    mean_A, mean_B = (vae.encoder(trits).mean for vae in (model.A, model.B))
    read = ((model.A, cross_inject(mean_A, mean_B, rho)), (model.B, cross_inject(mean_B, mean_A, rho)))
    return torch.stack([(vae.decoder(z).argmax(-1) - 1 == trits).double().mean(0) for vae, z in read])


@torch.no_grad()
def sampled_reconstruction(
    decoder: nn.Module, posterior: Posterior, samples: int, generator, chosen: Tensor | None = None
) -> tuple[float, float]:
    """Fraction of operations that come back by argmax from codes drawn of their posteriors, and its standard error.

    The posteriors (n, d) are those of the `chosen` operations, indices (n,), or of all; `samples` codes of each, at
    least 2.
    """
    everything = torch.arange(SIZE, device=generator.device) if chosen is None else chosen
    shares = []
    for _ in range(samples):
        noise = torch.randn(posterior.mean.shape, generator=generator, device=generator.device)
        logits = decoder(reparameterise(posterior, noise))
        shares.append((likeliest(logits.movedim(0, -1)) == everything).double().mean())
    shares = torch.stack(shares)
    return shares.mean().item(), shares.std().item() / math.sqrt(samples)
