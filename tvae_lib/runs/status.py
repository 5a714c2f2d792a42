"""Whether a run may be begun, continued or shown in its directory, and the lock on it.

Whatever is damaged, of another run or not ours is named in one sentence and left as it is."""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from tvae_lib.errors import ParameterError, shown
from tvae_lib.runs.directory import COPY, FILES, NEXT, SNAPSHOT, Run
from tvae_lib.runs.evaluate import TABLES, start
from tvae_lib.runs.files import LEFTOVER, advised, digest_of_json, file_error, is_regular, read_tensors, reason, replace
from tvae_lib.training.config import ROOT, Config, identity
from tvae_lib.training.state import State, not_finite

LOCK_SECONDS = float(os.environ.get("TVAE_LOCK_SECONDS", 15))  # a killed kernel can outlive its parent by a second


def run_path(config: Config) -> Path:
    """Where the run is kept; a relative `run_dir` is taken from the current directory."""
    given = Path(config.run_dir) if config.run_dir else ROOT / "runs" / f"{config.preset}-seed{config.seed}"
    try:
        return given.expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links; a working directory that is gone
        raise refused(given, f"which leads nowhere ({reason(error)})") from None


def refused(path: Path, why: str) -> ParameterError:
    return ParameterError(
        f"run_dir is {shown(str(path), 1000)}, {why}; it must be new, empty, or hold a run of this configuration."
    )


def read_checkpoint(path: Path, config: Config) -> State | None:
    """The state that a run directory holds of a configuration, on the CPU; None where there is none yet.

    FileError where it is damaged, of another run, or not a state of this configuration."""
    file = path / "checkpoint.safetensors"
    if not os.path.lexists(file):
        if os.path.lexists(path / "history.csv"):
            raise file_error(file, "is missing, though history.csv shows that there was one", COPY)
        return None
    with advised(COPY):
        saved = read_tensors(file, identity=digest_of_json(identity(config)))
    expected = start(config, torch.device("cpu"))

    def shape(name: str, tensor: torch.Tensor) -> tuple:
        return tensor.dtype, tensor.shape[1:] if name in TABLES else tensor.shape

    if {k: shape(k, v) for k, v in saved.items()} != {k: shape(k, v) for k, v in expected.items()}:
        raise file_error(file, "holds no state of this configuration", COPY)
    if not 0 < int(saved["epoch"]) <= config.total_epochs or len(saved["log_p"]) != len(saved["evaluations"]):
        raise file_error(file, "holds a state that is not whole", COPY)
    if lost := not_finite(saved):
        raise file_error(file, f"holds a state that diverged: {lost} is not finite", COPY)
    return {name: tensor.clone() for name, tensor in saved.items()}  # each in memory of its own


def epoch_reached(path: Path) -> int:
    """How many epochs the checkpoint in a run directory has completed; 0 where there is none."""
    file = path / "checkpoint.safetensors"
    return int(read_tensors(file)["epoch"]) if os.path.lexists(file) else 0


def settle(paths: Sequence[Path]) -> None:
    """Finish the checkpoints of an ensemble that a kill left half in place, or undo them: all at one epoch again."""
    epochs = [epoch_reached(path) for path in paths]
    for path, epoch in zip(paths, epochs, strict=True):
        if is_regular(path / NEXT):
            if epoch < max(epochs) == int(read_tensors(path / NEXT)["epoch"]):
                replace(path / NEXT, path / "checkpoint.safetensors")
            else:
                (path / NEXT).unlink()


def check_folder(path: Path) -> bool:
    """Whether something is in a directory; ParameterError where it is none, or one of our names is not a file there."""
    try:
        if not os.path.lexists(path):
            return False
        if not path.is_dir():
            raise refused(path, "which is a file")
        for name in (*FILES, ".lock"):
            if os.path.lexists(path / name) and not is_regular(path / name):
                raise refused(path, f"in which {name} is no regular file")
        snapshots = path / "snapshots"
        if os.path.lexists(snapshots) and (snapshots.is_symlink() or not snapshots.is_dir()):
            raise refused(path, "in which snapshots is no folder of its own")
        return any(entry.name != ".lock" and not is_leftover(entry) for entry in path.iterdir())
    except OSError as error:
        raise refused(path, f"which cannot be read ({reason(error)})") from None


def is_leftover(path: Path) -> bool:
    """Whether a file is what a kill left of one of our own writes."""
    found = LEFTOVER.fullmatch(path.name)
    ours = found is not None and (found["name"] in FILES or SNAPSHOT.fullmatch(found["name"]) is not None)
    return ours and is_regular(path)


def status(config: Config) -> str:
    """What its directory holds of a configuration: "new", "unfinished" or "finished".

    ParameterError where it is to stay as it is; FileError where a file that is needed is damaged."""
    path = run_path(config)
    if not check_folder(path):
        return "new"
    if not config.resume:
        raise ParameterError(
            f"run_dir is {shown(str(path), 1000)}, which is not empty; with resume False it must be new or empty."
        )
    check_recorded(path, config)
    return progress_made(path, config)


def check_recorded(path: Path, config: Config) -> None:
    """ParameterError where a directory that is not empty does not hold a run of this configuration."""
    if not os.path.lexists(path / "config.json"):
        raise refused(path, "which holds other files")
    parameters = Run(path).config["parameters"]
    for name, value in identity(config).items():
        if parameters.get(name) != value:
            found = shown(parameters.get(name))
            raise refused(path, f"a run with {name} {found} where this one has {shown(value)}")


def progress_made(path: Path, config: Config) -> str:
    """Whether a run that is to go to `last_epoch` is "finished" or "unfinished"; an error if it cannot get there."""
    run, epochs = Run(path), config.last_epoch
    finished = run.metrics["epochs"] if run.finished else 0
    if finished == epochs:
        run.check_whole()
        return "finished"
    if finished and not os.path.lexists(path / "checkpoint.safetensors"):
        raise refused(path, "a finished run without the checkpoint that going on needs")
    saved = read_checkpoint(path, config)
    done = max(finished, int(saved["epoch"]) if saved else 0)
    if done > epochs:
        raise ParameterError(
            f"epochs is {epochs}; it must be at least {done}, as far as the run in {shown(str(path), 1000)} has come."
        )
    for epoch in run.snapshots() if saved else ():
        with advised("delete it to go on without it"):
            read_tensors(path / "snapshots" / f"epoch_{epoch:04d}.safetensors", identity=run.identity)
    return "unfinished"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """The directory for this process alone, made if it is missing; ParameterError where it cannot be written.

    Where the file system has no locks, .lock itself is one and names host and process."""
    lock = FileLock(path / ".lock", timeout=LOCK_SECONDS, poll_interval=0.1)
    try:
        path.mkdir(parents=True, exist_ok=True)
        check_folder(path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            acquired = lock.acquire()
    except Timeout:
        holder = " ".join((path / ".lock").read_text(errors="replace").split()[:2])
        told = f" (process and host {holder}; if it is gone, delete .lock)" if holder else ""
        raise refused(path, f"in which another process is at work{told}") from None
    except (OSError, ValueError) as error:
        raise refused(path, f"which cannot be written ({reason(error)})") from None
    if any("flock not supported" in str(warning.message) for warning in caught):
        print(f"{shown(str(path), 1000)} has no file locks; .lock there names this host and process meanwhile.")
    with acquired:
        for folder in (path, path / "snapshots"):
            for leftover in filter(is_leftover, folder.glob(".*.tmp")):
                leftover.unlink()
        yield
