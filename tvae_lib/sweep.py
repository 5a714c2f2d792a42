"""Settings times seeds: what `workflow/Snakefile` calls, run by run.

python -m tvae_lib.sweep together SETTING SEED...  train the runs of a setting as one ensemble, one directory each
python -m tvae_lib.sweep summary SETTING SEED      what is kept of a finished run: a .json and a .csv
"""

import argparse
import json
import sys
from pathlib import Path

from tvae_lib import runs
from tvae_lib.config import ROOT, Config, ParameterError, make_config
from tvae_lib.runs import Run

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


def summary(setting: str, seed: int, run: Run) -> dict:
    """What is kept of a finished run."""
    return {
        "setting": setting,
        "seed": seed,
        "command": f"snakemake results/sweep/{setting}/seed{seed}.json",
        "parameters": run.config["parameters"],
        "sessions": run.timing["sessions"],
        "metrics": run.metrics,
    }


def summarise(setting: str, seed: int, folder: Path = RUNS, output: Path | None = None) -> None:
    """Write the summary of a finished run and, beside it, its evaluations; ParameterError where it is not finished."""
    run = Run(run_dir(folder, setting, seed))
    if not run.finished:
        raise ParameterError(f"seed is {seed}, but '{run.path}' holds no finished run of setting {setting}.")
    output = output or run_dir(RESULTS, setting, seed).with_suffix(".json")
    output.parent.mkdir(parents=True, exist_ok=True)
    runs.write_atomic(output.with_suffix(".csv"), (run.path / "evaluations.csv").read_bytes())
    runs.write_json(output, summary(setting, seed, run))


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
    given = parser.parse_args(arguments)
    if given.command == "together":
        together(given.setting, given.seeds, given.parameters, given.runs)
    else:
        summarise(given.setting, given.seed, given.runs, given.output)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ParameterError as error:
        sys.exit(str(error))
