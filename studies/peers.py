"""VAEs of other libraries on the same data, as their users would train them: Pyro's inference, pythae's models.

pythae is in an environment of its own (`make peers`). What it trains is judged as ours: a trit's probabilities are its
decoder's three outputs over their sum. Chapter 11 reads the table."""

import importlib.util
import tempfile
from collections.abc import Callable, Iterator

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, TraceMeanField_ELBO
from torch import Tensor, nn

from studies.rates import COLUMNS, EFFORT
from studies.study import Case, Study, slug
from studies.variants import with_seeds
from tvae_lib.errors import UserError
from tvae_lib.measures.pair import Effort, Pathway, measured_alone
from tvae_lib.operations import all_operations, one_hot
from tvae_lib.rng import stream
from tvae_lib.system.losses import LEAST
from tvae_lib.system.vae import LATENT, VAE, DecoderB, Posterior

LR, WEIGHT_DECAY, BATCH, EPOCHS = 1e-3, 1e-4, 512, 400


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


class TheirEncoder(nn.Module):
    """An encoder of pythae's, one-hot trits in, as one of ours: trits (N, 9) as floats -> Posterior."""

    def __init__(self, theirs: nn.Module):
        super().__init__()
        self.theirs = theirs

    def forward(self, x: Tensor) -> Posterior:
        found = self.theirs(one_hot(x).flatten(1))
        return Posterior(found.embedding, found.log_covariance)


class TheirDecoder(nn.Module):
    """A decoder of pythae's, whose 27 outputs are in [0, 1], as one of ours: codes (N, d) -> logits (N, 9, 3)."""

    def __init__(self, theirs: nn.Module):
        super().__init__()
        self.theirs = theirs

    def forward(self, z: Tensor) -> Tensor:
        return self.theirs(z).reconstruction.unflatten(-1, (9, 3)).clamp_min(LEAST).log()


def by_pyro(seed: int, epochs: int) -> VAE:
    """VAE-B by Pyro's stochastic variational inference."""
    torch.manual_seed(seed)
    theirs = WithPyro()
    for _ in range(epochs):
        theirs.epoch(BATCH)
    return theirs.vae


def by_pythae(model: str, **weights: float) -> Callable[[int, int], VAE]:
    """A model of pythae with its own networks, binary cross-entropy and its own trainer."""

    def train(seed: int, epochs: int) -> VAE:
        if not importlib.util.find_spec("pythae"):
            raise UserError("pythae is not installed here; `make peers` has it in an environment of its own.")
        from pythae import models, pipelines, trainers

        torch.manual_seed(seed)
        sizes = {"input_dim": (27,), "latent_dim": LATENT, "reconstruction_loss": "bce"} | weights
        theirs = getattr(models, model)(getattr(models, f"{model}Config")(**sizes))
        with tempfile.TemporaryDirectory() as folder:
            given = trainers.BaseTrainerConfig(
                output_dir=folder, num_epochs=epochs, learning_rate=LR, per_device_train_batch_size=BATCH, seed=seed
            )
            pipelines.TrainingPipeline(training_config=given, model=theirs)(
                train_data=one_hot(all_operations()).flatten(1)
            )
        ours = VAE(TheirDecoder(theirs.decoder))
        ours.add_module("encoder", TheirEncoder(theirs.encoder))
        return ours.cpu()

    return train


PEERS: dict[str, Callable[[int, int], VAE]] = {
    "VAE-B by Pyro": by_pyro,
    "VAE by pythae": by_pythae("VAE"),
    "β-TC-VAE by pythae": by_pythae("BetaTCVAE", beta=2.0),
}


def peers(of=PEERS, seeds=range(1), epochs: int = EPOCHS, effort: Effort = EFFORT) -> Study:
    """Each peer after as many epochs as ours: peers.csv."""

    def make(cases: list[Case], device: str) -> Iterator[list[dict]]:
        for case in cases:
            vae = of[case["variant"]](case["seed"], epochs).eval()
            pathway = Pathway(vae, 1.0, stream(case["seed"], 0, "peers"), effort)
            size = sum(parameter.numel() for parameter in vae.parameters())
            yield [case | {"parameters": size} | measured_alone(pathway, COLUMNS)]

    return Study("peers", ("variant", "seed"), {slug(case): [case] for case in with_seeds(of, seeds)}, make)
