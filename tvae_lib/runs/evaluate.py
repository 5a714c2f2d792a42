"""What is measured of a run while it trains and when it ends: the rows of evaluations.csv, and metrics.json."""

import math

import torch
from torch import Tensor, nn

from tvae_lib.coverage import measured_coverage, pair_coverage, uniform_coverage
from tvae_lib.measures.generation import Draws, generate
from tvae_lib.measures.reconstruction import exact_shares
from tvae_lib.operations import SIZE
from tvae_lib.rng import stream
from tvae_lib.runs.files import FORMAT
from tvae_lib.system.dual import DualVAE
from tvae_lib.system.losses import TERMS
from tvae_lib.system.vae import kl_to_prior
from tvae_lib.training.config import Config
from tvae_lib.training.state import State, initial_state, load, not_finite, weights_kept
from tvae_lib.training.threads import alone
from tvae_lib.training.trainer import Trainer

PATHWAYS = ("A", "B")
SYSTEMS = (*PATHWAYS, "half", "union")  # whose coverage is measured: a decoder's, or that of the pair
COVERAGES = {"coverage": "sampled", "coverage_argmax": "argmax", "coverage_rounded": "rounded"}  # readings of a trit
TABLES = ("evaluations", "log_p")  # what a run keeps in its state beside what is trained


def judge(
    decoder: nn.Module, latent: int, samples: int, counts: tuple[int, ...], generator, error: float = 0.0
) -> tuple[dict, Tensor, Draws]:
    """The verdict on a decoder alone, as plain numbers for JSON, log p-hat of every operation (M,), and the draws.

    Coverage at each N in `counts` under three readings of a trit; KL(U||p) in nats, corrected, with standard error; the
    least log p(x). A KL that is infinite (no sample reached some x) is None. `error` as for `generate`."""
    marginal, drawn = generate(decoder, latent, samples, max(counts), generator, error)
    log_p = marginal.log_p()
    finite = bool(log_p.isfinite().all())
    return (
        {
            **{
                kind: {str(n): value for n, value in measured_coverage(getattr(drawn, reading), counts).items()}
                for kind, reading in COVERAGES.items()
            },
            "kl_uniform": marginal.kl_uniform() if finite else None,
            "kl_uniform_plugin": marginal.kl_uniform(corrected=False) if finite else None,
            "kl_uniform_error": marginal.kl_error if finite else None,
            "min_log_p": log_p.min().item() if finite else None,
            "samples": marginal.samples,
        },
        log_p,
        drawn,
    )


def judge_both(
    trainer: Trainer, model: DualVAE, samples: int, epoch: int, purpose: str, error: float = 0.0
) -> tuple[dict, Tensor]:
    """`judge` of both decoders, each on its own stream, and of the pair: ({"A": ..., "B": ...}, log p-hat (2, M)).

    Under `half` and `union` the coverage of half of the draws from each, and of as many from each."""
    config, verdicts, log_ps, draws = trainer.config, {}, [], []
    for pathway in PATHWAYS:
        generator = stream(config.seed, epoch, f"{purpose} {pathway}", trainer.device)
        decoder = getattr(model, pathway).decoder
        given = config.latent, samples, config.coverage_samples, generator, error
        verdicts[pathway], log_p, drawn = judge(decoder, *given)
        log_ps.append(log_p)
        draws.append(drawn)
    for kind, reading in COVERAGES.items():
        of_A, of_B = (getattr(drawn, reading) for drawn in draws)
        for how, shares in pair_coverage(of_A, of_B, config.coverage_samples).items():
            verdicts.setdefault(how, {})[kind] = {str(n): value for n, value in shares.items()}
    return verdicts, torch.stack(log_ps)


def evaluation_columns(config: Config) -> list[str]:
    """Columns of evaluations.csv for a configuration."""
    coverages = [f"{kind}_{n}" for kind in COVERAGES for n in config.coverage_samples]
    others = ["kl_uniform", "kl_uniform_error", "min_log_p", "alone", "coupled", *(f"share_{term}" for term in TERMS)]
    columns = {system: coverages + (others if system in PATHWAYS else []) for system in SYSTEMS}
    return ["epoch"] + [f"{name}_{system}" for system, names in columns.items() for name in names]


@alone()
def evaluate(trainer: Trainer, state: State) -> State:
    """Evaluate the state and put the result in its tables; nothing else of the state changes."""
    epoch, config = int(state["epoch"]), trainer.config
    model = load(trainer.step.model, weights_kept(state))
    verdicts, log_p = judge_both(trainer, model, config.eval_samples, epoch, "evaluation")
    values = {"epoch": epoch, **exact_shares(model, trainer.trits[trainer.training], config.partner_at(state["rho"]))}
    shares = trainer.gradient_shares(state).cpu()
    for system, verdict in verdicts.items():
        values |= {f"{kind}_{n}_{system}": value for kind in COVERAGES for n, value in verdict[kind].items()}
    for column, pathway in enumerate(PATHWAYS):
        verdict = verdicts[pathway]
        values |= {f"{k}_{pathway}": verdict[k] for k in ("kl_uniform", "kl_uniform_error", "min_log_p")}
        values |= {f"share_{term}_{pathway}": shares[i, column].item() for i, term in enumerate(TERMS)}
    row = [math.nan if values[name] is None else values[name] for name in evaluation_columns(config)]
    new = {"evaluations": torch.tensor([row], dtype=torch.float64), "log_p": log_p.half().cpu().unsqueeze(0)}
    return state | {name: torch.cat([state[name], rows]) for name, rows in new.items()}


@alone()
@torch.no_grad()
def not_usable(trainer: Trainer, state: State) -> str:
    """What of a state is not finite, in words; empty where all of it is, and what the networks make of it too.

    Every operation is encoded, and its mean decoded: parameters can be finite and too large to compute with."""
    if lost := not_finite(state):
        return lost
    model = load(trainer.step.model, weights_kept(state))
    for pathway in PATHWAYS:
        vae = getattr(model, pathway)
        posterior = vae.encoder(trainer.trits)
        if not (kl_to_prior(posterior).isfinite().all() and vae.decoder(posterior.mean).isfinite().all()):
            return f"what {pathway} makes of the operations"
    return ""


def start(config: Config, device: torch.device) -> State:
    """The state before the first epoch, with empty tables of evaluations."""
    return initial_state(config, device) | {
        "evaluations": torch.empty((0, len(evaluation_columns(config))), dtype=torch.float64),
        "log_p": torch.empty((0, 2, SIZE), dtype=torch.float16),
    }


@alone()
def final_metrics(trainer: Trainer, state: State) -> dict:
    """The content of metrics.json: both decoders at the end, beside the untrained ones and the uniform generator."""
    config, epoch = trainer.config, int(state["epoch"])
    model = load(trainer.step.model, weights_kept(state))
    verdicts, _ = judge_both(trainer, model, config.final_samples, epoch, "final", config.final_error)
    first = dict(zip(evaluation_columns(config), state["evaluations"][0].tolist(), strict=True))
    untrained = {
        system: {kind: {str(n): first[f"{kind}_{n}_{system}"] for n in config.coverage_samples} for kind in COVERAGES}
        for system in SYSTEMS
    }
    rho = config.partner_at(state["rho"])
    parts = {"training": trainer.training, "held_out": trainer.held_out}
    return {
        "format": FORMAT,
        "preset": config.preset,
        "seed": config.seed,
        "epochs": epoch,
        **verdicts,
        "untrained": untrained,
        "uniform": {"coverage": {str(n): uniform_coverage(n) for n in config.coverage_samples}},
        "reconstruction": {k: exact_shares(model, trainer.trits[v], rho) for k, v in parts.items()},
    }
