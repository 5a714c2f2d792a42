"""The repaired pair elsewhere: tables of other lengths, codes of other lengths, shorter and longer, other data.

Chapter 11 reads its table: where the system stops."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from studies.study import Case, Study, slug, train_together
from studies.variants import with_seeds
from tvae_lib.coverage import expected_coverage
from tvae_lib.measures.codes import information
from tvae_lib.measures.generation import generate
from tvae_lib.operations import TRITS, symmetries
from tvae_lib.rng import stream
from tvae_lib.system.dual import DualVAE
from tvae_lib.system.vae import VAE
from tvae_lib.training.config import make_config
from tvae_lib.training.state import trained

STEPS = 15_600  # of 400 epochs with every operation once
SAMPLES, FEWEST = 128, 2**20  # of the prior for each table that there is, and in all, behind what is measured
DRAWS = 2.54  # for each table, of coverage: those of 50,000 for the 19,683


def tables_of(trits: int) -> Tensor:
    """Every table of so many trits once, in the order of its index: (3^n, n) int8."""
    return (torch.cartesian_prod(*[torch.arange(3)] * trits) - 1).to(torch.int8)


def favoured(every: Tensor) -> Tensor:
    """The indices of all tables, a tenth of them ten times."""
    chosen = torch.randperm(len(every), generator=stream(0, 0, "favoured"))[: len(every) // 10]
    return torch.cat([torch.arange(len(every)), chosen.repeat(9)])


def orbits(every: Tensor) -> Tensor:
    """The indices of the operations that are the first of their orbit."""
    return symmetries().amin(0).unique()


DATA: dict[str, Callable[[Tensor], Tensor]] = {
    "all": lambda every: torch.arange(len(every)),
    "favoured": favoured,
    "orbits": orbits,
}
VARIANTS = {
    **{f"{n} trits": {"trits": n, "total_epochs": epochs} for n, epochs in ((3, 15_600), (5, 15_600), (7, 3120))},
    "9 trits": {},
    "11 trits": {"trits": 11, "total_epochs": 45},
    **{f"{n} trits, 400 epochs": {"trits": n} for n in (3, 5, 7)},
    **{f"latent {d}": {"latent": d} for d in (4, 8, 32)},
    **{f"{epochs} epochs": {"total_epochs": epochs} for epochs in (50, 100, 200, 800)},
    **{
        f"{data}, {preset}": {"preset": preset, "data": data, "total_epochs": epochs}
        for data, epochs in (("favoured", 211), ("orbits", 3900))
        for preset in ("repaired", "bare")
    },
}


def pair_of(trits: int) -> type[DualVAE]:
    """The pair for tables of so many trits."""

    class Pair(DualVAE):
        def __init__(self, latent: int, last_relu: bool):
            super().__init__(latent, last_relu, trits)

    return Pair


def is_back(vae: VAE, every: Tensor) -> Tensor:
    """Which tables (X, n) come back from the means of their codes by argmax: (X,) bool."""
    parts = [vae.decoder(vae.encoder(part.float()).mean).argmax(-1) - 1 == part for part in every.split(8192)]
    return torch.cat(parts).all(1)


@torch.no_grad()
def measured_of(vae: VAE, every: Tensor, chosen: Tensor, samples: int, generator) -> dict[str, float]:
    """What a pathway makes of every table (X, n), and of its data, the indices `chosen` of what it was trained on.

    Divergences in nats: from the uniform distribution to p, and from that of the data to p."""
    every, chosen = every.to(generator.device), chosen.to(generator.device)
    posterior = vae.encoder(every.float())
    marginal, _ = generate(vae.decoder, posterior.mean.shape[1], samples, 0, generator)
    back = is_back(vae, every).double()
    law = torch.bincount(chosen, minlength=len(every)).double() / len(chosen)
    at_most = torch.xlogy(law, law * len(every)).sum().item()  # KL of the data from uniform
    data = posterior._replace(mean=posterior.mean[chosen], log_variance=posterior.log_variance[chosen])
    return {
        "kl_uniform": marginal.kl_uniform(),
        "kl_uniform_error": marginal.kl_error,
        "kl_data": marginal.kl_uniform(chosen=chosen) + at_most,
        "data_from_uniform": at_most,
        "within": marginal.p[law > 0].sum().item(),
        "least": len(every) * marginal.p.min().item(),
        "coverage": expected_coverage(marginal.p, round(DRAWS * len(every))),
        "uniform_coverage": expected_coverage(torch.full_like(marginal.p, 1 / len(every)), round(DRAWS * len(every))),
        "exact": back.mean().item(),
        "exact_of_data": back[chosen].mean().item(),
        "information": information(data, 2048, generator)[0],
    }


def limits(variants=VARIANTS, seeds=range(1), samples=SAMPLES, **given) -> Study:
    """The repaired pair where tables, codes, training or data are others: limits.csv."""

    def rows(case: Case, device: str) -> list[dict]:
        change = {"preset": "repaired"} | variants[case["variant"]]
        trits, data = change.pop("trits", TRITS), change.pop("data", "all")
        config = make_config(**change | given, seed=case["seed"], device="cpu")
        every, pair = tables_of(trits), pair_of(trits)
        chosen, size = DATA[data](every), max(samples * len(every), FEWEST)
        stops = [config.total_epochs]
        ((_, state),) = train_together([config], device, stops, pair, data=every[chosen])
        model = trained(state, config, pair).cpu()
        found = [case | {"trits": trits, "data": data, "epochs": config.total_epochs}]
        for p, vae in (("A", model.A), ("B", model.B)):
            row = measured_of(vae, every, chosen, size, stream(config.seed, 0, f"limits {p}"))
            found[0] |= {f"{name}_{p}": value for name, value in row.items()}
        return found

    def make(cases: list[Case], device: str) -> Iterator[list[dict]]:
        yield from (rows(case, device) for case in cases)

    cases = with_seeds(variants, seeds)
    return Study("limits", ("variant", "seed"), {slug(case): [case] for case in cases}, make)
