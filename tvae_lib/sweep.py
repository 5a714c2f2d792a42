"""Settings times seeds: what `workflow/Snakefile` calls, run by run.

python -m tvae_lib.sweep together SETTING SEED...  train the runs of a setting as one ensemble, one directory each
python -m tvae_lib.sweep summary SETTING SEED      what is kept of a finished run: a .json and a .csv
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd
import torch

from tvae_lib import evaluation, laboratory, runs, schedules
from tvae_lib.config import ROOT, Config, ParameterError, make_config
from tvae_lib.dual import injected
from tvae_lib.operations import SIZE, all_operations, split
from tvae_lib.runs import Run
from tvae_lib.streams import stream

RUNS, RESULTS = ROOT / "runs" / "sweep", ROOT / "results" / "sweep"


def run_dir(folder: Path, setting: str, seed: int) -> Path:
    """Where the run of a setting and a seed is kept."""
    return folder / setting / f"seed{seed}"


def configuration(folder: Path, setting: str, seed: int, **parameters) -> Config:
    """The configuration of a setting's run; ParameterError where a parameter belongs to the sweep itself."""
    for name in ("seed", "run_dir"):
        if name in parameters:
            raise ParameterError(f"{name} is {parameters[name]!r} in setting {setting}; the sweep itself gives it.")
    return make_config(**parameters, seed=seed, run_dir=str(run_dir(folder, setting, seed)))


def together(setting: str, seeds: list[int], parameters: dict, folder: Path = RUNS) -> None:
    """Train the runs of a setting as one ensemble; `parameters` are those of the setting, and the device.

    A run that diverges is left unfinished and named; the others are not to suffer from it.
    """
    try:
        runs.execute_together([configuration(folder, setting, seed, **parameters) for seed in seeds])
    except FloatingPointError as error:
        print(error, file=sys.stderr)


def held(run: Run) -> pd.DataFrame:
    """Share of the operations that each decoder has at every evaluation: with at least half the uniform probability."""
    epochs, log_p = run.log_p()
    shares = (log_p.double().exp() >= 0.5 / SIZE).double().mean(2)
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
    """`evaluation.trit_accuracy` at each snapshot after the first and at the end: {epoch: {pathway: nine shares}}."""
    everything = all_operations().float()
    rho = run.history.set_index("epoch")["rho"]
    models = {epoch: run.model(epoch) for epoch in run.snapshots() if epoch} | {rho.index[-1]: run.model()}
    found = {epoch: evaluation.trit_accuracy(model, everything, rho[epoch]) for epoch, model in models.items()}
    return {str(epoch): dict(zip("AB", shares.tolist(), strict=True)) for epoch, shares in found.items()}


def generalisation(run: Run) -> dict:
    """What each decoder makes of training and of held-out operations: {pathway: {part: {measure: value}}}.

    `surprise`: the mean of log 1/(M p), corrected, in nats; `exact`: fraction that comes back by argmax from injected
    codes, sampled as in the last epoch, and its standard error.
    """
    config, last, model = make_config(**run.config["parameters"]), run.history.iloc[-1], run.model()
    parts = dict(zip(("training", "held_out"), split(config.holdout, stream(config.seed, 0, "split")), strict=True))
    found = {}
    for pathway, other in (("A", "B"), ("B", "A")):
        generator = stream(config.seed, 0, f"generalisation {pathway}")
        decoder = getattr(model, pathway).decoder
        marginal, _ = evaluation.generate(decoder, config.latent, config.final_samples, 1, generator)
        taus = last[f"tau_{pathway}"], last[f"tau_{other}"]
        found[pathway] = {}
        for name, chosen in parts.items():
            with torch.no_grad():
                given = [getattr(model, p).encoder(all_operations()[chosen].float()) for p in (pathway, other)]
            read = injected(*given, last["rho"], *taus)
            exact = evaluation.sampled_reconstruction(decoder, read, 16, generator, chosen)
            found[pathway][name] = {"surprise": marginal.kl_uniform(chosen=chosen), "exact": list(exact)}
    return found


def report(run: Run) -> dict:
    """The complete evaluation of a finished run, at the temperatures and the permeability of its last epoch."""
    last = run.history.iloc[-1]
    return laboratory.examine(run.model(), last["rho"], last["tau_A"], last["tau_B"], run.config["parameters"]["seed"])


def summary(setting: str, seed: int, run: Run, examined: bool = False) -> dict:
    """What is kept of a finished run; `examined`: with the complete evaluation, a minute on two cores."""
    more = {"laboratory": report(run)} if examined else {}
    if run.config["parameters"]["holdout"]:
        more["generalisation"] = generalisation(run)
    return {
        "setting": setting,
        "seed": seed,
        "command": f"snakemake results/sweep/{setting}/seed{seed}.json",
        "parameters": run.config["parameters"],
        "sessions": run.timing["sessions"],
        "metrics": run.metrics,
        "conditions": conditions(run),
        "trits": trits(run),
        **more,
    }


def summarise(setting: str, seed: int, folder: Path = RUNS, output: Path | None = None, examined: bool = False) -> None:
    """Write the summary of a finished run and, beside it, its evaluations with the operations held.

    ParameterError where the run is not finished.
    """
    run = Run(run_dir(folder, setting, seed))
    if not run.finished:
        raise ParameterError(f"seed is {seed}, but '{run.path}' holds no finished run of setting {setting}.")
    output = output or run_dir(RESULTS, setting, seed).with_suffix(".json")
    output.parent.mkdir(parents=True, exist_ok=True)
    runs.write_table(output.with_suffix(".csv"), run.evaluations.merge(held(run), on="epoch"))
    runs.write_json(output, summary(setting, seed, run, examined))


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
        raise FileNotFoundError(f"no results of setting {setting} in {RESULTS}; `make sweep` makes them.")
    return files


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tvae_lib.sweep", description="One step of a sweep.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("together", "summary"):
        command = commands.add_parser(name)
        command.add_argument("setting")
        command.add_argument("--runs", type=Path, default=RUNS, help="where the runs are kept")
    commands.choices["together"].add_argument("seeds", type=int, nargs="*")
    commands.choices["together"].add_argument("--parameters", type=json.loads, default={}, help="as JSON")
    commands.choices["summary"].add_argument("seed", type=int)
    commands.choices["summary"].add_argument("--output", type=Path, help="the file to write")
    commands.choices["summary"].add_argument("--examined", action="store_true", help="with the complete evaluation")
    given = parser.parse_args(arguments)
    if given.command == "together":
        together(given.setting, given.seeds, given.parameters, given.runs)
    else:
        summarise(given.setting, given.seed, given.runs, given.output, given.examined)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ParameterError as error:
        sys.exit(str(error))
