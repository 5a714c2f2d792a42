"""A study as data, and the one loop over it: what is missing, train, measure, keep.

A table is made in parts, a job each. A part keeps the rows of a case as soon as they are measured, in a file of its
own, so that a killed job goes on where it was; whole parts are then added to the table in results/experiments."""

import multiprocessing
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from studies.tables import Table, is_as_made, keep
from tvae_lib.errors import ParameterError
from tvae_lib.runs.execute import device_name
from tvae_lib.runs.files import advised, file_error, read_json, write_json
from tvae_lib.system.dual import DualVAE
from tvae_lib.training.config import Config
from tvae_lib.training.ensemble import Ensemble, signature
from tvae_lib.training.state import Prescription, State, initial_state, prescribe
from tvae_lib.training.trainer import RECORD_FROM, Trainer

Case = dict  # the values of a row's keys that are known before anything is trained
Found = TypeVar("Found")


def slug(case: Case) -> str:
    """A name for files: texts as they are, numbers behind the names of their columns."""
    words = (value if isinstance(value, str) else f"{name}{value}" for name, value in case.items())
    return "-".join(re.sub(r"[^\w.]+", "-", word).strip("-") for word in words)


@dataclass(frozen=True)
class Study:
    """Which rows a table has, told apart by `keys`, and what makes them.

    `parts` are lists of cases by the name of the job that makes them. A case has a row for each entry of `each(case)`,
    further keys. `make(cases, device)` yields the rows of one case after another."""

    table: str
    keys: tuple[str, ...]
    parts: dict[str, list[Case]]
    make: Callable[[list[Case], str], Iterator[list[dict]]]
    each: Callable[[Case], Iterable[dict]] = lambda case: ({},)

    def rows_of(self, case: Case) -> list[dict]:
        return [case | more for more in self.each(case)]

    def missing(self, part: str, *tables: Table) -> list[Case]:
        """The cases of a part with rows that none of the tables has."""
        return [c for c in self.parts[part] if not any(table.has(self.rows_of(c)) for table in tables)]

    def in_table(self, folder: Path) -> Table:
        return Table(folder / f"{self.table}.csv", self.keys)

    def lacking(self, folder: Path) -> list[str]:
        """The parts of which the table in a folder lacks rows."""
        table = self.in_table(folder)
        return [part for part in self.parts if self.missing(part, table)]


class Part:
    """A part being made: what its unfinished file has already, and what is added to it."""

    def __init__(self, study: Study, name: str, folder: Path, parts: Path):
        path = parts / study.table / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with advised("delete it, and the part is made again"):
            self.begun, self.whole = Table(path.with_suffix(".begun.csv"), study.keys), Table(path, study.keys)
        self.missing = study.missing(name, study.in_table(folder), self.whole, self.begun)

    def finish(self, session: dict) -> None:
        """Make the part whole, and say what made it."""
        if self.begun.rows:
            write_json(self.whole.path.with_suffix(".json"), session)
            self.whole.add(self.begun.rows)
            self.begun.path.unlink()


def make_parts(study: Study, names: Sequence[str], folder: Path, parts: Path, device: str = "cpu") -> None:
    """Make what the table in `folder` lacks of these parts: `parts`/<table>/<part>.csv, whole, and .json, what made it.

    On a GPU the cases of all of them train together."""
    making = [Part(study, name, folder, parts) for name in names]
    owners = {tuple(case.items()): part for part in making for case in part.missing}
    started = time.monotonic()
    for rows in study.make([case for part in making for case in part.missing], device):
        for case, found in groupby(rows, lambda row: next(c for c in owners if set(c) <= set(row.items()))):
            owners[case].begun.add(list(found))
    session = {
        "device": device_name(torch.device(device)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seconds": round(time.monotonic() - started),
    }
    for part in making:
        part.finish(session)


def merge(study: Study, folder: Path, parts: Path) -> None:
    """Add the parts that are whole to the table in `folder`, and what made them to its made.json.

    FileError where the table is not what was made: nothing is added to numbers that somebody changed."""
    table = study.in_table(folder)
    if table.rows and not is_as_made(study.table, folder):
        remedy = "restore it, or delete it to have all of it made again (`python -m studies drop` takes rows out)"
        raise file_error(table.path, "is not what was made, as its digest shows", remedy)
    for path in sorted((parts / study.table).glob("*.csv")):
        if path.stem in study.parts:
            rows = table.include(Table(path, study.keys).rows)
            keep(study.table, folder, rows, [read_json(path.with_suffix(".json"))])
            path.unlink()


def is_gpu(device: torch.device | str) -> bool:
    return torch.device(device).type == "cuda"


def train_together(
    configs: Sequence[Config],
    device: torch.device | str,
    stops: Sequence[int],
    pair: type[DualVAE] = DualVAE,
    prescribe: Prescription = prescribe,
    start: Sequence[State] = (),
    data: Tensor | None = None,
) -> Iterator[tuple[int, State]]:
    """Train every configuration, and yield (its place in the list, its state) after each number of epochs in `stops`.

    On a GPU those that can be replicas of one ensemble are; on a CPU they come one after the other, and those share a
    recorded step. `pair` is the class of the two VAEs, where they are not to be coupled as in `DualVAE`; `prescribe`
    says what each epoch prescribes; `start` holds the states, all at one epoch, from which to go on; `data` are tables
    (X, n) in the place of the operations. ParameterError where a stop is out of range."""
    total = min((config.total_epochs for config in configs), default=max(stops))
    first = int(start[0]["epoch"]) if start else 0
    if not first < min(stops) <= max(stops) <= total:
        listed = ", ".join(map(str, stops))
        raise ParameterError(f"epochs is {listed}; it must be a whole number from {first + 1} to {total}.")
    device, recorded = torch.device(device), {}
    groups: dict[object, list[int]] = {}
    for i, config in enumerate(configs):
        groups.setdefault(signature(config) if is_gpu(device) else i, []).append(i)
    for group in groups.values():
        given = [configs[i] for i in group]
        if len(given) == 1:
            trainer = Trainer(given[0], device, prescribe, pair, data)
        else:
            trainer = Ensemble(given, device, pair, prescribe, data)
        state = trainer.stack([start[i] if start else initial_state(configs[i], device, pair) for i in group])
        kind = (len(group), signature(given[0]), trainer.step.used)
        if total >= RECORD_FROM and kind not in recorded:
            trainer.hasten(state)
            recorded[kind] = trainer.take, trainer.path
        trainer.take, trainer.path = recorded.get(kind, (trainer.take, trainer.path))
        for epoch in range(first, max(stops)):
            state = trainer.epoch(state)
            if epoch + 1 in stops:
                yield from zip(group, trainer.unstack(state), strict=True)


def on_cpu(state: State) -> State:
    """The state where measures are taken: their random numbers, and so their results, are those of a CPU."""
    return {name: tensor.cpu() for name, tensor in state.items()}


_forked: list[Callable[[int], object]] = []  # the task of the processes that are forked


def on_every_core(task: Callable[[int], Found], count: int) -> Iterator[Found]:
    """`task` of 0, 1, ... `count` - 1, in order, by processes forked from this one, which see all that it has."""
    _forked[:] = [task]
    with multiprocessing.get_context("fork").Pool(min(os.cpu_count() or 1, count)) as pool:
        yield from pool.imap(_take_forked, range(count))


def _take_forked(i: int):
    torch.set_num_threads(1)
    return _forked[0](i)


def train_cases(
    cases: Sequence[Case],
    device: str,
    configure: Callable[[Case], Config],
    stops: Sequence[int],
    measure: Callable[[Case, Config, State], list[dict]],
    pair: type[DualVAE] = DualVAE,
    prescribe: Prescription = prescribe,
    start: Callable[[Case, Config, torch.device], State] | None = None,
) -> Iterator[list[dict]]:
    """Train the configuration of every case and measure it at the stops; yields all rows of a case, keys included.

    What was trained on a GPU is measured on every core beside it. `start` makes the state to begin with."""
    configs = [configure(case) for case in cases]
    on = torch.device(device)
    begun = [start(case, config, on) for case, config in zip(cases, configs, strict=True)] if start else ()
    states: dict[int, list[State]] = {}

    def rows(place: int) -> list[dict]:
        at_stops = [measure(cases[place], configs[place], state) for state in states[place]]
        return [cases[place] | row for found in at_stops for row in found]

    for place, state in train_together(configs, device, stops, pair, prescribe, begun):
        states.setdefault(place, []).append(on_cpu(state))
        if int(state["epoch"]) == max(stops) and not is_gpu(device):
            yield rows(place)
            del states[place]
    trained = sorted(states)
    yield from on_every_core(lambda i: rows(trained[i]), len(trained)) if trained else ()
