"""VAE-B alone, trained on its negative ELBO: by Pyro's stochastic variational inference, and by the library."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, TraceMeanField_ELBO
from torch import nn
from torch.func import functional_call

from tvae_lib import replay
from tvae_lib.losses import cross_entropy
from tvae_lib.operations import all_operations, one_hot
from tvae_lib.training import adamw_update, flatten, unflatten
from tvae_lib.vae import LATENT, VAE, DecoderB, kl_to_prior

LR, WEIGHT_DECAY = 1e-3, 1e-4


def batches(size: int):
    """Trits (S, N, 9) and indicators (S, N, 9, 3) of an epoch, whole batches."""
    order = torch.randperm(3**9)[: 3**9 // size * size].view(-1, size)
    operations = all_operations()[order]
    return operations.float(), one_hot(operations)


class WithPyro(nn.Module):
    """`epoch(size)` returns the mean loss a sample, in nats. Model and guide as in Pyro's VAE tutorial, no checks."""

    def __init__(self):
        super().__init__()
        pyro.clear_param_store()
        pyro.enable_validation(False)
        self.vae = VAE(DecoderB())
        optimiser = pyro.optim.AdamW({"lr": LR, "weight_decay": WEIGHT_DECAY})
        self.svi = SVI(self.model, self.guide, optimiser, loss=TraceMeanField_ELBO())

    def model(self, trits, indicators):
        pyro.module("decoder", self.vae.decoder)
        with pyro.plate("data", len(trits)):
            z = pyro.sample("z", dist.Normal(trits.new_zeros(len(trits), LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.OneHotCategorical(logits=self.vae.decoder(z)).to_event(1), obs=indicators)

    def guide(self, trits, indicators):
        pyro.module("encoder", self.vae.encoder)
        with pyro.plate("data", len(trits)):
            mean, log_variance = self.vae.encoder(trits)
            pyro.sample("z", dist.Normal(mean, torch.exp(0.5 * log_variance)).to_event(1))

    def epoch(self, size: int) -> float:
        data = list(zip(*batches(size), strict=True))
        return sum(self.svi.step(trits, indicators) for trits, indicators in data) / (len(data) * size)


class WithLibrary:
    """The same by the library's pieces: flat parameters, its AdamW, the step from a tape."""

    def __init__(self):
        self.vae = VAE(DecoderB())
        theta = flatten(self.vae)
        self.state = [theta, torch.zeros_like(theta), torch.zeros_like(theta), torch.zeros((), dtype=torch.float64)]
        self.take = None

    def loss(self, theta, trits, indicators, noise):
        posterior, logits = functional_call(self.vae, unflatten(theta, self.vae), (trits, noise))
        return cross_entropy(logits, indicators) + kl_to_prior(posterior).mean()

    def step(self, state, trits, indicators, noise):
        theta, moment_1, moment_2, count = state
        varied = theta.detach().requires_grad_()
        loss = self.loss(varied, trits, indicators, noise)
        (gradient,) = torch.autograd.grad(loss, varied)
        update, *moments = adamw_update(theta, gradient, moment_1, moment_2, count + 1, WEIGHT_DECAY)
        return [theta - LR * update, *moments, count + 1], loss.detach()

    def epoch(self, size: int) -> float:
        trits, indicators = batches(size)
        indicators = indicators.movedim(1, -1).contiguous().movedim(-1, 1)  # in memory, batch last
        noise, total = torch.randn(len(trits), size, LATENT), 0.0
        for batch in zip(trits, indicators, noise, strict=True):
            self.take = self.take or replay.record(self.step, (self.state, *batch))
            self.state, loss = self.take(self.state, *batch)
            total = total + loss
        return total.item() / len(trits)
