"""The trainings behind chapters 2 to 9, each a table in results/experiments; `make experiments` makes what is missing.

A row is written as soon as it is measured, so a stopped command goes on where it was; on whole tables it does nothing.
"""

import sys

import torch
from torch import Tensor, nn

from tvae_lib import codes, convergence, ensemble, evaluation, phasing, rivals, runs, single, tables
from tvae_lib.config import Config, ParameterError, make_config
from tvae_lib.operations import SIZE, all_operations, expected_coverage
from tvae_lib.streams import stream
from tvae_lib.tables import Table
from tvae_lib.tables import kept as kept
from tvae_lib.tables import read as read
from tvae_lib.training import HISTORY, load, untrained
from tvae_lib.vae import VAE, DecoderB, ResidualBlock, kl_to_prior, tempered

SEEDS = range(3)
SMALL_SEEDS = range(2)
PAIR_SEEDS = range(5)
VARIANTS = {  # of the preset `document`
    "document": {},
    "no alignment": {"alignment": False},
    "no coupling": {"cross_injection": False},
    "StateNet off": {"statenet": "off"},
    "StateNet detached": {"statenet": "detached"},
    "StateNet hypergradient": {"statenet": "hypergradient"},
    "no balance": {"gradient_balance": False},
    "no output entropy": {"alpha_ent": 0.0},
    "no repulsion": {"alpha_rep": 0.0},
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
        "active": codes.active_units(posterior),
    }


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
    for place, state in ensemble.finished(configs, "cpu"):
        key, model = wanted[place], load(untrained(configs[place])[0], state["theta"])
        purposes = {pathway: stream(key["seed"], 400, f"measure {pathway}") for pathway in "AB"}
        vaes = {"A": model.A, "B": model.B}
        table.add([key | {"pathway": p} | measure(vaes[p], key["tau"], purposes[p]) for p in "AB"])
        if key == MODEL:
            runs.write_tensors(tables.FOLDER / "model.safetensors", model.state_dict())


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
    for place, state in ensemble.progress(configs, "cpu", STOPS):
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
    "stability": rivals.stability,
    "coupling": rivals.coupling,
    "equilibria": rivals.equilibria,
    "commons": rivals.commons,
    "swing": rivals.swing,
    "phases": phasing.phases,
    "generators": convergence.generators,
    "sobol": convergence.sobol,
    "importance": convergence.importance,
    "early": convergence.early,
}


def main(names: list[str]) -> None:
    """Make what is missing of the named experiments, or of all; ParameterError for a name that is none."""
    for name in names:
        if name not in EXPERIMENTS:
            raise ParameterError(f"experiment is {name!r}; it must be one of {', '.join(EXPERIMENTS)}.")
    tables.FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names or EXPERIMENTS:
        EXPERIMENTS[name]()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ParameterError as error:
        sys.exit(str(error))
