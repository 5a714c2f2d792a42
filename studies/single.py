"""One VAE alone, trained on D + beta R: what a pair is compared with, and the chapters' small experiments."""

import torch
from torch import Tensor
from torch.func import functional_call

from tvae_lib.system.losses import cross_entropy
from tvae_lib.system.vae import VAE, kl_to_prior
from tvae_lib.training import recording
from tvae_lib.training.config import Config
from tvae_lib.training.state import flatten, load, prescribe, unflatten
from tvae_lib.training.trainer import Trainer, adamw_update


class SingleStep:
    """The training step of a lone VAE: `step(state, batch, noise, beta, tau, lr) -> (state, loss)`, tensors alone.

    The state is (parameters, two moments, count of steps); `initial` makes it. Source: ours."""

    def __init__(self, vae: VAE, weight_decay: float):
        self.vae, self.weight_decay = vae, weight_decay

    def initial(self) -> tuple[Tensor, ...]:
        theta = flatten(self.vae)
        return theta, torch.zeros_like(theta), torch.zeros_like(theta), torch.zeros((), dtype=torch.float64)

    def loss(self, theta: Tensor, batch, noise: Tensor, beta, tau) -> Tensor:
        """D + beta R of a batch, in nats: trits (N, 9), indicators (N, 9, 3), noise (N, d) -> scalar."""
        trits, indicators = batch
        posterior, logits = functional_call(self.vae, unflatten(theta, self.vae), (trits, noise, tau))
        return cross_entropy(logits, indicators) + beta * kl_to_prior(posterior).mean()

    def __call__(self, state, batch, noise: Tensor, beta: Tensor, tau: Tensor, lr: Tensor):
        theta = state[0].detach().requires_grad_()
        loss = self.loss(theta, batch, noise, beta, tau)
        (gradient,) = torch.autograd.grad(loss, theta)
        theta, count = theta.detach(), state[3] + 1
        update, *moments = adamw_update(theta, gradient, state[1], state[2], count, self.weight_decay)
        return (theta - lr * update, *moments, count), loss.detach()


def train_single(vae: VAE, config: Config) -> VAE:
    """A trained copy of the VAE: data order, noise, beta, tau and lr as the configuration has them for pathway A."""
    trainer = Trainer(config, "cpu")
    step = SingleStep(vae, config.weight_decay)
    state, take = step.initial(), None
    for epoch in range(config.total_epochs):
        controls = prescribe(config, epoch)
        scalars = torch.tensor([controls.beta_A, controls.tau_A, config.lr * controls.lr_factor]).unbind()
        for batch, noise in trainer.batches(epoch):
            take = take or recording.record(step, (state, batch, noise[0], *scalars))
            state, _ = take(state, batch, noise[0], *scalars)
    return load(vae, state[0].clone())
