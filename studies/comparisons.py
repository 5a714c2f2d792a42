"""Variants of a table side by side: what each has at the end, and how it compares with another, paired by seed."""

import math
from typing import NamedTuple

import pandas as pd
from scipy.stats import quantile_test

from studies.tables import interval

LAST, SINCE = 400, 200  # epochs: the last, and the first of the last half
NEARLY = 0.99  # share of the operations from which "every one comes back" is said


class Compared(NamedTuple):
    """A mean or median over seeds, its interval, and the number of seeds."""

    mean: float
    low: float
    high: float
    seeds: int


def at_end(table: pd.DataFrame, variant: str, column: str) -> pd.Series:
    """A column of a variant at the last epoch, by seed."""
    chosen = table[(table["variant"] == variant) & (table["epoch"] == LAST)]
    return chosen.set_index("seed")[column].sort_index()


def difference(these: pd.Series, those: pd.Series, level: float = 0.95) -> Compared:
    """These less those, of the seeds that both have: the mean, and its interval by Student's t."""
    apart = (these - those).dropna()
    alike = (apart == apart.iloc[0]).all()
    mean, half = (float(apart.iloc[0]), 0.0) if alike else interval(apart, level)
    return Compared(mean, mean - half, mean + half, len(apart))


def ratio(these: pd.Series, those: pd.Series, level: float = 0.95) -> Compared:
    """These over those, of the seeds that both have: the geometric mean."""
    mean, low, high, seeds = difference(these.map(math.log), those.map(math.log), level)
    return Compared(math.exp(mean), math.exp(low), math.exp(high), seeds)


def median_difference(these: pd.Series, those: pd.Series, level: float = 0.95) -> Compared:
    """These less those, of the seeds that both have, either perhaps infinite: the median, and its interval by ranks.

    Of too few seeds the interval is everything: at a level of 95 % it takes six."""
    seeds = these.index.intersection(those.index)
    apart = (these[seeds] - those[seeds]).fillna(0.0)  # two that are infinite are alike
    low, high = quantile_test(apart, q=0, p=0.5).confidence_interval(level)
    low, high = (-math.inf, math.inf) if math.isnan(low) else (float(low), float(high))
    return Compared(float(apart.median()), low, high, len(apart))


def until_exact(table: pd.DataFrame, variant: str, pathway: str) -> pd.Series:
    """The first epoch judged at which nearly all operations come back from the mean of the code read, by seed.

    Infinite where none is."""
    chosen = table[table["variant"] == variant].sort_values("epoch")
    back = chosen[chosen[f"exact_injected_{pathway}"] >= NEARLY].groupby("seed")["epoch"].first()
    return back.reindex(chosen["seed"].unique()).astype(float).fillna(math.inf).sort_index()


def entropy_gap(table: pd.DataFrame, variant: str) -> pd.Series:
    """|H_A - H_B| of the last half's judged epochs, in nats: a mean by seed."""
    late = table[(table["variant"] == variant) & (table["epoch"] >= SINCE)]
    return (late["entropy_A"] - late["entropy_B"]).abs().groupby(late["seed"]).mean()


def steadiness(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Whether a setting's whole runs improve steadily, and lose nothing: a row for each pathway and seed.

    `not_rising`: share of the steps between evaluations, from the first after training began, in which KL(U||p) does
    not rise by more than twice its error; `held`: the least share of the operations held once 99 % were, or at the end
    where they never were."""
    rows = []
    for pathway in "AB":
        kl, error, held = (f"{name}_{pathway}" for name in ("kl_uniform", "kl_uniform_error", "held"))
        for seed, run in evaluations[evaluations["epoch"] > 0].sort_values("epoch").groupby("seed"):
            rise = run[kl].diff().iloc[1:]
            slack = 2 * (run[error] ** 2 + run[error].shift() ** 2).pow(0.5).iloc[1:]
            reached = run[held] >= NEARLY
            since = run.loc[reached.idxmax() :] if reached.any() else run.tail(1)
            rows.append((pathway, seed, (rise <= slack).mean(), since[held].min()))
    return pd.DataFrame(rows, columns=["pathway", "seed", "not_rising", "held"])
