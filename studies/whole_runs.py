"""Whole runs, settings times seeds, each a run directory by the notebook of chapter 8, and what is kept of them."""

import json
import sys
from pathlib import Path

import pandas as pd
import torch

from studies import reports
from tvae_lib.coverage import is_held
from tvae_lib.measures.generation import generate
from tvae_lib.measures.reconstruction import sampled_reconstruction, trit_accuracy
from tvae_lib.operations import all_operations, split
from tvae_lib.rng import stream
from tvae_lib.runs.directory import Run
from tvae_lib.runs.execute import execute_together
from tvae_lib.runs.files import write_json, write_table
from tvae_lib.system import schedules
from tvae_lib.system.dual import injected
from tvae_lib.training.config import ROOT, Config, ParameterError, make_config

RUNS, RESULTS = ROOT / "runs" / "studies", ROOT / "results" / "sweep"


def run_dir(folder: Path, setting: str, seed: int) -> Path:
    """Where the run of a setting and a seed is kept."""
    return folder / setting / f"seed{seed}"


def configuration(folder: Path, setting: str, seed: int, **parameters) -> Config:
    """The configuration of a setting's run; ParameterError where a parameter belongs to the study itself."""
    for name in ("seed", "run_dir"):
        if name in parameters:
            raise ParameterError(f"{name} is {parameters[name]!r} in setting {setting}; the study itself gives it.")
    return make_config(**parameters, seed=seed, run_dir=str(run_dir(folder, setting, seed)))


def together(setting: str, seeds: list[int], parameters: dict, folder: Path = RUNS) -> None:
    """Train the runs of a setting as one ensemble; `parameters` are those of the setting, and the device.

    A run that diverges is left unfinished and named; the others are not to suffer from it."""
    try:
        execute_together([configuration(folder, setting, seed, **parameters) for seed in seeds])
    except FloatingPointError as error:
        print(error, file=sys.stderr)


def held_shares(run: Run) -> pd.DataFrame:
    """Share of the operations that each decoder has at every evaluation: with at least half the uniform probability."""
    epochs, log_p = run.log_p()
    shares = is_held(log_p.double().exp()).double().mean(2)
    return pd.DataFrame({"epoch": epochs.tolist(), "held_A": shares[:, 0].tolist(), "held_B": shares[:, 1].tolist()})


def conditions(run: Run) -> dict:
    """How far a run met what Theorem 4 asks for: share of balanced epochs, rho when phase 4 starts, floored tau_A."""
    history = run.history
    at_4 = round(schedules.PHASE_STARTS[3] * len(history) / schedules.CLOCK)
    return {
        "balanced": history["gate"].mean(),
        "rho_before_phase_4": history["rho"][at_4 - 1],
        "epochs_at_tau_floor": int((history["tau_A"] <= run.config["parameters"]["tau_floor"] + 1e-6).sum()),
    }


def trits(run: Run) -> dict:
    """`trit_accuracy` at each snapshot after the first and at the end: {epoch: {pathway: nine shares}}."""
    everything = all_operations().float()
    rho = run.history.set_index("epoch")["rho"]
    models = {epoch: run.model(epoch) for epoch in run.snapshots() if epoch} | {rho.index[-1]: run.model()}
    found = {epoch: trit_accuracy(model, everything, rho[epoch]) for epoch, model in models.items()}
    return {str(epoch): dict(zip("AB", shares.tolist(), strict=True)) for epoch, shares in found.items()}


def generalisation(run: Run) -> dict:
    """What each decoder makes of training and of held-out operations: {pathway: {part: {measure: value}}}.

    `surprise`: the mean of log 1/(M p), corrected, in nats; `exact`: fraction that comes back by argmax from injected
    codes, sampled as in the last epoch, and its standard error."""
    config, last, model = make_config(**run.config["parameters"]), run.history.iloc[-1], run.model()
    parts = dict(zip(("training", "held_out"), split(config.holdout, stream(config.seed, 0, "split")), strict=True))
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
            read = injected(own, partner, last["rho"], *taus)
            exact = sampled_reconstruction(decoder, read, 16, generator, chosen)
            found[pathway][name] = {"surprise": marginal.kl_uniform(chosen=chosen), "exact": list(exact)}
    return found


def summary(setting: str, seed: int, run: Run, examined: bool = False) -> dict:
    """What is kept of a finished run; `examined`: with the complete evaluation, a minute on two cores."""
    more, last = {}, run.history.iloc[-1]
    if examined:
        more["laboratory"] = reports.examine(run.model(), last["rho"], last["tau_A"], last["tau_B"], seed)
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
    write_json(output, summary(setting, seed, run, examined))


def evaluations(setting: str) -> pd.DataFrame:
    """The kept evaluations of all seeds of a setting, with a column `seed`. FileNotFoundError where there are none."""
    files = _kept(setting, ".csv")
    return pd.concat([pd.read_csv(file).assign(seed=int(file.stem.removeprefix("seed"))) for file in files])


def summaries(setting: str) -> list[dict]:
    """The kept summaries of a setting, by seed. FileNotFoundError where there are none."""
    return [json.loads(file.read_text()) for file in _kept(setting, ".json")]


def _kept(setting: str, suffix: str) -> list[Path]:
    files = sorted((RESULTS / setting).glob(f"seed*{suffix}"), key=lambda file: int(file.stem.removeprefix("seed")))
    if not files:
        raise FileNotFoundError(f"no results of setting {setting} in {RESULTS}; `make studies` makes them.")
    return files
