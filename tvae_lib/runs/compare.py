"""Runs side by side: what their configurations differ in, and what their evaluations and histories have in common."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tvae_lib.errors import ParameterError, shown
from tvae_lib.runs.directory import Run
from tvae_lib.training.config import ROOT

PLACES = ("", "runs", "results")  # from the root of the book, where a run that is named is looked for


def entries_of(value, name: str) -> list[str]:
    """The entries of a list with commas between them; ParameterError where there are none, or one twice."""
    entries = [entry.strip() for entry in value.split(",")] if isinstance(value, str) else []
    if not all(entries) or not entries:
        raise ParameterError(f"{name} is {shown(value)}; it must be names with commas between.")
    if twice := next((entry for entry in entries if entries.count(entry) > 1), None):
        raise ParameterError(f"{name} is {shown(value)}, with {twice} twice; each must be named once.")
    return entries


def find(name: str) -> Run:
    """The run with this name, a folder from here, from the root, or in runs or results there, that has evaluations.

    ParameterError where there is none."""
    folders = [Path(name).expanduser(), *(ROOT / place / name for place in PLACES)]
    path = next((folder for folder in folders if (folder / "config.json").is_file()), None)
    if path is None:
        near = sorted(p.parent.name for place in PLACES[1:] for p in (ROOT / place).glob("*/config.json"))
        raise ParameterError(
            f"runs is {shown(name)}, where no run is; it must be a run's folder, or {', '.join(near)}."
        )
    if not os.path.lexists(path / "evaluations.csv"):
        raise ParameterError(f"runs is {shown(name)}, a run without an evaluation; it must be trained further first.")
    return Run(path)


def chosen(runs: str, baseline: str) -> tuple[dict[str, Run], str]:
    """The runs by name, two at least, and the name of the one that the others are compared with: the first if empty.

    ParameterError, one sentence, where a name leads to no run; FileError where a run is damaged."""
    names = entries_of(runs, "runs")
    if len(names) < 2:
        raise ParameterError(f"runs is {shown(runs)}; it must be two runs at least, with commas between.")
    found = {name: find(name) for name in names}
    if baseline and baseline not in names:
        raise ParameterError(f"baseline is {shown(baseline)}; it must be one of the runs, {', '.join(names)}.")
    return found, baseline or names[0]


def differing(runs: dict[str, Run]) -> pd.DataFrame:
    """The parameters that are not the same in all runs, a row each, and a column for each run."""
    table = pd.DataFrame({name: run.config["parameters"] for name, run in runs.items()}, dtype=object)
    told = table.astype(str)
    return table[told.ne(told.iloc[:, 0], axis=0).any(axis=1)]


def kinds(runs: dict[str, Run]) -> dict[str, list[str]]:
    """The names of runs that differ in their seed alone, by the first of them without what says its seed."""
    alike: dict[str, list[str]] = {}
    for name, run in runs.items():
        parameters = {key: value for key, value in run.config["parameters"].items() if key != "seed"}
        alike.setdefault(repr(sorted(parameters.items(), key=str)), []).append(name)
    labels = [re.sub(r"[-_/]?seed[-_]?\d+$", "", names[0]) or names[0] for names in alike.values()]
    unique = [
        label if labels.count(label) == 1 else names[0] for label, names in zip(labels, alike.values(), strict=True)
    ]
    return dict(zip(unique, alike.values(), strict=True))


def judged_epochs(runs: dict[str, Run]) -> pd.DataFrame:
    """Every evaluation of every run, and the history at its epoch, a row each, with columns `run` and `seed` first."""
    parts = []
    for name, run in runs.items():
        table = run.evaluations.merge(run.history, on="epoch", how="left", suffixes=("", "_history"))
        of = pd.DataFrame({"run": name, "seed": run.config["parameters"]["seed"]}, index=table.index)
        parts.append(pd.concat([of, table], axis=1))
    return pd.concat(parts, ignore_index=True)


def check_metrics(metrics: str, table: pd.DataFrame) -> list[str]:
    """The metrics that are asked for, each a column of the table for A and for B; ParameterError where one is none."""
    known = sorted(c[:-2] for c in map(str, table) if c.endswith("_A") and f"{c[:-2]}_B" in table)
    for metric in (names := entries_of(metrics, "metrics")):
        if metric not in known:
            raise ParameterError(f"metrics is {shown(metric)}; it must be of {', '.join(known)}.")
    return names


def last_common(table: pd.DataFrame, names: Sequence[str]) -> int:
    """The last epoch at which all of these runs were evaluated."""
    counts = table[table["run"].isin(names)].groupby("epoch")["run"].nunique()
    return int(counts.index[counts == len(set(names))].max())
