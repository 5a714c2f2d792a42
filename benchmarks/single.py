"""VAE-B alone, trained on its negative ELBO: by Pyro's stochastic variational inference, and by the library."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, TraceMeanField_ELBO
from torch import nn

from studies.single import SingleStep
from tvae_lib.operations import all_operations, one_hot
from tvae_lib.system.vae import LATENT, VAE, DecoderB
from tvae_lib.training import recording
from tvae_lib.training.config import make_config
from tvae_lib.training.threads import alone

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
    """The same by the library's step for a lone VAE, from a tape."""

    def __init__(self):
        self.step = SingleStep(VAE(DecoderB()), WEIGHT_DECAY)
        self.state = self.step.initial()
        self.controls = torch.tensor([1.0, 1.0, LR]).unbind()  # beta, tau, lr
        self.take = None

    @alone()
    def epoch(self, size: int) -> float:
        trits, indicators = batches(size)
        indicators = indicators.movedim(1, -1).contiguous().movedim(-1, 1)  # in memory, batch last
        noise, total = torch.randn(len(trits), size, LATENT), 0.0
        for x, y, epsilon in zip(trits, indicators, noise, strict=True):
            arguments = (self.state, (x, y), epsilon, *self.controls)
            self.take = self.take or recording.recorded(self.step, arguments, make_config().team)[0]
            self.state, loss = self.take(*arguments)
            total = total + loss
        return total.item() / len(trits)
