"""Pairs under other couplings, on both sides of the boundary of collapse, and what the game predicts: chapter 4."""

import torch
from torch import Tensor

from studies.rates import uncoupled
from studies.study import Case, Study, slug, train_cases
from studies.variants import FIVE, LAST_CYCLE
from tvae_lib.measures.codes import information
from tvae_lib.measures.pair import OF_ONE, Effort, Pair, measured
from tvae_lib.operations import all_operations, one_hot
from tvae_lib.system import schedules
from tvae_lib.system.dual import DualVAE, cross_inject, injected
from tvae_lib.system.losses import cross_entropy
from tvae_lib.system.vae import reparameterise
from tvae_lib.theory.coupling import critical_beta, equilibrium
from tvae_lib.training.config import Config, make_config
from tvae_lib.training.state import State, history_row, prescribe, trained


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


COUPLINGS: dict[str, tuple[type[DualVAE], dict]] = {  # of `document` with rho as prescribed: the pair, other changes
    "injection": (DualVAE, {}),
    "no coupling": (DualVAE, {"cross_injection": False}),
    "foreign code": (ForeignCode, {}),
    "partner's mean": (PartnersMean, {}),
    "shared gradients": (SharedGradients, {}),
}
EFFORT = Effort(2**18)
STOPS = (40, 120, 150, 200, 250, 280, 340, *LAST_CYCLE)
BOUNDARY = (  # rho, tau of both, beta of B over that of A
    (0.0, 1.0, 1.0), (0.0, 0.5, 1.0), (0.3, 1.0, 1.0), (0.5, 1.0, 1.0), (0.7, 1.0, 1.0), (0.7, 0.5, 1.0),
    (0.3, 1.0, 3.0), (0.5, 0.5, 0.25), (0.7, 1.0, 4.0),
)  # fmt: skip
FACTORS = (0.5, 0.75, 1.25, 1.5)  # of the beta at which collapse is predicted to turn stable
SIZES = ((40, 512), (320, 4096))  # epochs and batch size: as many steps, with less noise
GAMES = {"injection": True, "no coupling": False}  # whether rho follows the schedule, or is 0
COMMONS = {"stop-gradient": DualVAE, "shared gradients": SharedGradients}
COMMONS_RHO = (0.1, 0.3, 0.5, 0.7)
COMMONS_BETA, COMMONS_TAU, COMMONS_EPOCHS = 0.6, 0.6, 120


def readings(pair: Pair, model: DualVAE, noise: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The codes that decoders A and B may be given, {reading: (z of A, z of B)}; one sample for each operation.

    trained: as in training. foreign: the partner's code is that of another operation. others: the own code is. silent:
    the partner's part is zero. alone: the own code, not scaled."""
    A, B, rho = pair.A, pair.B, pair.A.rho
    z_A, z_B = (reparameterise(one.posterior, noise[p], one.tau) for p, one in (("A", A), ("B", B)))
    foreign_A, foreign_B = (z.roll(len(z) // 2, 0) for z in (z_A, z_B))
    return {
        "trained": model.couple(A.posterior, B.posterior, z_A, z_B, rho),
        "foreign": (cross_inject(z_A, foreign_B, rho), cross_inject(z_B, foreign_A, rho)),
        "others": (cross_inject(foreign_A, z_B, rho), cross_inject(foreign_B, z_A, rho)),
        "silent": ((1 - rho) * z_A, (1 - rho) * z_B),
        "alone": (z_A, z_B),
    }


@torch.no_grad()
def distortions(pair: Pair, model: DualVAE, noise: dict[str, Tensor]) -> dict[str, float]:
    """What each decoder makes of the codes of `readings`: distortion in nats, `trained_A` and so on."""
    indicators = one_hot(all_operations())
    return {
        f"{name}_{p}": cross_entropy(vae.decoder(z), indicators).item()
        for name, of_both in readings(pair, model, noise).items()
        for p, vae, z in zip("AB", (model.A, model.B), of_both, strict=True)
    }


def other_couplings(couplings=COUPLINGS, seeds=FIVE, stops=STOPS, effort=EFFORT, **parameters) -> Study:
    """The preset `document` with no gate on rho, under other couplings, and who carries what: coupling.csv."""
    columns = ("information", "information_error", "exact", "kl_uniform", "joint", "joint_error")
    recorded = [f"{name}_{p}" for p in "AB" for name in ("ce", "kl", "tau", "norm")]

    def measure(case: Case, config: Config, state: State) -> list[dict]:
        epoch, last = int(state["epoch"]), history_row(state)
        model = trained(state, config, couplings[case["variant"]][0])
        pair = Pair(model, last, (config.seed, epoch, "coupling"), effort)
        noise = {p: torch.randn(one.posterior.mean.shape, generator=one.generator) for p, one in pair.each.items()}
        row = measured(pair, columns) | distortions(pair, model, noise)
        return [{"epoch": epoch, **row, **{name: last[name] for name in ("rho", *recorded)}}]

    def make(cases: list[Case], device: str):
        for variant, (pair, changes) in couplings.items():
            chosen = [case for case in cases if case["variant"] == variant]

            def configure(case: Case, changes=changes) -> Config:
                return make_config(gate="open", **changes, seed=case["seed"], device="cpu", **parameters)

            yield from train_cases(chosen, device, configure, stops, measure, pair)

    cases = [{"variant": variant, "seed": seed} for variant in couplings for seed in seeds]
    keys = ("variant", "seed", "epoch")
    return Study(
        "coupling", keys, {slug(c): [c] for c in cases}, make, lambda case: [{"epoch": stop} for stop in stops]
    )


def at_rest(model: DualVAE, config: Config, name: str) -> Pair:
    """The pair at constant rho and tau, with the streams of `name`."""
    settings = {"rho": config.rho, "tau_A": config.tau, "tau_B": config.tau}
    return Pair(model, settings, (config.seed, 0, name), Effort(1))


def carried(model: DualVAE, config: Config) -> dict[str, float]:
    """What the injected codes say about x, and the rates of the own ones, in nats, at constant rho and tau."""
    pair = at_rest(model, config, "signal")
    row: dict[str, float] = {}
    for p, one in pair.each.items():
        read = injected(one.posterior, one.partner.posterior, config.rho, config.tau, config.tau)
        found = information(read, one.effort.information, one.generator)
        row |= dict(zip((f"information_{p}", f"information_error_{p}"), found, strict=True))
        row[f"kl_{p}"] = OF_ONE["charged"](one)
    return row


def stability(boundary=BOUNDARY, factors=FACTORS, sizes=SIZES, seeds=2, **parameters) -> Study:
    """Coupled pairs trained from their initial weights on both sides of the predicted boundary: stability.csv."""
    keys = ("rho", "tau", "beta_ratio", "factor", "epochs", "batch_size", "seed")

    def configure(case: Case) -> Config:
        beta = case["factor"] * critical_beta(case["rho"], case["tau"], case["beta_ratio"])
        given = {name: case[name] for name in ("rho", "tau", "beta_ratio", "batch_size", "seed")}
        constant = {"cross_injection": True, "lr_decay": "none", "beta_start": beta, "beta_end": beta}
        return uncoupled(total_epochs=case["epochs"], **constant, **given, **parameters)

    def measure(case: Case, config: Config, state: State) -> list[dict]:
        return [{"beta_A": config.beta_start} | carried(trained(state, config), config)]

    def make(cases: list[Case], device: str):
        for epochs in sorted({case["epochs"] for case in cases}):
            chosen = [case for case in cases if case["epochs"] == epochs]
            yield from train_cases(chosen, device, configure, (epochs,), measure)

    kinds = [(*setting, factor, *size) for size in sizes for setting in boundary for factor in factors]
    cases = [dict(zip(keys, (*kind, seed), strict=True)) for kind in kinds for seed in range(seeds)]
    parts: dict[str, list[Case]] = {}
    for case in cases:
        parts.setdefault(slug({name: case[name] for name in ("rho", "tau", "beta_ratio", "epochs")}), []).append(case)
    return Study("stability", keys, parts, make)


def commons(couplings=COMMONS, rhos=COMMONS_RHO, epochs=COMMONS_EPOCHS, seeds=2, **parameters) -> Study:
    """Pairs at constant rho with and without stop-gradient, on the sum of their two losses: commons.csv."""
    constant = {"cross_injection": True, "beta_start": COMMONS_BETA, "beta_end": COMMONS_BETA, "tau": COMMONS_TAU}

    def configure(case: Case) -> Config:
        given = {"rho": case["rho"], "seed": case["seed"], "total_epochs": epochs}
        return uncoupled(**given, **constant, **parameters)

    def measure(case: Case, config: Config, state: State) -> list[dict]:
        model = trained(state, config, couplings[case["coupling"]])
        own = measured(at_rest(model, config, "own"), ("information", "information_error"))
        return [carried(model, config) | {f"own_{name}": value for name, value in own.items()}]

    def make(cases: list[Case], device: str):
        for name, pair in couplings.items():
            chosen = [case for case in cases if case["coupling"] == name]
            yield from train_cases(chosen, device, configure, (epochs,), measure, pair)

    cases = [{"coupling": name, "rho": rho, "seed": s} for name in couplings for rho in rhos for s in range(seeds)]
    return Study("commons", ("coupling", "rho", "seed"), {slug(case): [case] for case in cases}, make)


def equilibria(games=GAMES, epochs=range(2, 401, 2)) -> Study:
    """What the game of chapter 4 predicts along the document's schedules, its gate always open: equilibria.csv."""
    config = make_config(device="cpu")

    def make(cases: list[Case], device: str):
        rho, path = torch.zeros(()), {}
        for epoch in range(config.total_epochs):
            rho = path[epoch] = schedules.permeability(epoch, epoch - 1, rho, torch.ones(()))
        for case in cases:
            c = prescribe(config, case["epoch"] - 1)
            rho_then = path[case["epoch"] - 1].item() * games[case["game"]]
            row = {"rho": rho_then, "tau_A": c.tau_A, "tau_B": c.tau_B, "beta_A": c.beta_A, "beta_B": c.beta_B}
            for p, share in zip("AB", equilibrium(*row.values()), strict=True):
                row |= {f"{name}_{p}": getattr(share, name) for name in ("read", "own", "rate", "gain")}
            yield [case | row]

    parts = {slug({"game": game}): [{"game": game, "epoch": epoch} for epoch in epochs] for game in games}
    return Study("equilibria", ("game", "epoch"), parts, make)
