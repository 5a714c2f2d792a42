"""Tables that grow by whole rows, and what the chapters read of them."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from scipy import stats

from tvae_lib.runs.files import read_tensors, write_table
from tvae_lib.system.dual import DualVAE
from tvae_lib.training.config import ROOT

FOLDER = ROOT / "results" / "experiments"
WEIGHTS = "model.safetensors"  # of the uncoupled pair that `rates.MODEL` describes


class Table:
    """A CSV file of rows that the columns `keys` tell apart; a row that was cut short does not count as there."""

    def __init__(self, path: Path, keys: tuple[str, ...]):
        self.path, self.keys = path, keys
        table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(keys))
        self.rows = table[table.iloc[:, -1].notna()].to_dict("records")
        self.known = {self.key(row) for row in self.rows}

    def key(self, row: dict) -> tuple:
        return tuple(row[name] for name in self.keys)

    def has(self, rows: Iterable[dict]) -> bool:
        """Whether all of these are there; each needs no more than the columns `keys`."""
        return all(self.key(row) in self.known for row in rows)

    def add(self, rows: list[dict]) -> None:
        """Add rows, but for those that are there, and write the whole table in the order of its keys."""
        self.rows += [row for row in rows if self.key(row) not in self.known]
        self.known |= {self.key(row) for row in rows}
        write_table(self.path, pd.DataFrame(self.rows).sort_values(list(self.keys), kind="stable"))


def read(name: str) -> pd.DataFrame:
    """The table `name` of results/experiments. FileNotFoundError where it was not made."""
    return pd.read_csv(FOLDER / f"{name}.csv")


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Mean of independent values and half of its 95 % interval, by Student's t; of differences, the paired one."""
    found = stats.ttest_1samp(list(values), 0)
    low, high = found.confidence_interval()
    return (low + high) / 2, (high - low) / 2


def kept() -> DualVAE:
    """The uncoupled pair that `rates.MODEL` describes, whose weights are in results/experiments."""
    model = DualVAE()
    model.load_state_dict(read_tensors(FOLDER / WEIGHTS))
    return model.eval()
