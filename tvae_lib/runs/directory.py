"""A run as a directory of plain files: read back, judged whether it may be begun or continued, and locked.

What each file holds is in book/howto.md. Model, history, evaluations and metrics hold no time, path or date: equal
configurations give equal bytes on the same machine."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tvae_lib.runs.files import FORMAT, read_tensors, write_atomic
from tvae_lib.system.dual import DualVAE
from tvae_lib.system.statenet import StateNet
from tvae_lib.training.config import ROOT, Config, ParameterError, identity

LOCK_SECONDS = float(os.environ.get("TVAE_LOCK_SECONDS", 15))  # a killed kernel can outlive its parent by a second
OWN = (".lock", ".probe")


class Run:
    """A run directory, read: what later chapters use instead of training again."""

    def __init__(self, path: Path | str):
        self.path = Path(path)

    def _json(self, name: str) -> dict:
        return json.loads((self.path / name).read_text())

    @property
    def config(self) -> dict:
        """config.json: `run_id`, `created`, `parameters`."""
        return self._json("config.json")

    @property
    def metrics(self) -> dict:
        """metrics.json: the final evaluation of A and B beside the untrained network and the uniform generator."""
        return self._json("metrics.json")

    @property
    def timing(self) -> dict:
        """timing.json: `sessions`, each with device, versions and seconds."""
        return self._json("timing.json")

    @property
    def finished(self) -> bool:
        return (self.path / "metrics.json").exists()

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch; columns in `state.HISTORY`."""
        return pd.read_csv(self.path / "history.csv")

    @property
    def evaluations(self) -> pd.DataFrame:
        """One row an evaluation; `epoch` counts completed epochs, 0 is the untrained network."""
        return pd.read_csv(self.path / "evaluations.csv")

    def log_p(self) -> tuple[Tensor, Tensor]:
        """Epochs (E,) and log p-hat of every operation (E, 2, M), float16, pathways A and B."""
        tensors = read_tensors(self.path / "evaluations.safetensors")
        return tensors["epoch"], tensors["log_p"]

    def snapshots(self) -> list[int]:
        """The epochs, counted as finished, of which the weights are kept besides the last."""
        return sorted(int(path.stem.removeprefix("epoch_")) for path in (self.path / "snapshots").glob("epoch_*"))

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
        return read_tensors(self.path / name)


def run_path(config: Config) -> Path:
    """Where the run is kept; a relative `run_dir` is taken from the current directory."""
    if config.run_dir:
        return Path(config.run_dir).expanduser().resolve()
    return ROOT / "runs" / f"{config.preset}-seed{config.seed}"


def epoch_reached(path: Path) -> int:
    """How many epochs the checkpoint in a run directory has completed; 0 where there is none."""
    if not (path / "checkpoint.safetensors").exists():
        return 0
    with safe_open(path / "checkpoint.safetensors", "pt") as file:
        return int(file.get_tensor("epoch"))


def refused(path: Path, why: str) -> ParameterError:
    return ParameterError(f"run_dir is '{path}', {why}; it must be new, empty, or hold a run of this configuration.")


def status(config: Config) -> str:
    """What its directory holds of a configuration: "new", "unfinished" or "finished"; ParameterError where neither."""
    path = run_path(config)
    try:
        if path.exists() and not path.is_dir():
            raise refused(path, "which is a file")
        if not path.exists() or all(entry.name in OWN or entry.suffix == ".tmp" for entry in path.iterdir()):
            return "new"
    except OSError as error:
        raise refused(path, f"which cannot be read ({error.strerror})") from None
    if not config.resume:
        raise ParameterError(f"run_dir is '{path}', which is not empty; with resume False it must be new or empty.")
    check_recorded(path, config)
    return progress_made(path, config.last_epoch)


def check_recorded(path: Path, config: Config) -> None:
    """ParameterError where a directory that is not empty does not hold a run of this configuration."""
    if not (path / "config.json").exists():
        raise refused(path, "which holds other files")
    try:
        recorded = Run(path).config
        version, parameters = recorded["format"], recorded["parameters"]
    except (ValueError, KeyError, TypeError, OSError):
        raise refused(path, "whose config.json cannot be read") from None
    if version != FORMAT:
        raise refused(path, f"a run of format {version} where this version writes {FORMAT}")
    for name, value in identity(config).items():
        if parameters.get(name) != value:
            raise refused(path, f"a run with {name} {parameters.get(name)!r} where this one has {value!r}")


def progress_made(path: Path, epochs: int) -> str:
    """Whether a run is "finished" or "unfinished" if it is to go to `epochs`; ParameterError if it cannot get there."""
    finished = Run(path).metrics["epochs"] if Run(path).finished else 0
    try:
        done = max(finished, epoch_reached(path))
    except SafetensorError:
        raise refused(path, "whose checkpoint cannot be read") from None
    if done > epochs:
        raise ParameterError(
            f"epochs is {epochs}; it must be at least {done}, as far as the run in run_dir '{path}' has come."
        )
    if finished == epochs:
        return "finished"
    if finished and not (path / "checkpoint.safetensors").exists():
        raise refused(path, "a finished run without the checkpoint that going on needs")
    return "unfinished"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """The directory for this process alone, made if it is missing; ParameterError where it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock", timeout=LOCK_SECONDS, poll_interval=0.1).acquire()
    except Timeout:
        raise refused(path, "in which another process is at work") from None
    except OSError as error:
        raise refused(path, f"which cannot be written ({error.strerror})") from None
    with lock:
        for leftover in path.rglob(".*.tmp"):
            leftover.unlink()
        try:
            write_atomic(path / ".probe", b"")
            (path / ".probe").unlink()
        except OSError as error:
            raise refused(path, f"which cannot be written ({error.strerror})") from None
        yield
