"""One VAE alone, trained on D + beta R: what a pair is compared with, and the chapters' small experiments."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from tvae_lib.system.losses import cross_entropy
from tvae_lib.system.vae import VAE, mean_kl
from tvae_lib.training import recording
from tvae_lib.training.config import Config
from tvae_lib.training.state import call, flatten, load, prescribe
from tvae_lib.training.threads import alone
from tvae_lib.training.trainer import RECORD_FROM, Trainer, descend


class SingleStep:
    """The training step of a lone VAE: `step(state, batch, noise, beta, tau, lr) -> (state, loss)`, tensors alone.

    The state is (parameters, two moments, count of steps, last update); `initial` makes it. Source: ours."""

    def __init__(self, vae: VAE, weight_decay: float):
        self.vae, self.weight_decay = vae, weight_decay

    def initial(self) -> tuple[Tensor, ...]:
        theta = flatten(self.vae)
        moment_1, moment_2, update = (torch.zeros_like(theta) for _ in range(3))
        return theta, moment_1, moment_2, torch.zeros((), dtype=torch.float64), update

    def terms(self, theta: Tensor, batch, noise: Tensor, tau) -> Tensor:
        """D and R of a batch, in nats: trits (N, 9), indicators (N, 9, 3), noise (N, d) -> (2,)."""
        trits, indicators = batch
        posterior, logits = call(self.vae, theta, trits, noise, tau)
        return torch.stack([cross_entropy(logits, indicators), mean_kl(posterior)])

    def loss(self, theta: Tensor, batch, noise: Tensor, beta, tau) -> Tensor:
        """D + beta R of a batch, in nats: as `terms`, scalar."""
        distortion, rate = self.terms(theta, batch, noise, tau)
        return distortion + beta * rate

    def __call__(self, state, batch, noise: Tensor, beta: Tensor, tau: Tensor, lr: Tensor):
        theta, *moments, count, before = state
        differentiable = theta.detach().requires_grad_()
        terms, weights = self.terms(differentiable, batch, noise, tau), torch.stack([torch.ones_like(beta), beta])
        (gradient,) = torch.autograd.grad(terms, differentiable, weights)
        theta, update, *moments, _, _ = descend(
            *(theta, gradient, before, *moments, count + 1, lr.view(1), [len(theta)], self.weight_decay)
        )
        return (theta, *moments, count + 1, update), torch.dot(weights, terms.detach())


def train_single(vae: VAE, config: Config) -> VAE:
    """A trained copy of the VAE: data order, noise, beta, tau and lr as the configuration has them for pathway A."""
    trainer = Trainer(config, "cpu")
    step = SingleStep(vae, config.weight_decay)
    state, take = step.initial(), cast(Callable, step)
    for epoch in range(config.total_epochs):
        controls = prescribe(config, epoch)
        scalars = torch.tensor([controls.beta_A, controls.tau_A, config.lr * controls.lr_factor]).unbind()
        with alone():
            for batch, noise in trainer.batches(epoch):
                example: tuple[Any, ...] = (state, batch, noise[0], *scalars)
                if take is step and config.total_epochs >= RECORD_FROM:
                    take, _ = recording.recorded(step, example, trainer.threads)
                state, _ = take(*example)
    return load(vae, state[0].clone())
