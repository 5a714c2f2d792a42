"""A run as a directory of plain files, read back.

What each file holds is in book/howto.md. Model, history, evaluations and metrics hold no time, path or date: equal
configurations give equal bytes on the same machine. Tensors are marked with the configuration they belong to, and
metrics.json has the digest of every file of a finished run: a file that was changed since is not shown."""

import os
import re
from pathlib import Path

import pandas as pd
from torch import Tensor

from tvae_lib.errors import FileError
from tvae_lib.runs.files import (
    advised,
    digest_of_json,
    file_error,
    read_json,
    read_sealed,
    read_table,
    read_tensors,
    sha256,
)
from tvae_lib.system.dual import DualVAE
from tvae_lib.system.statenet import StateNet

RESTORABLE = ("history.csv", "evaluations.csv", "evaluations.safetensors", "model.safetensors")  # by the checkpoint
NEXT = "checkpoint.next.safetensors"  # takes the checkpoint's place once all of an ensemble have theirs
FILES = ("config.json", *RESTORABLE, "metrics.json", "checkpoint.safetensors", NEXT, "timing.json")
SNAPSHOT = re.compile(r"epoch_(\d{4,6})\.safetensors")
COPY = "restore it from a copy, or train anew in another run_dir"


class Run:
    """A run directory, read: what later chapters use instead of training again.

    A file that is missing, damaged or of another run ends in a FileError, one sentence with its path."""

    def __init__(self, path: Path | str):
        self.path = Path(path)

    @property
    def config(self) -> dict:
        """config.json: `run_id`, `created`, `parameters`."""
        with advised("restore it from a copy, or move the directory away"):
            config = read_sealed(self.path / "config.json")
            if not isinstance(config.get("parameters"), dict):
                raise file_error(self.path / "config.json", "holds no parameters")
        return config

    @property
    def metrics(self) -> dict:
        """metrics.json: the final evaluation of A and B beside the untrained network and the uniform generator."""
        identity = self.identity
        with advised("delete it, and the command that made the run writes it again if the checkpoint is whole"):
            metrics = read_sealed(self.path / "metrics.json")
            if metrics.get("identity") != identity:
                raise file_error(self.path / "metrics.json", "belongs to another run")
        return metrics

    @property
    def timing(self) -> dict:
        """timing.json: `sessions`, each with device, versions and seconds; none where it cannot be read."""
        try:
            timing = read_json(self.path / "timing.json")
        except FileError:
            timing = {}
        sessions = timing.get("sessions")
        known = isinstance(sessions, list) and all(isinstance(session, dict) for session in sessions)
        return {"sessions": sessions if known else []}

    @property
    def finished(self) -> bool:
        return os.path.lexists(self.path / "metrics.json")

    @property
    def identity(self) -> str:
        """The digest of the parameters that make the run what it is."""
        return digest_of_json(self.config["parameters"])

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch; columns in `state.HISTORY`."""
        return read_table(self.whole("history.csv"))

    @property
    def evaluations(self) -> pd.DataFrame:
        """One row an evaluation; `epoch` counts completed epochs, 0 is the untrained network."""
        return read_table(self.whole("evaluations.csv"))

    def log_p(self) -> tuple[Tensor, Tensor]:
        """Epochs (E,) and log p-hat of every operation (E, 2, M), float16, pathways A and B."""
        tensors = read_tensors(self.whole("evaluations.safetensors"), identity=self.identity)
        return tensors["epoch"], tensors["log_p"]

    def snapshots(self) -> list[int]:
        """The epochs, counted as finished, of which the weights are kept besides the last."""
        found = [SNAPSHOT.fullmatch(path.name) for path in (self.path / "snapshots").glob("*")]
        return sorted(int(name[1]) for name in found if name)

    def model(self, epoch: int | None = None) -> DualVAE:
        """The trained pair, or the one of a snapshot, on the CPU in evaluation mode."""
        model = DualVAE(self.config["parameters"]["latent"])
        model.load_state_dict({k: v for k, v in self._weights(epoch).items() if not k.startswith("statenet.")})
        return model.eval()

    def statenet(self, epoch: int | None = None) -> StateNet:
        """The trained StateNet, or the one of a snapshot, on the CPU in evaluation mode."""
        named = {k.partition("statenet.")[2]: v for k, v in self._weights(epoch).items() if k.startswith("statenet.")}
        net = StateNet()
        net.load_state_dict(named)
        return net.eval()

    def _weights(self, epoch: int | None) -> dict[str, Tensor]:
        name = "model.safetensors" if epoch is None else f"snapshots/epoch_{epoch:04d}.safetensors"
        return read_tensors(self.whole(name), identity=self.identity)

    def digests(self) -> dict[str, str]:
        """The digest of every file that metrics.json vouches for."""
        snapshots = [f"snapshots/epoch_{epoch:04d}.safetensors" for epoch in self.snapshots()]
        names = [*RESTORABLE, "checkpoint.safetensors", *snapshots]
        return {name: sha256(self.path / name) for name in names}

    def whole(self, name: str) -> Path:
        """The path of a file of the run; FileError where a finished run's metrics.json has another digest of it."""
        path = self.path / name
        if self.finished:
            expected = self.metrics["files"].get(name)
            if not os.path.lexists(path):
                raise file_error(path, "is missing", self.remedy(name))
            if expected != sha256(path):
                raise file_error(path, "is not what the run wrote, as its digest shows", self.remedy(name))
        return path

    def check_whole(self) -> None:
        """FileError where a file of a finished run is missing or damaged; the checkpoint may be missing."""
        for name in self.metrics["files"]:
            if name != "checkpoint.safetensors" or os.path.lexists(self.path / name):
                self.whole(name)

    def remedy(self, name: str) -> str:
        """What to do about a damaged file of a finished run."""
        if name == "checkpoint.safetensors":
            return "delete it: this finished run needs it only to be trained further"
        try:
            intact = self.metrics["files"].get("checkpoint.safetensors") == sha256(self.path / "checkpoint.safetensors")
        except FileError:
            intact = False
        if intact and name in RESTORABLE:
            return "the checkpoint is whole: delete metrics.json, and the command that made the run writes it again"
        return COPY
