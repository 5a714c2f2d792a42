"""What a step does beside its gradient: loss weights, AdamW with gradient norms, the record."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from tvae_lib.fused.arithmetic import arrays_of, compiled, f32, fits, parts, scalar_like
from tvae_lib.fused.program import Work, piece
from tvae_lib.system.losses import BALANCE_RANGE, RATIO_BAND, TERMS
from tvae_lib.training.state import RECORD, Controls
from tvae_lib.training.trainer import BETAS, EPSILON

CONTROLS = (
    *("balance", "train_A", "train_B", "alignment", "beta_A", "beta_B", "alpha_ent", "alpha_rep", "balance_power"),
    *("raw_norms", "ema", "ema_balanced", "rho", "diversity"),
)
PARAMETERS, BLOCK = 2**14, 1024  # of the model in a task; of them, what fits the first cache with its moments


@compiled()
def gradient_ratio(norms):
    """`losses.gradient_ratio`."""
    if norms[0] == 0 and norms[1] == 0:
        return 1.0
    return min(max(norms[1] / norms[0], 1e-6), 1e6)


@compiled()
def weigh_kernel(lambdas, norms, controls, weights, balance):
    """`trainer.weigh`; controls are those of `CONTROLS`, in that order."""
    ratio = gradient_ratio(norms) ** controls[8]
    for pathway in range(2):
        factor = ratio if pathway == 0 else 1 / ratio
        balance[pathway] = min(max(factor, BALANCE_RANGE[0]), BALANCE_RANGE[1]) if controls[0] > 0 else f32(1)
    a, b = controls[1] * lambdas[0] * balance[0], controls[2] * lambdas[1] * balance[1]
    weights[0], weights[1] = a, a * controls[4]
    weights[2], weights[3], weights[4], weights[5] = b, b * controls[5], b * controls[6], b * controls[7]
    weights[6] = controls[3] * lambdas[2]
    weights[7], weights[8] = a * controls[12], b * controls[12]
    weights[9], weights[10] = a * controls[13], b * controls[13]


@compiled()
def account_kernel(weights, terms, entropy_A, entropy_B, balance, norms, product, average, step, controls, record, new):
    """`trainer.account`; controls as for `weigh_kernel`."""
    loss_A = terms[0] + controls[4] * terms[1] + controls[12] * terms[7] + controls[13] * terms[9]
    loss_B = terms[2] + controls[5] * terms[3] + controls[6] * terms[4] + controls[7] * terms[5]
    loss_B += controls[12] * terms[8] + controls[13] * terms[10]
    record[0], record[1], record[2] = (weights * terms).sum(), loss_A, loss_B
    record[3], record[4] = controls[1] * balance[0] * loss_A, controls[2] * balance[1] * loss_B
    record[5:16] = terms
    record[16], record[17], record[22] = entropy_A[0], entropy_B[0], -product[0]
    record[18:20] = balance
    record[20:22] = norms
    alpha = controls[11] if RATIO_BAND[0] < gradient_ratio(average) < RATIO_BAND[1] else controls[10]
    for pathway in range(2):
        scale, observed = weights[2 * pathway], norms[pathway]
        if controls[9] > 0 and scale > 0:
            observed /= scale
        new[pathway] = observed if step[0] == 0 else alpha * average[pathway] + (1 - alpha) * observed


@compiled()
def descend_block(theta, gradient, update, moment_1, moment_2, betas, scale, shift, decay, lr):
    """AdamW in place on parameters that fit the nearest cache, in loops simple enough for vector instructions."""
    square, product, count = f32(0), f32(0), theta.size
    for i in range(count):
        square += gradient[i] * gradient[i]
    for i in range(count):
        product += gradient[i] * update[i]
    for i in range(count):
        moment_1[i] = gradient[i] + betas[0] * (moment_1[i] - gradient[i])
    for i in range(count):
        g = gradient[i] * gradient[i]
        moment_2[i] = g + betas[1] * (moment_2[i] - g)
    for i in range(count):
        update[i] = moment_1[i] * scale / (np.sqrt(moment_2[i]) + shift) + decay * theta[i]
    for i in range(count):
        theta[i] -= lr * update[i]
    return square, product


@compiled()
def descend_kernel(by_parts, changed, betas, step, lr, weight_decay, epsilon, sums, part, low, high):
    """AdamW in place on parameters [low, high) of `changed` = (theta, update, both moments); lr and step arrays of one.

    Their gradient is the sum of the rows of `by_parts`. sums[part] receives what they add to ||gradient||^2 and to
    <gradient, update of the step before>."""
    scale_1, scale_2 = 1 / (1 - betas[0] ** step[0]), 1 / (1 - betas[1] ** step[0])
    scale, shift = f32(scale_1 / np.sqrt(scale_2)), f32(epsilon / np.sqrt(scale_2))
    narrow, decay = (f32(betas[0]), f32(betas[1])), f32(weight_decay)
    theta, update, moment_1, moment_2 = changed
    square, product, gradient = 0.0, 0.0, np.empty(BLOCK, f32)
    for a in range(low, high, BLOCK):
        b = min(a + BLOCK, high)
        own = gradient[: b - a]
        own[:] = by_parts[0, a:b]
        for row in range(1, len(by_parts)):
            own += by_parts[row, a:b]
        more = descend_block(
            theta[a:b], own, update[a:b], moment_1[a:b], moment_2[a:b], narrow, scale, shift, decay, lr[0]
        )
        square += more[0]
        product += more[1]
    sums[part, 0], sums[part, 1] = square, product


@compiled()
def norms_and_product(sums, pathways, norms, product):
    """Gradient norms of the pathways, and <gradient, before>, from the parts' `sums`; pathways[part] is its pathway."""
    product[0] = sums[:, 1].sum()
    for pathway in range(len(norms)):
        norms[pathway] = np.sqrt(sums[pathways == pathway, 0].sum())


def _controls(c: Controls) -> Tensor:
    return torch.stack([getattr(c, name) for name in CONTROLS])


@piece("(Tensor lambdas, Tensor norms, Tensor controls)", small=True)
def weigh(lambdas, norms, controls) -> Work:
    weights, balance = lambdas.new_empty(len(TERMS)), lambdas.new_empty(2)
    return Work([weights, balance], [(weigh_kernel, arrays_of(lambdas, norms, controls, weights, balance))])


def weigh_twin(lambdas, norms, controls):
    return tuple(weigh(lambdas, norms, _controls(controls))) if fits(lambdas, norms) else NotImplemented


@piece(
    "(Tensor weights, Tensor terms, Tensor entropy_A, Tensor entropy_B, Tensor balance, Tensor norms, Tensor product,"
    " Tensor average, Tensor step, Tensor controls)",
    small=True,
)
def account(*given) -> Work:
    record, new = given[1].new_empty(len(RECORD)), given[1].new_empty(2)
    return Work([record, new], [(account_kernel, arrays_of(*given, record, new))])


def account_twin(weights, terms, entropies, *others):
    *others, controls = others
    if not fits(weights, terms):
        return NotImplemented
    return tuple(account(weights, terms, *entropies, *others, _controls(controls)))


@piece(
    "(Tensor theta, Tensor before, Tensor moment_1, Tensor moment_2, Tensor[] by_parts, Tensor step, Tensor lrs,"
    " int[] sizes, float weight_decay)",
    overwrites=(0, 1, 2, 3),
)
def descend(theta, before, moment_1, moment_2, by_parts, step, lrs, sizes, weight_decay) -> Work:
    """The gradient of consecutive parameters is the sum of the rows of each of `by_parts`."""
    changed, ends = [theta, before, moment_1, moment_2], np.cumsum([rows.shape[1] for rows in by_parts])
    pathways = np.cumsum(sizes)
    divided, begin = [], 0
    for end in sorted({*ends.tolist(), *pathways.tolist()}):  # parameters of one pathway in one of `by_parts`
        i, pathway = (int(np.searchsorted(of, end)) for of in (ends, pathways))
        rows = by_parts[i][:, begin - ends[i] + by_parts[i].shape[1] :]
        own = arrays_of(rows)[0], arrays_of(*(tensor[begin:end] for tensor in changed))
        divided += [(pathway, own, part) for part in parts(end - begin, PARAMETERS)]
        begin = end
    sums, of_part = np.empty((len(divided), 2)), np.array([pathway for pathway, *_ in divided])
    norms, (product, place), (rates, count) = theta.new_empty(len(sizes)), scalar_like(theta), arrays_of(lrs, step)
    tasks = []
    for i, (pathway, own, part) in enumerate(divided):
        settings = BETAS, count, rates[pathway : pathway + 1], weight_decay, EPSILON
        tasks.append((descend_kernel, (*own, *settings, sums, i, *part)))
    finish = partial(norms_and_product, sums, of_part, norms.numpy(), place)
    return Work([*changed, norms, product], tasks, finish)


def descend_twin(theta, gradient, before, moment_1, moment_2, step, lrs, sizes, weight_decay):
    if not fits(theta, gradient):
        return NotImplemented
    by_parts = [gradient.unsqueeze(0)]
    return tuple(descend(theta, before, moment_1, moment_2, by_parts, step, lrs, list(sizes), weight_decay))
