"""What is measured of a pathway and of a pair of them, written once and asked for by columns.

`measured_alone(pathway, columns)` and `measured(pair, columns)` are rows of tables; `OF_ONE` and `OF_BOTH` list the
columns. Entropies and divergences are in nats, shares are fractions of the M operations."""

from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from tvae_lib.coverage import expected_coverage, is_held, measured_coverage, pair_coverage
from tvae_lib.measures import codes
from tvae_lib.measures.generation import Draws, Marginal, generate, half_each
from tvae_lib.measures.reconstruction import distortion, is_exact
from tvae_lib.operations import all_operations
from tvae_lib.rng import stream
from tvae_lib.system.dual import DualVAE, cross_inject
from tvae_lib.system.vae import VAE, Posterior, kl_to_prior, tempered

DRAWS = (50_000, 195_000)  # at which coverage is measured


class Effort(NamedTuple):
    """Samples behind the measures: of the prior; of codes, for information; of each operation's codes, for the rest.

    `draws` is how many operations are drawn for what is measured of coverage."""

    prior: int
    information: int = 2048
    codes: int = 64
    draws: int = 1


class Pathway:
    """A VAE that samples at temperature `tau`: each quantity is measured once, when it is first asked for.

    Its random numbers come from one generator, in the order of asking. The `partner` is what injects codes at `rho`."""

    def __init__(self, vae: VAE, tau: float, generator: torch.Generator, effort: Effort):
        self.vae, self.tau, self.generator, self.effort = vae, tau, generator, effort
        self.partner, self.rho = self, 0.0

    @cached_property
    def posterior(self) -> Posterior:
        """The encoder's posterior of every operation, (M, d)."""
        with torch.no_grad():
            return self.vae.encoder(all_operations().float().to(self.generator.device))

    @cached_property
    def used(self) -> Posterior:
        """The posterior that its own codes are drawn from, at its temperature."""
        return tempered(self.posterior, self.tau)

    @cached_property
    def generated(self) -> tuple[Marginal, Draws]:
        latent = self.posterior.mean.shape[1]
        return generate(self.vae.decoder, latent, self.effort.prior, self.effort.draws, self.generator)

    @property
    def marginal(self) -> Marginal:
        return self.generated[0]

    def coverage(self, reading: str, draws: int) -> float:
        """Measured coverage, once, under a reading of a trit: a field of `Draws`."""
        return measured_coverage(getattr(self.generated[1], reading), (draws,))[draws]

    @cached_property
    def information(self) -> tuple[float, float]:
        return codes.information(self.used, self.effort.information, self.generator)

    @cached_property
    def distortion(self) -> tuple[float, float]:
        return distortion(self.vae.decoder, self.used, self.effort.codes, self.generator)

    @cached_property
    def held(self) -> Tensor:
        """Which operations the decoder holds, (M,) bool."""
        return is_held(self.marginal.p)

    @cached_property
    def exact(self) -> Tensor:
        """Which operations come back exactly from its own means, (M,) bool."""
        return is_exact(self.vae.decoder, self.posterior.mean)


class Pair:
    """Both pathways of a model at the settings of an epoch, and a stream for each and for what is theirs together."""

    def __init__(self, model: DualVAE, settings: dict[str, float], streams: tuple[int, int, str], effort: Effort):
        """`settings` has rho, tau_A, tau_B; `streams` are those of (seed, epoch, name of the study)."""
        seed, epoch, name = streams
        self.A, self.B = (
            Pathway(vae, settings[f"tau_{p}"], stream(seed, epoch, f"{name} {p}"), effort)
            for p, vae in (("A", model.A), ("B", model.B))
        )
        for one, other in ((self.A, self.B), (self.B, self.A)):
            one.partner, one.rho = other, settings["rho"]
        self.each = {"A": self.A, "B": self.B}
        self.generator = stream(seed, epoch, f"{name} joint")

    @cached_property
    def joint(self) -> tuple[float, float]:
        """I(x; (z_A, z_B)) of the own codes, and its standard error."""
        both = codes.joint(self.A.used, self.B.used)
        return codes.information(both, self.A.effort.information, self.generator)

    def coverage(self, reading: str, draws: int) -> dict[str, float]:
        """Measured coverage of both together, once, under a reading of a trit: `half` of the draws each, `union`."""
        of_A, of_B = (getattr(one.generated[1], reading) for one in (self.A, self.B))
        return {name: found[draws] for name, found in pair_coverage(of_A, of_B, (draws,)).items()}


def share(mask: Tensor) -> float:
    """The fraction of the operations for which a mask (M,) is true."""
    return mask.double().mean().item()


OF_ONE: dict[str, Callable[[Pathway], float]] = {
    "kl_uniform": lambda one: one.marginal.kl_uniform(),
    "kl_uniform_error": lambda one: one.marginal.kl_error,
    "min_log_p": lambda one: one.marginal.log_p().min().item(),
    "rarest_log_p": lambda one: one.marginal.log_p().quantile(0.01).item(),  # of the rarest 1 %, the greatest
    "coverage_50000": lambda one: expected_coverage(one.marginal.p, 50_000),
    "coverage_195000": lambda one: expected_coverage(one.marginal.p, 195_000),
    **{
        f"{reading}_{n}": partial(Pathway.coverage, reading=reading, draws=n)
        for reading in Draws._fields
        for n in DRAWS
    },
    "complete": lambda one: one.marginal.full_coverage(195_000),
    "has": lambda one: share(one.held),
    "exact": lambda one: share(one.exact),
    "exact_injected": lambda one: share(
        is_exact(one.vae.decoder, cross_inject(one.posterior.mean, one.partner.posterior.mean, one.rho))
    ),
    "exact_of_partner": lambda one: share(is_exact(one.vae.decoder, one.partner.posterior.mean)),
    "charged": lambda one: kl_to_prior(one.posterior).double().mean().item(),  # the rate of the loss
    "rate": lambda one: kl_to_prior(one.used).double().mean().item(),  # the honest one
    "information": lambda one: one.information[0],
    "information_error": lambda one: one.information[1],
    "distortion": lambda one: one.distortion[0],
    "distortion_error": lambda one: one.distortion[1],
    "active": lambda one: codes.active_units(one.posterior),
}


def _of_pair(pair: Pair, reading: str, draws: int, how: str) -> float:
    return pair.coverage(reading, draws)[how]


OF_BOTH: dict[str, Callable[[Pair], float]] = {
    "kl_half": lambda pair: half_each(pair.A.marginal, pair.B.marginal).kl_uniform(),
    "has_both": lambda pair: share(pair.A.held & pair.B.held),
    "exact_both": lambda pair: share(pair.A.exact & pair.B.exact),
    "cka": lambda pair: codes.cka(pair.A.posterior.mean, pair.B.posterior.mean),
    "joint": lambda pair: pair.joint[0],
    "joint_error": lambda pair: pair.joint[1],
    **{
        f"{reading}_{how}_{n}": partial(_of_pair, reading=reading, draws=n, how=how)
        for reading in Draws._fields
        for how in ("half", "union")
        for n in DRAWS
    },
}


def measured_alone(pathway: Pathway, columns: Iterable[str]) -> dict[str, float]:
    """The columns, of `OF_ONE`, as a row."""
    return {column: OF_ONE[column](pathway) for column in columns}


def measured(pair: Pair, columns: Iterable[str]) -> dict[str, float]:
    """The columns as a row: those of `OF_ONE` for A and for B, `kl_uniform_A` and so on, then those of `OF_BOTH`."""
    columns = list(columns)
    of_one = [column for column in columns if column in OF_ONE]
    each = {p: measured_alone(one, of_one) for p, one in pair.each.items()}
    row = {f"{column}_{p}": value for p, values in each.items() for column, value in values.items()}
    return row | {column: OF_BOTH[column](pair) for column in columns if column not in OF_ONE}
