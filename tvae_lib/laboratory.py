"""Chapter 9: everything that is measured of a trained pair, in one call and with standard errors.

What a decoder generates alone, what the codes say, and what comes back; each quantity has its function in
`operations`, `evaluation` or `codes`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tvae_lib import codes, evaluation
from tvae_lib.dual import DualVAE, injected
from tvae_lib.operations import SIZE, all_operations, coverage_deviation, rarefied
from tvae_lib.streams import stream
from tvae_lib.vae import Posterior, kl_to_prior, tempered

DRAWS = (10_000, 50_000, 195_000)


class Effort(NamedTuple):
    """Samples behind an examination.

    Prior samples behind p(x); evaluations whose mean is the measured coverage; codes for information and for the parts
    of the rate; codes of each operation for distortion and reconstruction.
    """

    prior: int = 10_485_760
    evaluations: int = 20
    information: int = 4096
    parts: int = 1024
    codes: int = 16


FINAL = Effort()


def mean_and_error(values: Tensor) -> list[float]:
    """Mean of independent values (n,) and its standard error."""
    return [values.mean().item(), values.std().item() / math.sqrt(len(values))]


def decoder_alone(decoder, latent: int, effort: Effort, seed: int, name: str, draws=DRAWS) -> dict:
    """What a decoder generates from z ~ N(0, I): divergence, predicted and measured coverage, argmax cells.

    `coverage` predicts from p(x) the mean and the standard deviation of one evaluation, at each N in `draws`;
    `measured` is the mean of evaluations on other samples, and its standard error. `argmax_coverage` is
    expected of one evaluation; `cells` is the share of operations that argmax gave at all in them.
    Streams are those of `seed` and `name`.
    """
    prior, most = effort.prior, max(draws)
    marginal, _ = evaluation.generate(decoder, latent, prior, 1, stream(seed, 0, f"examined {name}"))
    few = 16 * evaluation.chunk_size(prior, torch.device("cpu"))
    _, other = evaluation.generate(decoder, latent, few, effort.evaluations * most, stream(seed, 0, f"measured {name}"))
    measured = [evaluation.coverage(block, draws) for block in other.sampled.split(most)]
    folds = [torch.bincount(fold, minlength=SIZE) for fold in other.argmax.split(2 * most)]
    log_p = marginal.log_p()
    return {
        "kl_uniform": [marginal.kl_uniform(), marginal.kl_error],
        "min_log_p": log_p.min().item(),
        "sum_p": marginal.p.sum().item(),
        "has": (marginal.p >= 0.5 / SIZE).double().mean().item(),
        "coverage": {n: [marginal.expected_coverage(n), coverage_deviation(marginal.p, n)] for n in draws},
        "measured": {n: mean_and_error(torch.tensor([row[n] for row in measured])) for n in draws},
        "full_coverage": marginal.full_coverage(most),
        "argmax_coverage": {n: mean_and_error(torch.tensor([rarefied(f, n) for f in folds])) for n in draws},
        "cells": (sum(folds) > 0).double().mean().item(),
    }


@torch.no_grad()
def examine(model: DualVAE, rho: float, tau_A: float, tau_B: float, seed: int = 0, effort: Effort = FINAL) -> dict:
    """The complete evaluation of a pair, as plain numbers for JSON, in nats; what is sampled is [value, its error].

    Codes are sampled at the temperatures; `read` is what is measured of the injected codes that the decoders read at
    permeability `rho`. Means are reconstructed without noise. `alone` is `decoder_alone` of each decoder.
    """
    trits = all_operations().float()
    given = [vae.encoder(trits) for vae in (model.A, model.B)]
    used = [tempered(posterior, tau) for posterior, tau in zip(given, (tau_A, tau_B), strict=True)]
    exact = evaluation.reconstruction(model, trits, rho)
    report = {}
    for i, (pathway, vae) in enumerate((("A", model.A), ("B", model.B))):
        generator = stream(seed, 0, f"examined codes {pathway}")
        own, taus = used[i], (tau_A, tau_B) if i == 0 else (tau_B, tau_A)
        read = injected(given[i], given[1 - i], rho, *taus)
        split = codes.rate_split(own, effort.parts, generator)
        report[pathway] = {
            "charged": kl_to_prior(given[i]).double().mean().item(),
            "rate": kl_to_prior(own).double().mean().item(),
            "active": codes.active_units(given[i]),
            "total_correlation": [split.parts[1].item(), split.errors[1].item()],
            "dimension_wise_kl": [split.parts[2].item(), split.errors[2].item()],
            **{
                kind: {
                    "information": list(evaluation.information(posterior, effort.information, generator)),
                    "distortion": _distortion(vae.decoder, posterior, effort.codes, generator),
                    "exact_at_mean": exact[f"{reading}_{pathway}"],
                    "exact": list(evaluation.sampled_reconstruction(vae.decoder, posterior, effort.codes, generator)),
                }
                for kind, reading, posterior in (("own", "alone", own), ("read", "coupled", read))
            },
            "alone": decoder_alone(vae.decoder, own.mean.shape[1], effort, seed, pathway),
        }
    generator = stream(seed, 0, "examined pair")
    both = Posterior(*(torch.cat(parts, 1) for parts in zip(*used, strict=True)))
    report["pair"] = {
        "joint_information": list(evaluation.information(both, effort.information, generator)),
        "shared_information": list(codes.shared_information(*used, effort.information, generator)),
        "cka": evaluation.cka(given[0].mean, given[1].mean),
    }
    return report


def _distortion(decoder, posterior: Posterior, samples: int, generator) -> list[float]:
    log_likelihood, errors = evaluation.expected_log_likelihood(decoder, posterior, samples, generator)
    return [-log_likelihood.mean().item(), errors.square().sum().sqrt().item() / SIZE]


def columns(report: dict) -> dict[str, float]:
    """A part of a report in columns: `kl_uniform`, `kl_uniform_error`, `coverage_10000`, `coverage_10000_error`, ..."""
    row = {}
    for name, value in report.items():
        for n, entry in value.items() if isinstance(value, dict) else [("", value)]:
            column = f"{name}_{n}".rstrip("_")
            values = entry if isinstance(entry, list) else [entry]
            row |= dict(zip((column, f"{column}_error"), values, strict=False))
    return row
