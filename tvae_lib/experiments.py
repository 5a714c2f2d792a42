"""The trainings behind chapters 2 to 5, each a table in results/experiments; `make experiments` makes what is missing.

A row is written as soon as it is measured, so a stopped command goes on where it was; on whole tables it does nothing.
"""

import json
import platform
import sys
import time

import pandas as pd
import torch
from torch import Tensor, nn

from tvae_lib import ensemble, evaluation, runs, schedules, single
from tvae_lib.config import ROOT, Config, ParameterError, make_config
from tvae_lib.coupling import critical_beta, equilibrium
from tvae_lib.dual import DualVAE, cross_inject, injected
from tvae_lib.losses import cross_entropy
from tvae_lib.operations import SIZE, all_operations, expected_coverage, one_hot
from tvae_lib.streams import stream
from tvae_lib.training import HISTORY, load, prescribe, untrained
from tvae_lib.vae import VAE, DecoderB, Posterior, ResidualBlock, kl_to_prior, reparameterise, tempered

FOLDER = ROOT / "results" / "experiments"
SEEDS = range(3)
PAIR_SEEDS = range(5)
VARIANTS = {  # of the preset `document`
    "document": {},
    "no alignment": {"alignment": False},
    "no coupling": {"cross_injection": False},
    "StateNet off": {"statenet": "off"},
    "StateNet detached": {"statenet": "detached"},
    "StateNet hypergradient": {"statenet": "hypergradient"},
}
SETTINGS_BY_HAND = {  # of a pair without StateNet
    "lr 0.0003": {"lr": 0.0003},
    "lr 0.003": {"lr": 0.003},
    "λ₁, λ₂ .5, λ₃ .75": {"lambda_1": 0.5, "lambda_2": 0.5, "lambda_3": 0.75},
    "λ₁, λ₂ .95, λ₃ .15": {"lambda_1": 0.95, "lambda_2": 0.95, "lambda_3": 0.15},
}
CONSTANT = (0.1, 0.3, 0.5, 0.8, 0.9, 1.0)  # beta, all through
RISING = (0.8, 0.95, 0.98)  # beta at the end, from 0.3
MODEL = {"beta_start": 0.3, "beta_end": 0.98, "tau": 1.0, "seed": 0}  # the one whose weights are kept
STOPS = (5, 10, 15, 20, 30, 40, 60, 80, 120, 150, 200, 250, 300, 350, 400)  # epochs at which the pairs are judged
WIDE = 168  # width of decoder B with which one VAE has as many parameters as the pair, to 1 %
SAMPLES = 2**20


class Unskipped(ResidualBlock):
    """A residual block without its skip connection; as many parameters."""

    def forward(self, h: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(h))))


class UnskippedDecoder(DecoderB):
    """Decoder B with its residual connections taken out."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(*(Unskipped(128) if isinstance(m, ResidualBlock) else m for m in self.body))


def measure(vae: VAE, tau: float, generator: torch.Generator) -> dict[str, float]:
    """What chapters 2 and 3 report of a trained VAE alone, in nats; `tau` is the temperature it was trained at.

    Distortion and information are of codes sampled at tau; `charged` is the rate of the loss, `rate` the honest one.
    """
    trits = all_operations().float().to(generator.device)
    with torch.no_grad():
        posterior = vae.encoder(trits)
        exact = (vae.decoder(posterior.mean).argmax(-1) - 1 == trits).all(-1).double().mean().item()
    used = tempered(posterior, tau)
    log_likelihood, errors = evaluation.expected_log_likelihood(vae.decoder, used, 64, generator)
    information, information_error = evaluation.information(used, 8192, generator)
    marginal, _ = evaluation.generate(vae.decoder, posterior.mean.shape[1], SAMPLES, 1, generator)
    return {
        "distortion": -log_likelihood.mean().item(),
        "distortion_error": errors.square().sum().sqrt().item() / SIZE,
        "charged": kl_to_prior(posterior).double().mean().item(),
        "rate": kl_to_prior(used).double().mean().item(),
        "information": information,
        "information_error": information_error,
        "kl_uniform": marginal.kl_uniform(),
        "kl_uniform_error": marginal.kl_error,
        "min_log_p": marginal.log_p().min().item(),
        "coverage_50000": expected_coverage(marginal.p, 50_000),
        "exact": exact,
        "active": int((posterior.mean.var(0) > 0.01).sum()),
    }


class Table:
    """A CSV file that grows by whole rows: the columns of `keys` say which rows are there.

    made.json beside it holds device, versions and seconds of each session that added rows.
    """

    def __init__(self, name: str, keys: tuple[str, ...]):
        self.name, self.path, self.keys = name, FOLDER / f"{name}.csv", keys
        self.rows = pd.read_csv(self.path).to_dict("records") if self.path.exists() else []
        self.session, self.start = None, time.monotonic()

    def has(self, **key) -> bool:
        return any(all(row[name] == value for name, value in key.items()) for row in self.rows)

    def add(self, rows: list[dict]) -> None:
        self.rows += rows
        table = pd.DataFrame(self.rows).sort_values(list(self.keys), kind="stable")
        runs.write_table(self.path, table)
        path = FOLDER / "made.json"
        made = json.loads(path.read_text()) if path.exists() else {}
        sessions = made.setdefault(self.name, [])
        if self.session is None:
            self.session = len(sessions)
        sessions[self.session :] = [
            {
                "device": runs.device_name(torch.device("cpu")),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "seconds": round(time.monotonic() - self.start),
            }
        ]
        runs.write_json(path, made)


def uncoupled(beta_start: float, beta_end: float, tau: float, seed: int, **more) -> Config:
    """Two VAEs side by side, on D + beta R and nothing else: the preset `corrected` with these."""
    return make_config(
        preset="corrected", beta_start=beta_start, beta_end=beta_end, tau=tau, seed=seed, device="cpu", **more
    )


def rate() -> None:
    """One VAE of either kind under constant and rising beta, and under three temperatures: rate.csv."""
    keys = ("beta_start", "beta_end", "tau", "seed")
    table = Table("rate", (*keys, "pathway"))
    settings = [(b, b, 1.0) for b in CONSTANT] + [(0.3, b, 1.0) for b in RISING] + [(0.3, 0.98, t) for t in (0.5, 1.5)]
    wanted = [dict(zip(keys, (*values, seed), strict=True)) for values in settings for seed in SEEDS]
    wanted = [key for key in wanted if not table.has(**key)]
    configs = [uncoupled(**key) for key in wanted]
    for place, state in _finished(configs):
        key, model = wanted[place], load(untrained(configs[place])[0], state["theta"])
        purposes = {pathway: stream(key["seed"], 400, f"measure {pathway}") for pathway in "AB"}
        vaes = {"A": model.A, "B": model.B}
        table.add([key | {"pathway": p} | measure(vaes[p], key["tau"], purposes[p]) for p in "AB"])
        if key == MODEL:
            runs.write_tensors(FOLDER / "model.safetensors", model.state_dict())


def _finished(configs: list[Config], pair: type[DualVAE] = DualVAE):
    return ensemble.progress(configs, "cpu", (configs[0].total_epochs,), pair) if configs else []


def pairs() -> None:
    """The preset `document` and variants of it, judged as they train: pairs.csv."""
    table = Table("pairs", ("variant", "seed", "epoch"))
    by_hand = {name: {"statenet": "off", **changes} for name, changes in SETTINGS_BY_HAND.items()}
    wanted = [{"variant": variant, "seed": seed} for variant in VARIANTS for seed in PAIR_SEEDS]
    wanted += [{"variant": variant, "seed": seed} for variant in by_hand for seed in SMALL_SEEDS]
    wanted = [key for key in wanted if not table.has(**key, epoch=max(STOPS))]
    changes = VARIANTS | by_hand
    configs = [make_config(**changes[key["variant"]], seed=key["seed"], device="cpu") for key in wanted]
    collected = {place: [] for place in range(len(wanted))}
    for place, state in ensemble.progress(configs, "cpu", STOPS) if configs else []:
        collected[place].append(wanted[place] | judge_pair(configs[place], state))
        if len(collected[place]) == len(STOPS):
            table.add(collected[place])


def judge_pair(config: Config, state) -> dict[str, float]:
    """Both decoders of a pair alone: what each generates, and which operations it reconstructs exactly, at the mean.

    An operation is generated where its probability is at least half the uniform one.
    """
    epoch = int(state["epoch"])
    model = load(untrained(config)[0], state["theta"])
    trits = all_operations().float()
    row, has, knows, means = {"epoch": epoch}, {}, {}, {}
    for pathway, vae in (("A", model.A), ("B", model.B)):
        generator = stream(config.seed, epoch, f"pair {pathway}")
        marginal, _ = evaluation.generate(vae.decoder, config.latent, SAMPLES // 4, 1, generator)
        has[pathway] = marginal.p >= 0.5 / SIZE
        means[pathway] = vae.encoder(trits).mean.detach()
        knows[pathway] = (vae.decoder(means[pathway]).argmax(-1) - 1 == trits).all(-1)
        row |= {
            f"kl_uniform_{pathway}": marginal.kl_uniform(),
            f"coverage_50000_{pathway}": expected_coverage(marginal.p, 50_000),
            f"has_{pathway}": has[pathway].double().mean().item(),
            f"knows_{pathway}": knows[pathway].double().mean().item(),
        }
    history = state["history"][epoch - 1].tolist()
    names = ("rho", "lr", "lambda_1", "lambda_2", "lambda_3", "grad_ratio")
    names += ("ce_A", "ce_B", "kl_A", "kl_B", "entropy_A", "entropy_B")
    coupled = evaluation.reconstruction(model, trits, state["rho"].item())
    return row | {
        "coupled_A": coupled["coupled_A"],
        "coupled_B": coupled["coupled_B"],
        "has_both": (has["A"] & has["B"]).double().mean().item(),
        "knows_both": (knows["A"] & knows["B"]).double().mean().item(),
        "cka": evaluation.cka(means["A"], means["B"]),
        **{name: history[list(HISTORY).index(name)] for name in names},
    }


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
        for place, state in ensemble.progress(configs, "cpu", COUPLING_STOPS, pair) if configs else []:
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
        marginal, _ = evaluation.generate(vae.decoder, config.latent, SAMPLES // 4, 1, generator)
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
SMALL_SEEDS = range(2)
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
        for place, state in _finished(configs):
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
    for place, state in _finished(configs):
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
        for place, state in _finished(configs, pair):
            model = load(pair(configs[place].latent), state["theta"])
            row = keys[place] | signal(model, configs[place])
            for pathway, vae in (("A", model.A), ("B", model.B)):
                with torch.no_grad():
                    own = tempered(vae.encoder(all_operations().float()), COMMONS_TAU)
                generator = stream(configs[place].seed, 0, f"own {pathway}")
                row[f"own_{pathway}"], row[f"own_error_{pathway}"] = information(own, generator)
            table.add([row])


KINDS = {"wide": lambda: DecoderB(width=WIDE), "unskipped": UnskippedDecoder}
SINGLES = (
    ("unskipped", 0.3, 0.98, "cosine"),
    ("wide", 0.3, 0.98, "cosine"),
    ("wide", 0.6, 1.0, "none"),  # the document's beta_A
    ("wide", 0.4243, 0.7071, "none"),  # and beta_B, to four digits
)


def singles() -> None:
    """One VAE of the pair's size, and VAE-B without skip connections: singles.csv."""
    keys = ("kind", "beta_start", "beta_end", "lr_decay", "seed")
    table = Table("singles", keys)
    for values in SINGLES:
        for seed in SEEDS:
            key = dict(zip(keys, (*values, seed), strict=True))
            if table.has(**key):
                continue
            config = uncoupled(*values[1:3], 1.0, seed, lr_decay=values[3])
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(stream(seed, 0, "initial").get_state())
                vae = VAE(KINDS[values[0]]())
            trained = single.train(vae, config)
            table.add([key | measure(trained, 1.0, stream(seed, 400, "measure single"))])


EXPERIMENTS = {
    "rate": rate,
    "pairs": pairs,
    "singles": singles,
    "stability": stability,
    "coupling": coupling,
    "equilibria": equilibria,
    "commons": commons,
    "swing": swing,
}


def read(name: str) -> pd.DataFrame:
    """The table of an experiment. FileNotFoundError where it was not made."""
    return pd.read_csv(FOLDER / f"{name}.csv")


def kept() -> DualVAE:
    """The uncoupled pair trained as `MODEL` says, whose weights are in results/experiments."""
    model = DualVAE()
    model.load_state_dict(runs.read_tensors(FOLDER / "model.safetensors"))
    return model.eval()


def main(names: list[str]) -> None:
    """Make what is missing of the named experiments, or of all; ParameterError for a name that is none."""
    for name in names:
        if name not in EXPERIMENTS:
            raise ParameterError(f"experiment is {name!r}; it must be one of {', '.join(EXPERIMENTS)}.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names or EXPERIMENTS:
        EXPERIMENTS[name]()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ParameterError as error:
        sys.exit(str(error))
