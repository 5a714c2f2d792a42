"""One step of the studies: what the rules of studies/Snakefile call.

python -m studies part TABLE PART...          train and measure what the table lacks of a part, or of all
python -m studies merge TABLE                 add the parts that are whole to the table
python -m studies drop TABLE COLUMN=VALUE...  take rows out of the table, to have them made again
python -m studies together SETTING SEED...    train whole runs as one ensemble, one directory each
python -m studies summary SETTING SEED        what is kept of a finished run: a .json and a .csv"""

import argparse
import json
import sys
from pathlib import Path

from studies import whole_runs
from studies.catalogue import STUDIES, study_of
from studies.study import make_parts, merge
from studies.tables import FOLDER, drop
from tvae_lib.errors import ParameterError, UserError


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m studies", description=__doc__.splitlines()[0])
    steps = top.add_subparsers(dest="step", required=True)
    for name in ("part", "merge", "drop"):
        step = steps.add_parser(name)
        step.add_argument("table")
        step.add_argument("--tables", type=Path, default=FOLDER, help="where the tables are")
    for name in ("together", "summary"):
        steps.add_parser(name).add_argument("setting")
    for step in steps.choices.values():
        step.add_argument("--runs", type=Path, default=whole_runs.RUNS, help="where runs and unfinished parts are kept")
    steps.choices["part"].add_argument("parts", nargs="+", metavar="PART", help="its name, or all")
    steps.choices["part"].add_argument("--device", default="cpu", help="cpu, or cuda: all parts train together")
    steps.choices["drop"].add_argument(
        "values", nargs="+", metavar="COLUMN=VALUE", help="of key columns, as in the table"
    )
    steps.choices["together"].add_argument("seeds", type=int, nargs="*")
    steps.choices["together"].add_argument("--parameters", type=json.loads, default={}, help="as JSON")
    steps.choices["summary"].add_argument("seed", type=int)
    steps.choices["summary"].add_argument("--output", type=Path, help="the file to write")
    steps.choices["summary"].add_argument("--examined", action="store_true", help="with the complete evaluation")
    return top


def main(arguments: list[str]) -> None:
    given = parser().parse_args(arguments)
    if "table" in given and given.table not in STUDIES:
        raise ParameterError(f"table is {given.table!r}; it must be one of {', '.join(STUDIES)}.")
    if given.step == "part":
        study = study_of(given.table)
        parts = list(study.parts) if given.parts == ["all"] else given.parts
        for part in parts:
            if part not in study.parts:
                raise ParameterError(f"part is {part!r}; in {given.table} it must be one of {', '.join(study.parts)}.")
        make_parts(study, parts, given.tables, given.runs, given.device)
    elif given.step == "merge":
        merge(study_of(given.table), given.tables, given.runs)
    elif given.step == "drop":
        values = dict(text.partition("=")[::2] for text in given.values)
        for column in values:
            if column not in study_of(given.table).keys:
                keys = ", ".join(study_of(given.table).keys)
                raise ParameterError(f"column is {column!r}; in {given.table} it must be one of {keys}.")
        print(drop(study_of(given.table), given.tables, values), "rows taken out")
    elif given.step == "together":
        whole_runs.together(given.setting, given.seeds, given.parameters, given.runs)
    else:
        whole_runs.summarise(given.setting, given.seed, given.runs, given.output, given.examined)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
