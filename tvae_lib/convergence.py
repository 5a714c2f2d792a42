"""Chapter 9's measurements beside its runs: untrained and hand-written decoders, Sobol samples, importance sampling."""

import copy
import math

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from tvae_lib import ensemble, evaluation, laboratory, runs
from tvae_lib.config import REFERENCE, make_config
from tvae_lib.dual import injected
from tvae_lib.frontier import hand_written
from tvae_lib.operations import SIZE, all_operations
from tvae_lib.streams import stream
from tvae_lib.tables import Table, kept
from tvae_lib.training import load, untrained
from tvae_lib.vae import LATENT, DecoderA, Posterior

UNTRAINED_SEEDS = range(30)
SLOPE = 3.0  # of the hand-written decoder
FEWER = laboratory.FINAL._replace(prior=2**19)  # samples for decoders whose p(x) is smooth
SCRAMBLES = range(10)
EARLY_SEEDS = range(10)
EARLY = tuple(range(1, 41))  # epochs
SOBOL_DRAWS = (1_000, 10_000, SIZE, 50_000, 100_000, 195_000)
TENS = 60
WIDER = 1.5  # variance of the proposal over that of the posterior, which is narrower than the truth


def sobol_normal(samples: int, latent: int, seed: int) -> Tensor:
    """Prior samples of low discrepancy, (S, d): a scrambled Sobol sequence through the normal quantile.

    Equation: eq-sobol. Source: Matoušek (1998), for the scrambling by random matrices and a digital shift.
    """
    points = SobolEngine(latent, scramble=True, seed=seed).draw(samples, dtype=torch.float64)
    # The quantile of a point that is 0 is infinite.
    return torch.special.ndtri(points.clamp(min=2.0**-32)).float()


def rotated(decoder: DecoderA, generator: torch.Generator) -> DecoderA:
    """The decoder behind a random rotation of its codes: it generates the same from the prior."""
    turned = copy.deepcopy(decoder)
    first = turned.body[0]
    rotation, _ = torch.linalg.qr(torch.randn(first.in_features, first.in_features, generator=generator))
    with torch.no_grad():
        first.weight.copy_(first.weight @ rotation)
    return turned


@torch.no_grad()
def argmax_coverage(decoder, z: Tensor, draws) -> dict[int, float]:
    """Coverage by argmax of the first N codes z (S, d), for each N in `draws`."""
    found = [evaluation.likeliest(decoder(part).movedim(0, -1)) for part in z.split(2048)]
    return evaluation.coverage(torch.cat(found), draws)


def generators() -> None:
    """Decoders that no training touched, and the one written by hand, each judged alone: generators.csv."""
    table = Table("generators", ("kind", "seed", "pathway"))
    for seed in UNTRAINED_SEEDS:
        model = untrained(make_config(seed=seed, device="cpu"))[0].eval()
        for pathway in "AB":
            key = {"kind": "untrained", "seed": seed, "pathway": pathway}
            if not table.has(**key):
                decoder = getattr(model, pathway).decoder
                alone = laboratory.decoder_alone(decoder, LATENT, FEWER, seed, f"untrained {pathway}")
                table.add([key | laboratory.columns(alone)])
    key = {"kind": "hand-written", "seed": 0, "pathway": "A"}
    if not table.has(**key):
        alone = laboratory.decoder_alone(hand_written(SLOPE), LATENT, laboratory.FINAL, 0, "hand-written")
        table.add([key | laboratory.columns(alone)])


def sobol() -> None:
    """Coverage by argmax of Sobol and of independent prior samples: sobol.csv."""
    table = Table("sobol", ("decoder", "sampler", "seed"))
    model = runs.Run(REFERENCE).model()
    decoders = {"hand-written": hand_written(SLOPE), "A": model.A.decoder, "B": model.B.decoder}
    decoders["uncoupled A"] = kept().A.decoder
    decoders["rotated"] = rotated(hand_written(SLOPE), stream(0, 0, "rotation"))
    for name, decoder in decoders.items():
        for seed in SCRAMBLES:
            for sampler in ("sobol", "independent"):
                key = {"decoder": name, "sampler": sampler, "seed": seed}
                if table.has(**key):
                    continue
                most = max(SOBOL_DRAWS)
                if sampler == "sobol":
                    z = sobol_normal(most, LATENT, seed)
                else:
                    z = torch.randn(most, LATENT, generator=stream(seed, 0, f"independent {name}"))
                found = argmax_coverage(decoder, z, SOBOL_DRAWS)
                table.add([key | {f"coverage_{n}": share for n, share in found.items()}])


def early() -> None:
    """How likely a complete evaluation is at each of the first epochs of the preset `document`: early.csv."""
    table = Table("early", ("seed", "epoch"))
    seeds = [seed for seed in EARLY_SEEDS if not table.has(seed=seed, epoch=max(EARLY))]
    configs = [make_config(seed=seed, device="cpu") for seed in seeds]
    rows = {seed: [] for seed in seeds}
    for place, state in ensemble.progress(configs, "cpu", EARLY):
        seed, epoch = seeds[place], int(state["epoch"])
        model = load(untrained(configs[place])[0], state["theta"])
        row = {"seed": seed, "epoch": epoch}
        for pathway in "AB":
            generator = stream(seed, epoch, f"early {pathway}")
            marginal, _ = evaluation.generate(getattr(model, pathway).decoder, LATENT, 2**17, 1, generator)
            row |= {
                f"complete_{pathway}": marginal.full_coverage(195_000),
                f"kl_uniform_{pathway}": marginal.kl_uniform(),
            }
        rows[seed].append(row)
        if epoch == max(EARLY):
            table.add(rows[seed])


@torch.no_grad()
def importance() -> None:
    """p(x) by importance sampling with the encoder, against the matrix product: importance.csv."""
    table = Table("importance", ("model", "pathway", "proposal"))
    trits = all_operations().float()
    run = runs.Run(REFERENCE)
    last = run.history.iloc[-1]
    for name, model in (("uncoupled", kept()), ("document", run.model())):
        given = {"A": model.A.encoder(trits), "B": model.B.encoder(trits)}
        for pathway, other in (("A", "B"), ("B", "A")):
            proposals = {"own": given[pathway]}
            if name == "document":
                proposals["injected"] = injected(given[pathway], given[other], last["rho"], 1.0, 1.0)
            for kind, posterior in proposals.items():
                key = {"model": name, "pathway": pathway, "proposal": kind}
                if not table.has(**key):
                    decoder = getattr(model, pathway).decoder
                    table.add([key | agreement(decoder, posterior, f"{name} {pathway}")])


def agreement(decoder, posterior: Posterior, name: str, prior: int = 2**21, tens: int = TENS) -> dict[str, float]:
    """How far both estimates of p(x) differ, in standard errors of the difference: share of operations within three."""
    marginal, _ = evaluation.generate(decoder, LATENT, prior, 1, stream(0, 0, f"matrix {name}"))
    wider = posterior._replace(log_variance=posterior.log_variance + math.log(WIDER))
    p, error = evaluation.importance(decoder, wider, tens, stream(0, 0, f"importance {name}"))
    own = (marginal.second - marginal.p.square()) / marginal.samples
    deviation = (p - marginal.p) / (error.square() + own).sqrt()
    return {
        "within": (deviation.abs() < 3).double().mean().item(),
        "below": (deviation <= -3).double().mean().item(),
        "error": (error / p).median().item(),
        "matrix_error": (own.sqrt() / marginal.p).median().item(),
        "sum": p.sum().item(),
        "sum_error": error.square().sum().sqrt().item(),
        "codes": 10 * tens,
        "prior": prior,
    }
