"""Codes: how they are sampled, what they cost, and how those of the partner are mixed in."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from tvae_lib.fused.arithmetic import ROWS, bounded, compiled, exponential, f32, fits, parts, scalar_like, total
from tvae_lib.fused.program import Work, piece
from tvae_lib.fused.terms import Given
from tvae_lib.system.vae import Posterior


@compiled()
def sample_kernel(mean, log_variance, noise, tau, z, low, high):
    """z = mean + tau sigma noise, rows [low, high)."""
    for n in range(low, high):
        for c in range(z.shape[1]):
            z[n, c] = mean[n, c] + tau[0] * exponential(f32(0.5) * bounded(log_variance[n, c])) * noise[n, c]


@compiled()
def sample_backward_kernel(by_z, z, mean, by_log_variance, low, high):
    """The gradient of `sample_kernel` by the log variance; that by the mean is that by z."""
    for n in range(low, high):
        for c in range(z.shape[1]):
            by_log_variance[n, c] = by_z[n, c] * (z[n, c] - mean[n, c]) * f32(0.5)


@compiled()
def kl_to_prior_kernel(mean, log_variance, by_mean, by_log_variance, values, part, low, high):
    """values[part] = the sum of KL(q(z|x) || N(0, I)) over rows [low, high); the gradients are those of the mean."""
    share, sum = f32(1 / len(mean)), 0.0
    for n in range(low, high):
        row = f32(0)
        for c in range(mean.shape[1]):
            m, s = mean[n, c], log_variance[n, c]
            variance = exponential(bounded(s))
            row += m * m + variance - s - f32(1)
            by_mean[n, c] = m * share
            by_log_variance[n, c] = (variance - f32(1)) * (f32(0.5) * share)
        sum += row
    values[part] = 0.5 * sum


@compiled()
def inject_kernel(own, other, rho, out, low, high):
    """out = (1 - rho) own + rho other, rows [low, high)."""
    for n in range(low, high):
        for c in range(own.shape[1]):
            out[n, c] = (f32(1) - rho[0]) * own[n, c] + rho[0] * other[n, c]


@piece("(Tensor mean, Tensor log_variance, Tensor noise, Tensor tau)", small=True)
def sample(mean, log_variance, noise, tau) -> Work:
    z = torch.empty_like(mean)
    given = mean.numpy(), log_variance.numpy(), noise.numpy(), tau.view(1).numpy(), z.numpy()
    return Work([z], [(sample_kernel, (*given, *part)) for part in parts(len(z), ROWS)])


@piece("(Tensor by_z, Tensor z, Tensor mean)", small=True)
def sample_backward(by_z, z, mean) -> Work:
    by_log_variance = torch.empty_like(z)
    given = by_z.numpy(), z.numpy(), mean.numpy(), by_log_variance.numpy()
    return Work([by_log_variance], [(sample_backward_kernel, (*given, *part)) for part in parts(len(z), ROWS)])


class Sampling(torch.autograd.Function):
    @staticmethod
    def forward(ctx, mean: Tensor, log_variance: Tensor, noise: Tensor, tau: Tensor):
        (z,) = sample(mean, log_variance, noise, tau)
        ctx.save_for_backward(z, mean)
        return z

    @staticmethod
    def backward(ctx, by_z: Tensor):
        return by_z, *sample_backward(by_z.contiguous(), *ctx.saved_tensors), None, None


@piece("(Tensor mean, Tensor log_variance)", small=True)
def kl_to_prior(mean, log_variance) -> Work:
    divided, by_mean, by_log_variance = parts(len(mean), ROWS), torch.empty_like(mean), torch.empty_like(mean)
    values, (value, place) = np.empty(len(divided), np.float32), scalar_like(mean)
    given = mean.numpy(), log_variance.numpy(), by_mean.numpy(), by_log_variance.numpy(), values
    tasks = [(kl_to_prior_kernel, (*given, i, *part)) for i, part in enumerate(divided)]
    finish = partial(total, values, np.float32(1 / len(mean)), np.float32(0), place)
    return Work([value, by_mean, by_log_variance], tasks, finish)


@piece("(Tensor own, Tensor other, Tensor rho)", small=True)
def inject(own, other, rho) -> Work:
    out = torch.empty_like(own)
    given = own.numpy(), other.numpy(), rho.view(1).numpy(), out.numpy()
    return Work([out], [(inject_kernel, (*given, *part)) for part in parts(len(own), ROWS)])


class Injection(torch.autograd.Function):
    @staticmethod
    def forward(ctx, own: Tensor, other: Tensor, rho: Tensor):
        ctx.save_for_backward(rho)
        return inject(own, other, rho)[0]

    @staticmethod
    def backward(ctx, by_out: Tensor):
        return by_out * (1 - ctx.saved_tensors[0]), None, None


def mean_kl(posterior: Posterior):
    return Given.apply(kl_to_prior, *posterior) if fits(*posterior) else NotImplemented


def reparameterise(posterior: Posterior, noise, tau=1.0):
    return Sampling.apply(*posterior, noise.contiguous(), tau) if fits(*posterior, noise, tau) else NotImplemented


def cross_inject(own: Tensor, other: Tensor, rho):
    return Injection.apply(own, other.detach(), rho) if fits(own, other, rho) else NotImplemented
