"""The tables in results/experiments: rows are kept as soon as they are measured, and what made them beside them."""

import json
import platform
import time

import pandas as pd
import torch

from tvae_lib import runs
from tvae_lib.config import ROOT
from tvae_lib.dual import DualVAE

FOLDER = ROOT / "results" / "experiments"


class Table:
    """A CSV file that grows by whole rows: the columns of `keys` say which rows are there.

    made.json beside it holds device, versions and seconds of each session that added rows.
    """

    def __init__(self, name: str, keys: tuple[str, ...]):
        self.name, self.path, self.keys = name, FOLDER / f"{name}.csv", keys
        self.rows = pd.read_csv(self.path).to_dict("records") if self.path.exists() else []
        self.session, self.start = None, time.monotonic()

    def has(self, **key) -> bool:
        return any(all(row[name] == value for name, value in key.items()) for row in self.rows)

    def add(self, rows: list[dict]) -> None:
        self.rows += rows
        table = pd.DataFrame(self.rows).sort_values(list(self.keys), kind="stable")
        runs.write_table(self.path, table)
        path = FOLDER / "made.json"
        made = json.loads(path.read_text()) if path.exists() else {}
        sessions = made.setdefault(self.name, [])
        if self.session is None:
            self.session = len(sessions)
        sessions[self.session :] = [
            {
                "device": runs.device_name(torch.device("cpu")),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "seconds": round(time.monotonic() - self.start),
            }
        ]
        runs.write_json(path, made)


def read(name: str) -> pd.DataFrame:
    """The table of an experiment. FileNotFoundError where it was not made."""
    return pd.read_csv(FOLDER / f"{name}.csv")


def kept() -> DualVAE:
    """The uncoupled pair that `experiments.MODEL` describes, whose weights are in results/experiments."""
    model = DualVAE()
    model.load_state_dict(runs.read_tensors(FOLDER / "model.safetensors"))
    return model.eval()
