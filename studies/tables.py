"""Tables that grow by whole rows, and what the chapters read of them."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from scipy import stats

from studies.catalogue import study_of
from tvae_lib.runs.files import (
    advised,
    csv_of,
    file_error,
    read_json,
    read_table,
    read_tensors,
    sha256,
    write_atomic,
    write_json,
    write_table,
)
from tvae_lib.system.dual import DualVAE
from tvae_lib.training.config import ROOT

if TYPE_CHECKING:
    from studies.study import Study

FOLDER = ROOT / "results" / "experiments"
WEIGHTS = "model.safetensors"  # of the uncoupled pair that `rates.MODEL` describes


class Table:
    """A CSV file of rows that the columns `keys` tell apart; a row that was cut short does not count as there.

    FileError where it is none."""

    def __init__(self, path: Path, keys: tuple[str, ...]):
        self.path, self.keys = path, keys
        table = read_table(path) if os.path.lexists(path) else pd.DataFrame(columns=list(keys))
        if lost := [name for name in keys if name not in table]:
            raise file_error(path, f"has no column {lost[0]}", "delete it to have it made again")
        self.rows = table[table.iloc[:, -1].notna()].to_dict("records")
        self.known = {self.key(row) for row in self.rows}

    def key(self, row: dict) -> tuple:
        return tuple(row[name] for name in self.keys)

    def has(self, rows: Iterable[dict]) -> bool:
        """Whether all of these are there; each needs no more than the columns `keys`."""
        return all(self.key(row) in self.known for row in rows)

    def include(self, rows: list[dict]) -> pd.DataFrame:
        """The table with these rows too, but for those that are there, in the order of its keys."""
        self.rows += [row for row in rows if self.key(row) not in self.known]
        self.known |= {self.key(row) for row in rows}
        return pd.DataFrame(self.rows).sort_values(list(self.keys), kind="stable")

    def add(self, rows: list[dict]) -> None:
        """Include rows, and write the whole table."""
        write_table(self.path, self.include(rows))


def made(folder: Path) -> dict[str, dict]:
    """What made each table in a folder, from its made.json: `sha256` of the table, and `sessions`."""
    path = folder / "made.json"
    found = read_json(path) if os.path.lexists(path) else {}
    if not all(isinstance(entry, dict) and isinstance(entry.get("sessions"), list) for entry in found.values()):
        raise file_error(path, "does not say what made the tables", "restore it from a copy")
    return found


def is_as_made(name: str, folder: Path) -> bool:
    """Whether a table is what was made, to the byte."""
    entry = made(folder).get(name, {})
    return sha256(folder / f"{name}.csv") in (entry.get("sha256"), entry.get("next"))


def keep(name: str, folder: Path, table: pd.DataFrame, sessions: Iterable[dict] = ()) -> None:
    """Write a table, and let made.json know it, and the sessions that made more of it.

    made.json knows the next table before it is there, so that a kill leaves one that it knows."""
    content, entries = csv_of(table), made(folder)
    digest, entry = hashlib.sha256(content).hexdigest(), entries.get(name, {"sessions": []})
    write_json(folder / "made.json", entries | {name: entry | {"next": digest}})
    write_atomic(folder / f"{name}.csv", content)
    known = {"sha256": digest, "sessions": [*entry["sessions"], *sessions]}
    write_json(folder / "made.json", entries | {name: known})


def read(name: str) -> pd.DataFrame:
    """The table `name` of results/experiments; FileError where it is not whole, with the command that makes it so."""
    path, command = FOLDER / f"{name}.csv", f"`make studies ONLY={name}`"
    if not os.path.lexists(path):
        raise file_error(path, "is missing", f"{command} makes it")
    with advised(f"delete it, and {command} makes it again"):
        if not is_as_made(name, FOLDER):
            raise file_error(path, "is not what was made, as its digest shows")
        table = read_table(path)
    if study_of(name).lacking(FOLDER):
        raise file_error(path, "lacks rows", f"{command} makes them")
    return table


def drop(study: "Study", folder: Path, values: dict[str, str]) -> int:
    """Take the rows with these values in their key columns out of a table, to have them made again; how many."""
    table = study.in_table(folder)

    def has(row: dict, column: str, value: str) -> bool:
        found = row.get(column)
        return value in (str(found), f"{found:.9g}" if isinstance(found, float) else "")

    kept = [row for row in table.rows if not all(has(row, column, value) for column, value in values.items())]
    keep(study.table, folder, pd.DataFrame(kept, columns=list(table.rows[0])))
    return len(table.rows) - len(kept)


def interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float]:
    """Mean of independent values and half of its interval, by Student's t; of differences, the paired one."""
    found = stats.ttest_1samp(list(values), 0)
    low, high = found.confidence_interval(level)
    return (low + high) / 2, (high - low) / 2


def kept() -> DualVAE:
    """The uncoupled pair that `rates.MODEL` describes, whose weights are in results/experiments."""
    model = DualVAE()
    model.load_state_dict(read_tensors(FOLDER / WEIGHTS))
    return model.eval()
