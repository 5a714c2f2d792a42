"""The terms of the loss, their weights, and the balance of the two pathways' gradients.

The total is one inner product, <weights, terms>, over the terms named in `TERMS`."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tvae_lib.system.collisions import collisions
from tvae_lib.system.dual import DualOutput
from tvae_lib.system.fusible import fusible
from tvae_lib.system.vae import joint_factors, log_likelihood, mean_kl

WRITTEN = ("ce_A", "kl_A", "ce_B", "kl_B", "negentropy", "repulsion", "alignment")  # the documents' terms
TERMS = (*WRITTEN, "partner_A", "partner_B", "collisions_A", "collisions_B")  # and ours, which are zero where off
BALANCE_RANGE = (0.5, 2.0)
BINS = 50
REACH = 3.0  # the histograms cover [-REACH, REACH]
BIN_WIDTH = 2 * REACH / BINS
RATIO_BAND = (0.8, 1.2)  # gradient ratios that count as balanced and open the gate
SIGMA_REP = 0.5  # width of the repulsion kernel
ALPHAS = (0.9, 0.95)  # of the moving average of gradient norms: else, and while balanced
LEAST = 1e-37  # a probability below it counts for nothing in an entropy's gradient


@fusible
def cross_entropy(logits: Tensor, indicators: Tensor) -> Tensor:
    """Mean over the batch of -log p(x|z), in nats: logits and one-hot (N, 9, 3) -> scalar.
    Equation: eq-cross-entropy. Source: Foundations, "Cross-Entropy"."""
    return -log_likelihood(logits, indicators).mean()


@fusible
def output_entropy(logits: Tensor) -> Tensor:
    """Entropy of the batch's mean output distribution, summed over the nine trits, in nats: (N, 9, 3) -> scalar.

    The document's p-bar is read as 9 x 3, one distribution for each trit; at most 9 ln 3.
    Equation: eq-output-entropy. Source: Foundations, "Output Entropy"."""
    return entropy(torch.softmax(logits.movedim(0, -1), -2).mean(-1))


def entropy_of_values(logits: Tensor) -> Tensor:
    """`output_entropy` with k read as a value alone, p-bar the mean over batch and trits: at most ln 3.
    Equation: eq-output-entropy-values. Source: Foundations, "Output Entropy"."""
    return entropy(torch.softmax(logits, -1).mean((0, 1)))


def entropy_of_operations(logits: Tensor) -> Tensor:
    """`output_entropy` with k read as a whole operation, p-bar (M,) the batch's mean of p(x|z): at most ln M.

    M p-bar is one matrix product. Equation: eq-output-entropy-operations. Source: Foundations, "Output Entropy"."""
    head, tail = joint_factors(torch.softmax(logits.movedim(0, -1), -2))
    return entropy(head @ tail.T / len(logits))


def entropy(p: Tensor) -> Tensor:
    """-sum p log p in nats; where p is zero, or all but zero, its gradient stays finite."""
    return -torch.xlogy(p, p.clamp_min(LEAST)).sum()


@fusible
def repulsion(z: Tensor, sigma: Tensor | float = SIGMA_REP) -> Tensor:
    """Mean of K_ij = exp(-||z_i - z_j||^2 / 2 sigma^2) over all pairs, i = j included: (N, d) -> scalar.

    Its gradient is given in closed form, -2 / (N^2 sigma^2) (z_i sum_j K_ij - sum_j K_ij z_j). Exponents are held above
    -80, where float32 would turn denormal. Equation: eq-repulsion. Source: Foundations, "Repulsion Loss"."""
    codes = z.detach() / sigma
    halves = codes.square().sum(-1) / 2
    kernel = torch.addmm(-halves, codes, codes.T).sub_(halves.unsqueeze(-1)).clamp_min_(-80).clamp_max_(0).exp_()
    gradient = (kernel @ codes - codes * kernel.sum(-1, keepdim=True)) * (2 / (kernel.numel() * sigma))
    return with_gradient(kernel.mean(), z, gradient)


def expected_repulsion(sigma: float, latent: int, scale: float = 1.0) -> float:
    """E exp(-||z - z'||^2 / 2 sigma^2) of two independent codes from N(0, scale^2 I).
    Equation: eq-expected-repulsion. Source: ours."""
    return (1 + 2 * scale**2 / sigma**2) ** (-latent / 2)


@fusible
def histogram_entropy(z: Tensor) -> Tensor:
    """Differential entropy of a batch of codes, 50 bins on [-3, 3] for each coordinate: (N, d) -> scalar.

    Summed over coordinates, in nats; values outside the range are left out. Piecewise constant in z, so its gradient is
    zero wherever it exists; `soft_entropy` is the version that trains.
    Equation: eq-entropy. Source: Foundations, "Mathematical Formulation", entropy alignment."""
    bins = ((z.detach() + REACH) / BIN_WIDTH).floor()
    inside = (bins >= 0) & (bins < BINS)
    places = bins.nan_to_num().clamp(0, BINS - 1).long()
    counts = z.new_zeros(z.shape[-1], BINS).scatter_add(1, places.T, inside.T.to(z.dtype))
    p = counts / counts.sum(-1, keepdim=True).clamp_min(1)
    return -torch.xlogy(p, p / BIN_WIDTH).sum()


@fusible
def soft_entropy(z: Tensor) -> Tensor:
    """`histogram_entropy` with each code spread over the bins by a Gaussian one bin wide: (N, d) -> scalar.

    Its gradient is given in closed form: with g_b = -(log p_b + H) / sum_b m_b the derivative of a coordinate's entropy
    by the mass m_b of a bin, that by a code is sum_b g_b times the slope of its kernel at the bin. Exponents are held
    above -40, where float32 would turn denormal. A code outside the range counts for nothing, as in the histogram.
    Equation: eq-soft-entropy. Source: ours, for Foundations, "Entropy Alignment"."""
    scale = 1 / (BIN_WIDTH * math.sqrt(2))
    u = scale * z.detach().T.contiguous().unsqueeze(1)  # (d, 1, N)
    c = scale * torch.linspace(-REACH + BIN_WIDTH / 2, REACH - BIN_WIDTH / 2, BINS, dtype=z.dtype, device=z.device)
    inside = u.abs() <= scale * REACH
    weights = (u - c.unsqueeze(-1)).pow_(2).neg_().clamp_min_(-40).exp_().mul_(inside)  # (d, BINS, N)
    masses = weights.sum(-1)
    total = masses.sum(-1, keepdim=True).clamp_min(LEAST)
    log_p = (masses / total).clamp_min(LEAST).log()
    entropy = -(masses / total * log_p).sum(-1, keepdim=True)
    g = -(log_p + entropy) / total.clamp_min(1)
    sums = torch.stack([g, g * c], 1) @ weights  # (d, 2, N)
    gradient = -2 * scale * (u.squeeze(1) * sums[:, 0] - sums[:, 1])
    some = inside.any(-1).to(z.dtype).sum()  # coordinates with a code in the range
    return with_gradient(entropy.sum() + some * math.log(BIN_WIDTH), z, gradient.T)


def gaussian_entropy(z: Tensor) -> Tensor:
    """`histogram_entropy` of the Gaussians that have the codes' variances, sum of ln(2 pi e v_i) / 2: (N, d) -> scalar.

    Smooth in z, and without a range. Equation: eq-gaussian-entropy. Source: ours, for Foundations, "Entropy
    Alignment"."""
    return (z.var(0).clamp_min(LEAST) * (2 * math.pi * math.e)).log().sum() / 2


def with_gradient(value: Tensor, inputs: Tensor, gradient: Tensor) -> Tensor:
    """The scalar `value`, with `gradient` as its derivative by `inputs`: for terms whose gradient is cheap by hand."""
    return value + ((inputs - inputs.detach()) * gradient).sum()


def alignment(entropy_A: Tensor, entropy_B: Tensor) -> Tensor:
    """|H(z_A) - H(z_B)|, in nats: scalars.
    Equation: eq-alignment. Source: Foundations, "Complete Loss Decomposition"."""
    return (entropy_A - entropy_B).abs()


def squared_alignment(entropy_A: Tensor, entropy_B: Tensor) -> Tensor:
    """(H(z_A) - H(z_B))^2 / 2: scalars. Where they are alike its gradient is as small as their difference.

    That of `alignment` is as great as ever there, and its sign that of the batch's noise.
    Equation: eq-squared-alignment. Source: ours, for Foundations, "Entropy Alignment"."""
    return (entropy_A - entropy_B).square() / 2


class Forms(NamedTuple):
    """How the terms are read where the document leaves room: keys of the dictionaries below."""

    histogram: str = "hard"
    output_entropy: str = "trits"
    repelled: str = "codes"
    distance: str = "absolute"


ENTROPIES = {"hard": histogram_entropy, "soft": soft_entropy, "gaussian": gaussian_entropy}
OUTPUT_ENTROPIES = {"trits": output_entropy, "values": entropy_of_values, "operations": entropy_of_operations}
DISTANCES = {"absolute": alignment, "squared": squared_alignment}
REPELLED = {"codes": lambda output: output.z_B, "means": lambda output: output.posterior_B.mean}


def loss_terms(
    output: DualOutput,
    indicators: Tensor,
    sigma_rep: Tensor | float,
    used: tuple[bool, bool, bool],
    forms: Forms = Forms(),  # noqa: B008 - immutable
    codes: tuple[Tensor, Tensor] | None = None,
    memory: Tensor | None = None,
):
    """The terms in the order of `TERMS`, (11,), and the entropies of z_A and z_B, (2,).

    `used` says which of output entropy, repulsion and alignment to compute; the others are zero, and so is what has no
    logits. The entropies are those of `codes`, (N, d) each, where these are not the pathways' own codes. `memory`, (2,
    243, 81), is what each decoder's collisions are with."""
    zero = output.z_A.new_zeros(())
    entropies = torch.stack([ENTROPIES[forms.histogram](z) for z in codes or (output.z_A, output.z_B)])
    repelled = REPELLED[forms.repelled](output)
    terms = torch.stack(
        [
            cross_entropy(output.logits_A, indicators),
            mean_kl(output.posterior_A),
            cross_entropy(output.logits_B, indicators),
            mean_kl(output.posterior_B),
            -OUTPUT_ENTROPIES[forms.output_entropy](output.logits_B) if used[0] else zero,
            repulsion(repelled, sigma_rep) if used[1] else zero,
            DISTANCES[forms.distance](*entropies) if used[2] else zero,
            *(
                cross_entropy(logits, indicators[: len(logits)]) if len(logits) else zero
                for logits in (output.partner_A, output.partner_B)
            ),
            *(
                collisions(logits, memory[i]) if memory is not None else zero
                for i, logits in enumerate((output.prior_A, output.prior_B))
            ),
        ]
    )
    return terms, entropies


def term_weights(lambdas, balance, beta_A, beta_B, alpha_ent, alpha_rep, active, rho=0.0, diversity=0.0) -> Tensor:
    """Weights of the terms, so that L_total = <weights, terms>: (11,).

    L_total = lambda_1 g_A L_A + lambda_2 g_B L_B + lambda_3 L_align, with L_A = CE_A + beta_A KL_A and L_B = CE_B +
    beta_B KL_B - alpha_ent H_output + alpha_rep L_rep. The terms that are ours have the weights rho and diversity in
    L_A and L_B (eq-in-turn), and are zero where the documents' equations are taken as written. `lambdas` is (3,),
    `balance` = (g_A, g_B) is (2,), `active` holds 0 or 1 for L_A, L_B and L_align.
    Equation: eq-total. Source: Foundations, "Complete Loss Decomposition"."""
    a = active[0] * lambdas[0] * balance[0]
    b = active[1] * lambdas[1] * balance[1]
    documents = (a, a * beta_A, b, b * beta_B, b * alpha_ent, b * alpha_rep, active[2] * lambdas[2])
    return torch.stack([*documents, a * rho, b * rho, a * diversity, b * diversity])


def balance_factors(norms: Tensor, power: Tensor | float = 1.0) -> Tensor:
    """(g_A, g_B) from the averaged gradient norms (of A, of B): their ratio B/A to a power, and its reciprocal.

    In [0.5, 2]: (2,). Power 1 is the document's, -1 the other way round, 1/2 equalises where the norms are raw.
    Equation: eq-balance. Source: Foundations, "Gradient Balance Scaling"."""
    factor = gradient_ratio(norms) ** power
    return torch.stack([factor, 1 / factor]).clamp(*BALANCE_RANGE)


def gradient_ratio(norms: Tensor) -> Tensor:
    """||grad_B|| / ||grad_A|| of averaged norms (2,), a scalar kept inside [1e-6, 1e6]; 1 where both are zero.
    Equation: eq-ratio. Source: Foundations, "Gradient Balance Scaling"."""
    ratio = (norms[1] / norms[0]).clamp(1e-6, 1e6)
    return torch.where((norms == 0).all(), torch.ones_like(ratio), ratio)


def is_balanced(ratio: Tensor) -> Tensor:
    """1 where 0.8 < ratio < 1.2, else 0: the gate of phase 3 and the switch of the moving average.
    Equation: eq-gate. Source: Foundations, "Phase 3: Resonant Coupling"."""
    return ((ratio > RATIO_BAND[0]) & (ratio < RATIO_BAND[1])).to(ratio.dtype)


def average_norms(average: Tensor, norms: Tensor, first: Tensor, alphas=ALPHAS) -> Tensor:
    """Exponential moving average of the two gradient norms: (2,) -> (2,); starts at the first observed norms.

    alpha is the second of `alphas` while balanced, else the first; numbers or scalars.
    Equation: eq-ema. Source: Foundations, "Gradient Balance Scaling"."""
    alpha = alphas[0] + (alphas[1] - alphas[0]) * is_balanced(gradient_ratio(average))
    return torch.where(first, norms, alpha * average + (1 - alpha) * norms)
