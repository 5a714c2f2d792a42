"""Whole runs, settings times seeds, each a run directory by the notebook of chapter 8, and what is kept of them."""

import math
import os
import re
import sys
from pathlib import Path

import pandas as pd
import torch
import yaml

from studies import reports
from studies.choices import seeds
from tvae_lib.coverage import is_held
from tvae_lib.errors import ParameterError, UserError, shown
from tvae_lib.measures.generation import generate
from tvae_lib.measures.reconstruction import sampled_reconstruction, trit_accuracy
from tvae_lib.operations import SIZE, all_operations, split
from tvae_lib.rng import stream
from tvae_lib.runs.directory import Run
from tvae_lib.runs.execute import execute_together
from tvae_lib.runs.files import FORMAT, advised, file_error, read_sealed, read_table, sha256, write_sealed, write_table
from tvae_lib.system import schedules
from tvae_lib.system.dual import injected
from tvae_lib.training.config import ROOT, Config, make_config

RUNS, RESULTS = ROOT / "runs" / "studies", ROOT / "results" / "sweep"
PLAN = yaml.safe_load((Path(__file__).parent / "whole_runs.yaml").read_text(encoding="utf-8"))


def run_dir(folder: Path, setting: str, seed: int) -> Path:
    """Where the run of a setting and a seed is kept."""
    return folder / setting / f"seed{seed}"


def configuration(folder: Path, setting: str, seed: int, **parameters) -> Config:
    """The configuration of a setting's run."""
    return make_config(**parameters, seed=seed, run_dir=str(run_dir(folder, setting, seed)))


def together(setting: str, seeds: list[int], parameters: dict, folder: Path = RUNS) -> None:
    """Train the runs of a setting as one ensemble; `parameters` are those of the setting, and the device.

    A run that diverges is left unfinished and named; the others are not to suffer from it."""
    try:
        execute_together([configuration(folder, setting, seed, **parameters) for seed in seeds])
    except ParameterError:
        raise
    except UserError as error:
        print(error, file=sys.stderr)


def held_shares(run: Run) -> pd.DataFrame:
    """Share of the operations that each decoder has at every evaluation: with at least half the uniform probability."""
    epochs, log_p = run.log_p()
    shares = is_held(log_p.double().exp()).double().mean(2)
    return pd.DataFrame({"epoch": epochs.tolist(), "held_A": shares[:, 0].tolist(), "held_B": shares[:, 1].tolist()})


def conditions(run: Run) -> dict:
    """How far a run met Theorem 4's conditions: share of balanced epochs, rho when phase 4 starts, tau_A below zero."""
    history = run.history
    at_4 = round(schedules.PHASE_STARTS[3] * len(history) / schedules.CLOCK)
    return {
        "balanced": history["gate"].mean(),
        "rho_before_phase_4": history["rho"][at_4 - 1],
        "epochs_below_zero": int((history["tau_A"] < 0).sum()),
    }


def trits(run: Run) -> dict:
    """`trit_accuracy` at each snapshot after the first and at the end: {epoch: {pathway: nine shares}}."""
    everything, config = all_operations().float(), make_config(**run.config["parameters"])
    rho = run.history.set_index("epoch")["rho"]
    models = {epoch: run.model(epoch) for epoch in run.snapshots() if epoch} | {rho.index[-1]: run.model()}
    found = {epoch: trit_accuracy(model, everything, config.mixed_at(rho[epoch])) for epoch, model in models.items()}
    return {str(epoch): dict(zip("AB", shares.tolist(), strict=True)) for epoch, shares in found.items()}


def generalisation(run: Run) -> dict:
    """What each decoder makes of training and of held-out operations: {pathway: {part: {measure: value}}}.

    `surprise`: the mean of log 1/(M p), corrected, in nats; `exact`: fraction that comes back by argmax from injected
    codes, sampled as in the last epoch, and its standard error."""
    config, last, model = make_config(**run.config["parameters"]), run.history.iloc[-1], run.model()
    generator = stream(config.seed, 0, "split")
    parts = dict(zip(("training", "held_out"), split(config.holdout, generator, config.holdout_by), strict=True))
    found: dict = {}
    for pathway, other in (("A", "B"), ("B", "A")):
        generator = stream(config.seed, 0, f"generalisation {pathway}")
        decoder = getattr(model, pathway).decoder
        marginal, _ = generate(decoder, config.latent, config.final_samples, 1, generator)
        taus = last[f"tau_{pathway}"], last[f"tau_{other}"]
        found[pathway] = {}
        for name, chosen in parts.items():
            with torch.no_grad():
                own, partner = (getattr(model, p).encoder(all_operations()[chosen].float()) for p in (pathway, other))
            read = injected(own, partner, config.mixed_at(last["rho"]), *taus)
            exact = sampled_reconstruction(decoder, read, 16, generator, chosen)
            found[pathway][name] = {"surprise": marginal.kl_uniform(chosen=chosen), "exact": list(exact)}
    return found


def summary(setting: str, seed: int, run: Run, examined: bool = False) -> dict:
    """What is kept of a finished run; `examined`: with the complete evaluation, a minute on two cores."""
    more, last = {}, run.history.iloc[-1]
    if examined:
        rho = make_config(**run.config["parameters"]).mixed_at(last["rho"])
        more["laboratory"] = reports.examine(run.model(), rho, last["tau_A"], last["tau_B"], seed)
    if run.config["parameters"]["holdout"]:
        more["generalisation"] = generalisation(run)
    return {
        "setting": setting,
        "seed": seed,
        "command": f"snakemake --snakefile studies/Snakefile results/sweep/{setting}/seed{seed}.json",
        "parameters": run.config["parameters"],
        "sessions": run.timing["sessions"],
        "metrics": run.metrics,
        "conditions": conditions(run),
        "trits": trits(run),
        **more,
    }


def summarise(setting: str, seed: int, folder: Path = RUNS, output: Path | None = None, examined: bool = False) -> None:
    """Write the summary of a finished run and, beside it, its evaluations with the operations held.

    ParameterError where the run is not finished."""
    run = Run(run_dir(folder, setting, seed))
    if not run.finished:
        raise ParameterError(f"seed is {seed}, but '{run.path}' holds no finished run of setting {setting}.")
    output = output or run_dir(RESULTS, setting, seed).with_suffix(".json")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_table(output.with_suffix(".csv"), run.evaluations.merge(held_shares(run), on="epoch"))
    kept = summary(setting, seed, run, examined)
    write_sealed(output, kept | {"format": FORMAT, "sha256": sha256(output.with_suffix(".csv"))})


def final(setting: str) -> pd.DataFrame:
    """What is measured at the end of every examined run of a setting, a row for each seed and pathway.

    Divergence from uniform and its least M p(x), expected coverage; information, rate and distortion of its codes at
    its temperature, in nats; shares that come back exactly from the codes it reads, means and samples, and from the
    partner's means. FileError as for `summaries`."""
    rows = []
    for summary in summaries(setting):
        for pathway, row in zip("AB", ("coupled_A", "coupled_B"), strict=True):
            one, metrics = summary["laboratory"][pathway], summary["metrics"]
            alone, own, read = one["alone"], one["own"], one["read"]
            rows.append(
                {
                    **{"seed": summary["seed"], "pathway": pathway},
                    "kl_uniform": alone["kl_uniform"][0],
                    "least": SIZE * math.exp(alone["min_log_p"]),
                    "coverage_50000": alone["coverage"]["50000"][0],
                    "coverage_195000": alone["coverage"]["195000"][0],
                    **{f"{name}_195000": alone[f"{name}_coverage"]["195000"][0] for name in ("argmax", "rounded")},
                    "information": own["information"][0],
                    "rate": one["rate"],
                    "distortion": own["distortion"][0],
                    "exact_at_mean": read["exact_at_mean"],
                    "exact": read["exact"][0],
                    "exact_coupled": metrics["reconstruction"]["training"][row],
                    "kl_half": summary["laboratory"]["pair"]["half"].get("kl_uniform", [math.nan])[0],
                }
            )
    return pd.DataFrame(rows)


def held_out(setting: str) -> pd.DataFrame:
    """What becomes of the operations that were held out of every run of a setting, a row for each seed and pathway.

    `exact`: the share that comes back from the mean of the code that a decoder reads; `rarer`: how much less the mean
    of log p(x) is than that of the operations trained on, in nats. FileError as for `summaries`."""
    rows = []
    for summary in summaries(setting):
        read = "alone" if make_config(**summary["parameters"]).mixed_at(1.0) == 0 else "coupled"
        for pathway in "AB":
            surprise = {part: found["surprise"] for part, found in summary["generalisation"][pathway].items()}
            rows.append(
                {
                    **{"seed": summary["seed"], "pathway": pathway},
                    "exact": summary["metrics"]["reconstruction"]["held_out"][f"{read}_{pathway}"],
                    "rarer": surprise["held_out"] - surprise["training"],
                }
            )
    return pd.DataFrame(rows)


def evaluations(setting: str) -> pd.DataFrame:
    """The kept evaluations of all seeds of a setting, with a column `seed`; FileError as for `summaries`."""
    kept = [(summary["seed"], run_dir(RESULTS, setting, summary["seed"])) for summary in summaries(setting)]
    return pd.concat([read_table(path.with_suffix(".csv")).assign(seed=seed) for seed, path in kept])


def summaries(setting: str) -> list[dict]:
    """The kept summaries of a setting, by seed.

    FileError where one that `whole_runs.yaml` asks for is missing, or one is not what was kept, with the command that
    makes it again."""
    names = [re.fullmatch(r"seed(0|[1-9]\d*)\.(json|csv)", path.name) for path in (RESULTS / setting).glob("seed*")]
    asked = seeds(PLAN["seeds_of"].get(setting, PLAN["seeds"])) if setting in PLAN["settings"] else []
    found = sorted({int(name[1]) for name in names if name} | set(asked))
    if not found:
        raise file_error(RESULTS / setting, "holds no results", "`make studies` makes those of studies/whole_runs.yaml")
    return [_kept(setting, seed) for seed in found]


def _kept(setting: str, seed: int) -> dict:
    path = run_dir(RESULTS, setting, seed).with_suffix(".json")
    table, command = path.with_suffix(".csv"), f"`make studies ONLY={setting} SEEDS={seed}`"
    for file in (path, table):
        if not os.path.lexists(file):
            raise file_error(file, "is missing", f"{command} makes it, once seed{seed}.json is not there")
    with advised(f"delete it, and {command} makes it again"):
        kept = read_sealed(path)
        if (kept.get("setting"), kept.get("seed")) != (setting, seed):
            raise file_error(path, f"is of setting {shown(kept.get('setting'))}, seed {shown(kept.get('seed'))}")
    if kept.get("sha256") != sha256(table):
        remedy = f"delete it and seed{seed}.json, and {command} makes both again"
        raise file_error(table, "is not what was kept, as its digest shows", remedy)
    return kept
