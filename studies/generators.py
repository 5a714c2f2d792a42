"""Decoders that no training touched, one written by hand, and other ways to draw from a decoder: chapter 9."""

import copy
import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.quasirandom import SobolEngine

from studies.reports import FINAL, columns, examine_decoder
from studies.study import Case, Study, train_cases
from studies.tables import kept
from tvae_lib.coverage import measured_coverage
from tvae_lib.measures.generation import generate, mean_and_error
from tvae_lib.measures.pair import Effort, Pair, measured, share
from tvae_lib.measures.reconstruction import decode
from tvae_lib.operations import SIZE, all_operations, one_hot
from tvae_lib.rng import stream
from tvae_lib.runs.directory import Run
from tvae_lib.system.dual import injected
from tvae_lib.system.vae import LATENT, DecoderA, Posterior, log_likelihood, reparameterise
from tvae_lib.theory.product_codes import hand_written
from tvae_lib.training.config import REFERENCE, Config, make_config
from tvae_lib.training.state import State, history_row, trained, untrained

SLOPE = 3.0  # of the hand-written decoder
FEWER = FINAL._replace(prior=2**19)  # samples for decoders whose p(x) is smooth
SCRAMBLES = range(10)
SOBOL_DRAWS = (1_000, 10_000, SIZE, 50_000, 100_000, 195_000)
EARLY = Effort(2**17)
ERROR_SIZES = (65_536, 131_072, 262_144)
TENS = 60
WIDER = 1.5  # variance of the proposal over that of the posterior, which is narrower than the truth


def sobol_normal(samples: int, latent: int, seed: int) -> Tensor:
    """Prior samples of low discrepancy, (S, d): a scrambled Sobol sequence through the normal quantile.
    Equation: eq-sobol. Source: Matoušek (1998), for the scrambling by random matrices and a digital shift."""
    points = SobolEngine(latent, scramble=True, seed=seed).draw(samples, dtype=torch.float64)
    # The quantile of a point that is 0 is infinite.
    return torch.special.ndtri(points.clamp(min=2.0**-32)).float()


def rotated(decoder: DecoderA, generator: torch.Generator) -> DecoderA:
    """The decoder behind a random rotation of its codes: it generates the same from the prior."""
    turned = copy.deepcopy(decoder)
    first = cast(nn.Linear, turned.body[0])
    rotation, _ = torch.linalg.qr(torch.randn(first.in_features, first.in_features, generator=generator))
    with torch.no_grad():
        first.weight.copy_(first.weight @ rotation)
    return turned


def generators(untrained_seeds=range(30), effort=FEWER, final=FINAL) -> Study:
    """Untrained decoders and the one written by hand, each judged alone: generators.csv."""

    def make(cases: list[Case], device: str):
        for case in cases:
            seed, name = case["seed"], case["kind"]
            if name == "untrained":
                model = untrained(make_config(seed=seed, device="cpu"))[0].eval()
                decoder, name, samples = getattr(model, case["pathway"]).decoder, f"{name} {case['pathway']}", effort
            else:
                decoder, samples = hand_written(SLOPE), final
            yield [case | columns(examine_decoder(decoder, LATENT, samples, seed, name).report)]

    parts = {
        f"untrained-seed{seed}": [{"kind": "untrained", "seed": seed, "pathway": p} for p in "AB"]
        for seed in untrained_seeds
    }
    parts["hand-written"] = [{"kind": "hand-written", "seed": 0, "pathway": "A"}]
    return Study("generators", ("kind", "seed", "pathway"), parts, make)


@torch.no_grad()
def argmax_coverage(decoder, z: Tensor, draws) -> dict[int, float]:
    """Coverage by argmax of the first N codes z (S, d), for each N in `draws`."""
    return measured_coverage(decode(decoder, z), draws)


def sobol(draws=SOBOL_DRAWS, seeds=SCRAMBLES) -> Study:
    """Coverage by argmax of Sobol and of independent prior samples: sobol.csv."""

    def decoders() -> dict:
        model = Run(REFERENCE).model()
        return {
            "hand-written": hand_written(SLOPE),
            "A": model.A.decoder,
            "B": model.B.decoder,
            "uncoupled A": kept().A.decoder,
            "rotated": rotated(hand_written(SLOPE), stream(0, 0, "rotation")),
        }

    def make(cases: list[Case], device: str):
        known = decoders() if cases else {}
        for case in cases:
            name, seed, most = case["decoder"], case["seed"], max(draws)
            if case["sampler"] == "sobol":
                z = sobol_normal(most, LATENT, seed)
            else:
                z = torch.randn(most, LATENT, generator=stream(seed, 0, f"independent {name}"))
            found = argmax_coverage(known[name], z, draws)
            yield [case | {f"coverage_{n}": share for n, share in found.items()}]

    parts = {
        name.replace(" ", "-"): [
            {"decoder": name, "sampler": sampler, "seed": seed}
            for seed in seeds
            for sampler in ("sobol", "independent")
        ]
        for name in ("hand-written", "A", "B", "uncoupled A", "rotated")
    }
    return Study("sobol", ("decoder", "sampler", "seed"), parts, make)


def early(epochs=range(1, 41), seeds=range(10), effort=EARLY, **parameters) -> Study:
    """How likely a complete evaluation is at each of the first epochs of the preset `document`: early.csv."""

    def configure(case: Case) -> Config:
        return make_config(seed=case["seed"], device="cpu", **parameters)

    def measure(case: Case, config: Config, state: State) -> list[dict]:
        epoch = int(state["epoch"])
        pair = Pair(trained(state, config), history_row(state), (config.seed, epoch, "early"), effort)
        return [{"epoch": epoch, **measured(pair, ("complete", "kl_uniform"))}]

    def make(cases: list[Case], device: str):
        return train_cases(cases, device, configure, tuple(epochs), measure)

    parts = {f"seed{seed}": [{"seed": seed}] for seed in seeds}
    return Study("early", ("seed", "epoch"), parts, make, lambda case: [{"epoch": epoch} for epoch in epochs])


def claimed_errors(sizes=ERROR_SIZES, replicates=30, truth=FINAL.prior, seeds=range(3), **parameters) -> Study:
    """How often the error of KL(U||p) contains the truth, for final decoders of `document`: claimed_errors.csv.

    `within`: share of the replicates that are within two errors of the estimate from `truth` samples."""

    def configure(case: Case) -> Config:
        return make_config(seed=case["seed"], device="cpu", **parameters)

    def measure(case: Case, config: Config, state: State) -> list[dict]:
        model, rows = trained(state, config), []
        for p in "AB":
            decoder, seed = getattr(model, p).decoder, case["seed"]
            known, _ = generate(decoder, config.latent, truth, 1, stream(seed, 0, f"truth {p}"))
            for size in sizes:
                streams = (stream(seed, k, f"errors {p} {size}") for k in range(replicates))
                found = [generate(decoder, config.latent, size, 1, one)[0] for one in streams]
                off = torch.tensor([one.kl_uniform() - known.kl_uniform() for one in found])
                claimed = torch.tensor([math.hypot(one.kl_error, known.kl_error) for one in found])
                row = {"kl_uniform": known.kl_uniform(), "kl_uniform_error": known.kl_error}
                row |= {"bias": off.mean().item(), "spread": off.std().item(), "claimed": claimed.mean().item()}
                rows.append({"pathway": p, "samples": size, **row, "within": share(off.abs() <= 2 * claimed)})
        return rows

    def make(cases: list[Case], device: str):
        return train_cases(cases, device, configure, (make_config(**parameters).total_epochs,), measure)

    parts = {f"seed{seed}": [{"seed": seed}] for seed in seeds}
    keys = ("seed", "pathway", "samples")
    return Study(
        "claimed_errors", keys, parts, make, lambda case: [{"pathway": p, "samples": n} for p in "AB" for n in sizes]
    )


@torch.no_grad()
def importance_sampling(decoder: nn.Module, proposal: Posterior, tens: int, generator) -> tuple[Tensor, Tensor]:
    """p(x) of every operation by importance sampling: estimate and standard error, (M,) float64.

    Codes come in tens, one from the prior and nine from the operation's proposal (M, d), all weighted for that mixture,
    so that no weight exceeds 10 p(x|z). Unbiased for every proposal; `tens` at least 2.
    Equation: eq-importance. Source: ours."""
    indicators = one_hot(all_operations().to(generator.device))

    def weighted(k: int) -> Tensor:
        noise = torch.randn(proposal.mean.shape, generator=generator, device=generator.device)
        z = reparameterise(proposal, noise) if k else noise
        surprise = (z - proposal.mean).square() * torch.exp(-proposal.log_variance) + proposal.log_variance
        log_odds = 0.5 * (z.square() - surprise).sum(1)  # log q(z|x) - log p(z)
        log_weight = math.log(10) - nn.functional.softplus(log_odds + math.log(9))  # of p / ((9 q + p) / 10)
        return torch.exp((log_likelihood(decoder(z), indicators) + log_weight).double()) / 10

    return mean_and_error(sum((weighted(k) for k in range(1, 10)), weighted(0)) for _ in range(tens))


@torch.no_grad()
def agreement(decoder, posterior: Posterior, name: str, prior: int = 2**21, tens: int = TENS) -> dict[str, float]:
    """How far both estimates of p(x) differ, in standard errors of the difference: share of operations within three."""
    marginal, _ = generate(decoder, LATENT, prior, 1, stream(0, 0, f"matrix {name}"))
    wider = posterior._replace(log_variance=posterior.log_variance + math.log(WIDER))
    p, error = importance_sampling(decoder, wider, tens, stream(0, 0, f"importance {name}"))
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


@torch.no_grad()
def proposals(model: str, pathway: str) -> tuple[nn.Module, dict[str, Posterior]]:
    """The decoder of a pathway and what may propose codes for it; the injected code in the document's last epoch."""
    run, trits = Run(REFERENCE), all_operations().float()
    pair = kept() if model == "uncoupled" else run.model()
    own, other = (getattr(pair, p).encoder(trits) for p in (pathway, "AB".replace(pathway, "")))
    rho = run.history["rho"].iloc[-1]
    return getattr(pair, pathway).decoder, {"own": own, "injected": injected(own, other, rho, 1.0, 1.0)}


def importance() -> Study:
    """p(x) by importance sampling with the encoder, against the matrix product: importance.csv."""

    def make(cases: list[Case], device: str):
        for case in cases:
            decoder, given = proposals(case["model"], case["pathway"])
            yield [case | agreement(decoder, given[case["proposal"]], f"{case['model']} {case['pathway']}")]

    kinds = {"uncoupled": ("own",), "document": ("own", "injected")}
    parts = {
        model: [{"model": model, "pathway": p, "proposal": kind} for p in "AB" for kind in chosen]
        for model, chosen in kinds.items()
    }
    return Study("importance", ("model", "pathway", "proposal"), parts, make)
