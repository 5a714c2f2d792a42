"""The complete evaluation of a trained pair, with standard errors: what `whole_runs` keeps, and chapter 9 shows."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tvae_lib.coverage import coverage_deviation, expected_pair_coverage, is_held, measured_coverage, pair_coverage
from tvae_lib.measures import codes
from tvae_lib.measures.generation import Draws, Marginal, chunk_size, generate, half_each
from tvae_lib.measures.reconstruction import distortion, exact_shares, sampled_reconstruction
from tvae_lib.operations import SIZE, all_operations
from tvae_lib.rng import stream
from tvae_lib.system.dual import DualVAE, injected
from tvae_lib.system.vae import Posterior, kl_to_prior, tempered

DRAWS = (10_000, 50_000, 195_000)


class Samples(NamedTuple):
    """Samples behind an examination.

    Prior samples behind p(x); draws behind the masses of cells; evaluations whose mean is the measured coverage; codes
    for information and for the parts of the rate; codes of each operation for distortion and reconstruction."""

    prior: int = 10_485_760
    cells: int = 3_900_000
    evaluations: int = 20
    information: int = 4096
    parts: int = 1024
    codes: int = 16


FINAL = Samples()


def mean_and_error_of(values: list[float]) -> list[float]:
    """Mean of independent values and its standard error."""
    spread = torch.tensor(values)
    return [spread.mean().item(), spread.std().item() / math.sqrt(len(values))]


@torch.no_grad()
def shared_information(first: Posterior, second: Posterior, samples: int, generator) -> tuple[float, float]:
    """I(z_A; z_B) of codes of the same operations, (n, d) and (n, d'), which are independent given x; standard error.
    Equation: eq-shared-information. Source: ours. In nats, at most log n."""
    both = codes.joint(first, second)
    _, _, z = codes.sampled(both, samples, generator)
    d = first.mean.shape[1]
    gain = codes.log_aggregate(z, both) - codes.log_aggregate(z[:, :d], first) - codes.log_aggregate(z[:, d:], second)
    return gain.mean().item(), gain.std().item() / math.sqrt(samples)


def rarefied(counts: Tensor, draws: int) -> float:
    """Expected fraction of the M operations among N of S draws, given how often each came up in all S: (M,) integers.

    Unbiased for the expected coverage of N new draws, whatever law the S draws are from. ValueError where N > S.
    Equation: eq-rarefied. Source: Hurlbert (1971)."""
    counts = counts.double()
    total = counts.sum()
    if not 0 <= draws <= total:
        raise ValueError(f"draws is {draws}; it must be from 0 to {int(total)}, the number that was drawn.")
    rest = total - counts
    log_missed = torch.lgamma(rest + 1) - torch.lgamma((rest - draws).clamp(min=0) + 1)
    log_missed += torch.lgamma(total - draws + 1) - torch.lgamma(total + 1)
    return torch.where(rest < draws, 1.0, -torch.expm1(log_missed)).mean().item()


class Examined(NamedTuple):
    """The report on a decoder, its estimate of p(x), and the draws of the evaluations behind its measured coverage."""

    report: dict
    marginal: Marginal
    draws: Draws


def examine_decoder(decoder, latent: int, samples: Samples, seed: int, name: str, draws=DRAWS) -> Examined:
    """What a decoder generates from z ~ N(0, I): divergence, predicted and measured coverage, masses of cells.

    `coverage` predicts from p(x) the mean and the standard deviation of one evaluation, at each N in `draws`;
    `measured` is the mean of evaluations on other samples, and its standard error. For trits by argmax and rounded,
    `argmax_coverage` and so on predict the mean from how often each operation came up among `cells` draws, and give the
    prediction's standard error; `argmax_cells` is the share of operations that came up at all. Streams are those of
    `seed` and `name`."""
    prior, most = samples.prior, max(draws)
    marginal, first = generate(decoder, latent, prior, samples.cells, stream(seed, 0, f"examined {name}"))
    few = 16 * chunk_size(prior, torch.device("cpu"))
    _, other = generate(decoder, latent, few, samples.evaluations * most, stream(seed, 0, f"measured {name}"))
    report = {
        "kl_uniform": [marginal.kl_uniform(), marginal.kl_error],
        "min_log_p": marginal.log_p().min().item(),
        "sum_p": marginal.p.sum().item(),
        "has": is_held(marginal.p).double().mean().item(),
        "coverage": {n: [marginal.expected_coverage(n), coverage_deviation(marginal.p, n)] for n in draws},
        "measured": measured_means(other.sampled, draws),
        "full_coverage": marginal.full_coverage(most),
    }
    for reading in ("argmax", "rounded"):
        folds = [torch.bincount(fold, minlength=SIZE) for fold in getattr(first, reading).split(2 * most)]
        report |= {
            f"{reading}_coverage": {n: mean_and_error_of([rarefied(fold, n) for fold in folds]) for n in draws},
            f"{reading}_measured": measured_means(getattr(other, reading), draws),
            f"{reading}_cells": (torch.stack(folds).sum(0) > 0).double().mean().item(),
        }
    return Examined(report, marginal, other)


def measured_means(drawn: Tensor, draws) -> dict[int, list[float]]:
    """Mean and standard error of coverage over evaluations, the parts of `drawn` (n,), at each N in `draws`."""
    found = [measured_coverage(block, draws) for block in drawn.split(max(draws))]
    return {n: mean_and_error_of([row[n] for row in found]) for n in draws}


def examine_together(A: Examined, B: Examined, draws=DRAWS) -> dict:
    """Coverage of the pair at each N: half of the draws from each decoder, and the union of N from each.

    Measured under each reading, mean and standard error; and what p(x) predicts of sampled trits."""
    report: dict = {"half": {}, "union": {}}
    for reading in Draws._fields:
        blocks = zip(*(getattr(one.draws, reading).split(max(draws)) for one in (A, B)), strict=True)
        found = [pair_coverage(of_A, of_B, draws) for of_A, of_B in blocks]
        for how, of_reading in report.items():
            of_reading[reading] = {n: mean_and_error_of([row[how][n] for row in found]) for n in draws}
    for how, share in {"half": 2, "union": 1}.items():
        parts = {n: ((n + share - 1) // share, n // share) for n in draws}
        report[how]["coverage"] = {
            n: expected_pair_coverage(A.marginal.p, B.marginal.p, *part) for n, part in parts.items()
        }
    kl = half_each(A.marginal, B.marginal)
    report["half"]["kl_uniform"] = [kl.kl_uniform(), kl.kl_error]
    return report


def examine_codes(decoder, posterior: Posterior, samples: Samples, exact_at_mean: float | None, generator) -> dict:
    """What codes say about their operation, and what a decoder makes of them."""
    return {
        "information": list(codes.information(posterior, samples.information, generator)),
        "distortion": list(distortion(decoder, posterior, samples.codes, generator)),
        "exact_at_mean": exact_at_mean,
        "exact": list(sampled_reconstruction(decoder, posterior, samples.codes, generator)),
    }


@torch.no_grad()
def examine(model: DualVAE, rho: float, tau_A: float, tau_B: float, seed: int = 0, samples: Samples = FINAL) -> dict:
    """The complete evaluation of a pair, as plain numbers for JSON, in nats; what is sampled is [value, its error].

    Codes are sampled at the temperatures; `read` is what is measured of the injected codes that the decoders read at
    permeability `rho`. Means are reconstructed without noise. `alone` is `examine_decoder` of each decoder."""
    trits = all_operations().float()
    given = [vae.encoder(trits) for vae in (model.A, model.B)]
    used = [tempered(posterior, tau) for posterior, tau in zip(given, (tau_A, tau_B), strict=True)]
    exact = exact_shares(model, trits, rho)
    report, alone = {}, []
    for i, (pathway, vae) in enumerate((("A", model.A), ("B", model.B))):
        generator = stream(seed, 0, f"examined codes {pathway}")
        own, taus = used[i], (tau_A, tau_B) if i == 0 else (tau_B, tau_A)
        read = injected(given[i], given[1 - i], rho, *taus)
        split = codes.rate_split(own, samples.parts, generator)
        report[pathway] = {
            "charged": kl_to_prior(given[i]).double().mean().item(),
            "rate": kl_to_prior(own).double().mean().item(),
            "active": codes.active_units(given[i]),
            "total_correlation": [split.parts[1].item(), split.errors[1].item()],
            "dimension_wise_kl": [split.parts[2].item(), split.errors[2].item()],
            "own": examine_codes(vae.decoder, own, samples, exact[f"alone_{pathway}"], generator),
            "read": examine_codes(vae.decoder, read, samples, exact[f"coupled_{pathway}"], generator),
            "alone": (found := examine_decoder(vae.decoder, own.mean.shape[1], samples, seed, pathway)).report,
        }
        alone.append(found)
    generator = stream(seed, 0, "examined pair")
    report["pair"] = {
        "joint_information": list(codes.information(codes.joint(*used), samples.information, generator)),
        "shared_information": list(shared_information(used[0], used[1], samples.information, generator)),
        "cka": codes.cka(given[0].mean, given[1].mean),
        **examine_together(*alone),
    }
    return report


def columns(report: dict) -> dict[str, float]:
    """A part of a report in columns: `kl_uniform`, `kl_uniform_error`, `coverage_10000`, `coverage_10000_error`, ..."""
    row: dict[str, float] = {}
    for name, value in report.items():
        for n, entry in value.items() if isinstance(value, dict) else [("", value)]:
            column = f"{name}_{n}".rstrip("_")
            values = entry if isinstance(entry, list) else [entry]
            row |= dict(zip((column, f"{column}_error"), values, strict=False))
    return row
