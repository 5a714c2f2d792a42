"""Chapter 4's trainings: pairs under other couplings, on both sides of the boundary, and what the game predicts."""

import pandas as pd
import torch
from torch import Tensor

from tvae_lib import ensemble, evaluation, schedules
from tvae_lib.config import Config, make_config
from tvae_lib.coupling import critical_beta, equilibrium
from tvae_lib.dual import DualVAE, cross_inject, injected
from tvae_lib.losses import cross_entropy
from tvae_lib.operations import all_operations, one_hot
from tvae_lib.streams import stream
from tvae_lib.tables import Table
from tvae_lib.training import HISTORY, load, prescribe, untrained
from tvae_lib.vae import Posterior, kl_to_prior, reparameterise, tempered

SEEDS = range(3)
SMALL_SEEDS = range(2)
SAMPLES = 2**18


class SharedGradients(DualVAE):
    """A pair whose injection lets gradients through into the partner's encoder."""

    def couple(self, posterior_A, posterior_B, z_A, z_B, rho):
        return (1 - rho) * z_A + rho * z_B, (1 - rho) * z_B + rho * z_A


class PartnersMean(DualVAE):
    """A pair that injects the partner's posterior mean, without its noise."""

    def couple(self, posterior_A, posterior_B, z_A, z_B, rho):
        return cross_inject(z_A, posterior_B.mean, rho), cross_inject(z_B, posterior_A.mean, rho)


class ForeignCode(DualVAE):
    """A pair that injects the partner's code of another operation of the batch: of the same law, and uninformative."""

    def couple(self, posterior_A, posterior_B, z_A, z_B, rho):
        return cross_inject(z_A, z_B.roll(1, 0), rho), cross_inject(z_B, z_A.roll(1, 0), rho)


COUPLINGS = {  # of the preset `document` without its alignment: the class of the pair, and what else is changed
    "injection": (DualVAE, {}),
    "no coupling": (DualVAE, {"cross_injection": False}),
    "foreign code": (ForeignCode, {}),
    "partner's mean": (PartnersMean, {}),
    "shared gradients": (SharedGradients, {}),
}
COUPLING_STOPS = (40, 120, 150, 200, 250, 300, 350, 400)


def coupling() -> None:
    """The preset `document` without alignment, under other couplings, and who carries what: coupling.csv."""
    table = Table("coupling", ("variant", "seed", "epoch"))
    for variant, (pair, changes) in COUPLINGS.items():
        keys = [{"variant": variant, "seed": seed} for seed in SEEDS]
        keys = [key for key in keys if not table.has(**key, epoch=max(COUPLING_STOPS))]
        configs = [make_config(alignment=False, **changes, seed=key["seed"], device="cpu") for key in keys]
        collected = {place: [] for place in range(len(keys))}
        for place, state in ensemble.progress(configs, "cpu", COUPLING_STOPS, pair):
            model = pair(configs[place].latent)
            row = judge_coupling(load(model, state["theta"]), configs[place], state)
            collected[place].append(keys[place] | row)
            if len(collected[place]) == len(COUPLING_STOPS):
                table.add(collected[place])


def readings(model: DualVAE, posteriors: dict[str, Posterior], noise: dict[str, Tensor], rho: float, taus) -> dict:
    """The codes that decoders A and B may be given, {reading: (z of A, z of B)}; one sample for each operation.

    trained: as in training. foreign: the partner's code is that of another operation. others: the own code is.
    silent: the partner's part is zero. alone: the own code, not scaled.
    """
    z_A, z_B = (reparameterise(posteriors[p], noise[p], taus[p]) for p in "AB")
    foreign_A, foreign_B = (z.roll(len(z) // 2, 0) for z in (z_A, z_B))
    return {
        "trained": model.couple(posteriors["A"], posteriors["B"], z_A, z_B, rho),
        "foreign": (cross_inject(z_A, foreign_B, rho), cross_inject(z_B, foreign_A, rho)),
        "others": (cross_inject(foreign_A, z_B, rho), cross_inject(foreign_B, z_A, rho)),
        "silent": ((1 - rho) * z_A, (1 - rho) * z_B),
        "alone": (z_A, z_B),
    }


@torch.no_grad()
def judge_coupling(model: DualVAE, config: Config, state) -> dict[str, float]:
    """What each code says, and what each decoder makes of the codes of `readings`: information and distortion, nats.

    `joint` is I(x; (z_A, z_B)), and I(z_A; z_B) what the two informations exceed it by. Codes are sampled at the
    temperatures of the last epoch.
    """
    epoch = int(state["epoch"])
    last = dict(zip(HISTORY, state["history"][epoch - 1].tolist(), strict=True))
    trits, indicators = all_operations().float(), one_hot(all_operations())
    row, posteriors, noise = {"epoch": epoch}, {}, {}
    for pathway, vae in (("A", model.A), ("B", model.B)):
        generator = stream(config.seed, epoch, f"coupling {pathway}")
        posterior = posteriors[pathway] = vae.encoder(trits)
        noise[pathway] = torch.randn(posterior.mean.shape, generator=generator)
        used = tempered(posterior, last[f"tau_{pathway}"])
        row[f"information_{pathway}"], row[f"information_error_{pathway}"] = information(used, generator)
        knows = vae.decoder(posterior.mean).argmax(-1) - 1 == trits
        row[f"knows_{pathway}"] = knows.all(-1).double().mean().item()
        marginal, _ = evaluation.generate(vae.decoder, config.latent, SAMPLES, 1, generator)
        row[f"kl_uniform_{pathway}"] = marginal.kl_uniform()
        row |= {name: last[name] for name in (f"ce_{pathway}", f"kl_{pathway}", f"tau_{pathway}")}
    both = [tempered(posteriors[p], last[f"tau_{p}"]) for p in "AB"]
    joint = Posterior(*(torch.cat(parts, 1) for parts in zip(*both, strict=True)))
    row["joint"], row["joint_error"] = information(joint, stream(config.seed, epoch, "coupling joint"))
    taus = {p: last[f"tau_{p}"] for p in "AB"}
    for name, codes in readings(model, posteriors, noise, last["rho"], taus).items():
        for pathway, vae, z in (("A", model.A, codes[0]), ("B", model.B, codes[1])):
            row[f"{name}_{pathway}"] = cross_entropy(vae.decoder(z), indicators).item()
    return row | {"rho": last["rho"], "norm_A": last["norm_A"], "norm_B": last["norm_B"]}


def information(posterior: Posterior, generator) -> tuple[float, float]:
    return evaluation.information(posterior, 2048, generator)


SETTINGS = (  # rho, tau of both, beta of B over that of A
    (0.0, 1.0, 1.0), (0.0, 0.5, 1.0), (0.3, 1.0, 1.0), (0.5, 1.0, 1.0), (0.7, 1.0, 1.0), (0.7, 0.5, 1.0),
    (0.3, 1.0, 3.0), (0.5, 0.5, 0.25), (0.7, 1.0, 4.0),
)  # fmt: skip
FACTORS = (0.5, 0.75, 1.25, 1.5)  # of the beta at which collapse is predicted to turn stable
SMALL = (40, 512)  # epochs and batch size
PATIENT = (320, 4096)  # as many steps, with less noise
LATE = ((0.7, 0.5, 1.0), (0.7, 1.0, 1.0))  # settings that wait longer, at the second factor


def stability() -> None:
    """Coupled pairs trained from their initial weights on both sides of the predicted boundary: stability.csv."""
    keys = ("rho", "tau", "beta_ratio", "factor", "epochs", "batch_size", "seed")
    table = Table("stability", keys)
    kinds = [(*setting, factor, *SMALL) for setting in SETTINGS for factor in FACTORS]
    for chosen in (kinds, [(*setting, FACTORS[1], *PATIENT) for setting in LATE]):
        wanted = [dict(zip(keys, (*kind, seed), strict=True)) for kind in chosen for seed in SMALL_SEEDS]
        wanted = [key for key in wanted if not table.has(**key)]
        configs = [coupled(**key) for key in wanted]
        for place, state in ensemble.finished(configs, "cpu"):
            config, key = configs[place], wanted[place]
            model = load(untrained(config)[0], state["theta"])
            table.add([key | {"beta_A": config.beta_start} | signal(model, config)])


def coupled(
    rho: float, tau: float, beta_ratio: float, factor: float, epochs: int, batch_size: int, seed: int
) -> Config:
    """Two coupled VAEs on D + beta R with everything constant, beta_A a multiple of the critical one."""
    beta = factor * critical_beta(rho, tau, beta_ratio)
    constant = {"cross_injection": True, "rho": rho, "tau": tau, "beta_ratio": beta_ratio, "lr_decay": "none"}
    constant |= {"total_epochs": epochs, "batch_size": batch_size, "seed": seed, "device": "cpu"}
    return make_config(preset="corrected", beta_start=beta, beta_end=beta, **constant)


@torch.no_grad()
def signal(model: DualVAE, config: Config) -> dict[str, float]:
    """What the injected codes and each pathway's own say about x, and the rates, in nats."""
    trits = all_operations().float()
    posteriors = {"A": model.A.encoder(trits), "B": model.B.encoder(trits)}
    row = {}
    for own, other in ("AB", "BA"):
        given = injected(posteriors[own], posteriors[other], config.rho, config.tau, config.tau)
        row[f"information_{own}"], row[f"information_error_{own}"] = information(
            given, stream(config.seed, 0, f"signal {own}")
        )
        row[f"kl_{own}"] = kl_to_prior(posteriors[own]).double().mean().item()
    return row


SWING_SEEDS = range(2)


def swing() -> None:
    """The rates of the preset `document` without alignment, every second epoch: swing.csv."""
    table = Table("swing", ("seed", "epoch"))
    seeds = [seed for seed in SWING_SEEDS if not table.has(seed=seed)]
    configs = [make_config(alignment=False, seed=seed, device="cpu") for seed in seeds]
    for place, state in ensemble.finished(configs, "cpu"):
        history = pd.DataFrame(state["history"].tolist(), columns=list(HISTORY))[1::2]
        rows = history[["epoch", "rho", "tau_A", "kl_A", "kl_B"]].to_dict("records")
        table.add([{"seed": seeds[place], **row, "epoch": int(row["epoch"])} for row in rows])


GAMES = {"injection": True, "no coupling": False}  # whether rho follows the schedule, or is 0


def equilibria() -> None:
    """What the game of chapter 4 predicts along the document's schedules, its gate always open: equilibria.csv."""
    table = Table("equilibria", ("game", "epoch"))
    for game, is_coupled in GAMES.items():
        rho, config = torch.zeros(()), make_config(device="cpu")
        for epoch in range(config.total_epochs):
            rho = schedules.permeability(epoch, epoch - 1, rho, torch.ones(()))
            key = {"game": game, "epoch": epoch + 1}
            if (epoch + 1) % 2 or table.has(**key):
                continue
            c = prescribe(config, epoch)
            settings = (rho.item() * is_coupled, c.tau_A, c.tau_B, c.beta_A, c.beta_B)
            row = dict(zip(("rho", "tau_A", "tau_B", "beta_A", "beta_B"), settings, strict=True))
            for pathway, share in zip("AB", equilibrium(*settings), strict=True):
                row |= {f"{name}_{pathway}": getattr(share, name) for name in ("read", "own", "rate", "gain")}
            table.add([key | row])


COMMONS = {"stop-gradient": DualVAE, "shared gradients": SharedGradients}
COMMONS_RHO = (0.1, 0.3, 0.5, 0.7)
COMMONS_BETA, COMMONS_TAU, COMMONS_EPOCHS = 0.6, 0.6, 120


def commons() -> None:
    """Pairs at constant rho with and without stop-gradient, on the sum of their two losses: commons.csv."""
    table = Table("commons", ("coupling", "rho", "seed"))
    for name, pair in COMMONS.items():
        keys = [{"coupling": name, "rho": rho, "seed": seed} for rho in COMMONS_RHO for seed in SMALL_SEEDS]
        keys = [key for key in keys if not table.has(**key)]
        beta = {"beta_start": COMMONS_BETA, "beta_end": COMMONS_BETA, "tau": COMMONS_TAU}
        constant = beta | {"cross_injection": True, "total_epochs": COMMONS_EPOCHS, "device": "cpu"}
        configs = [make_config(preset="corrected", rho=key["rho"], seed=key["seed"], **constant) for key in keys]
        for place, state in ensemble.finished(configs, "cpu", pair):
            model = load(pair(configs[place].latent), state["theta"])
            row = keys[place] | signal(model, configs[place])
            for pathway, vae in (("A", model.A), ("B", model.B)):
                with torch.no_grad():
                    own = tempered(vae.encoder(all_operations().float()), COMMONS_TAU)
                generator = stream(configs[place].seed, 0, f"own {pathway}")
                row[f"own_{pathway}"], row[f"own_error_{pathway}"] = information(own, generator)
            table.add([row])
