"""VAE-B alone, trained on its negative ELBO by the library: what Pyro's inference is timed against."""

import torch

from studies.peers import LR, WEIGHT_DECAY, batches
from studies.single import SingleStep
from tvae_lib.system.vae import LATENT, VAE, DecoderB
from tvae_lib.training import recording
from tvae_lib.training.config import make_config
from tvae_lib.training.threads import alone


class WithLibrary:
    """`epoch(size)` returns the mean loss a sample, in nats, as `peers.WithPyro`: the library's step, from a tape."""

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
