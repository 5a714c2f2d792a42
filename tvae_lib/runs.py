"""Chapter 8: a run as a directory - started, continued or shown, and read back by every later chapter.

    config.json              run id, parameters, format version
    history.csv              one row an epoch; columns in `training.HISTORY`
    evaluations.csv          one row an evaluation: coverage, KL(U||p), reconstruction, gradient shares
    evaluations.safetensors  log p-hat of every operation at each evaluation, float16
    metrics.json             the final evaluation; its presence says that the run is finished
    model.safetensors        the final weights by name; snapshots/epoch_NNNN.safetensors are earlier ones
    checkpoint.safetensors   the whole state, replaced at every checkpoint
    timing.json              devices, versions and seconds, one entry a session

Every file is written under a temporary name, flushed to disk and renamed. Model, history, evaluations and metrics
hold no time, path or date: equal configurations give equal bytes on the same machine.
"""

import contextlib
import datetime
import fcntl
import io
import json
import math
import os
import platform
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tqdm import tqdm

from tvae_lib import evaluation
from tvae_lib.config import Config, ParameterError, identity, run_path
from tvae_lib.dual import DualVAE
from tvae_lib.losses import TERMS
from tvae_lib.schedules import CLOCK
from tvae_lib.statenet import StateNet
from tvae_lib.streams import stream
from tvae_lib.training import HISTORY, State, Trainer, initial_state, load, unflatten

FORMAT = 1
SNAPSHOTS = (0, 40, 120, 150, 250)  # on the clock of the schedules
PATHWAYS = ("A", "B")
_OWN = (".lock", ".probe")
LOCK_SECONDS = 15.0  # a killed kernel can outlive its parent by a second or so


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file by its new content, whole or not at all: temporary name, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value) -> None:
    write_atomic(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_table(path: Path, table: pd.DataFrame) -> None:
    write_atomic(path, table.to_csv(index=False, float_format="%.9g").encode())


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(path, save(content, metadata={"format": str(FORMAT)}))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, on the CPU. ValueError for another format version."""
    with safe_open(path, "pt") as file:
        if (file.metadata() or {}).get("format") != str(FORMAT):
            raise ValueError(f"{path.name} is of format {(file.metadata() or {}).get('format')}, not {FORMAT}")
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


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
        """One row an epoch; columns in `training.HISTORY`."""
        return pd.read_csv(self.path / "history.csv")

    @property
    def evaluations(self) -> pd.DataFrame:
        """One row an evaluation; `epoch` counts completed epochs, 0 is the untrained network."""
        return pd.read_csv(self.path / "evaluations.csv")

    def log_p(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Epochs (E,) and log p-hat of every operation (E, 2, M), float16, pathways A and B."""
        tensors = read_tensors(self.path / "evaluations.safetensors")
        return tensors["epoch"], tensors["log_p"]

    def model(self, epoch: int | None = None) -> DualVAE:
        """The trained pair, or the one of a snapshot, on the CPU in evaluation mode."""
        weights = {k: v for k, v in self._weights(epoch).items() if not k.startswith("statenet.")}
        model = DualVAE(self.config["parameters"]["latent"])
        model.load_state_dict(weights)
        return model.eval()

    def statenet(self, epoch: int | None = None) -> StateNet:
        """The trained StateNet, or the one of a snapshot, on the CPU in evaluation mode."""
        weights = {k: v for k, v in self._weights(epoch).items() if k.startswith("statenet.")}
        net = StateNet()
        net.load_state_dict({k.removeprefix("statenet."): v for k, v in weights.items()})
        return net.eval()

    def _weights(self, epoch: int | None) -> dict[str, torch.Tensor]:
        name = "model.safetensors" if epoch is None else f"snapshots/epoch_{epoch:04d}.safetensors"
        return read_tensors(self.path / name)


def evaluation_columns(config: Config) -> list[str]:
    """Columns of evaluations.csv for a configuration."""
    per_pathway = [f"{kind}_{n}" for kind in ("coverage", "coverage_argmax") for n in config.coverage_samples]
    per_pathway += ["kl_uniform", "kl_uniform_error", "min_log_p", "alone", "coupled"]
    per_pathway += [f"share_{term}" for term in TERMS]
    return ["epoch"] + [f"{name}_{pathway}" for pathway in PATHWAYS for name in per_pathway]


def _judge_both(trainer: Trainer, model: DualVAE, samples: int, epoch: int, purpose: str):
    """`evaluation.judge` of both decoders, each on its own stream: ({"A": ..., "B": ...}, log p-hat (2, M))."""
    config, verdicts, log_ps = trainer.config, {}, []
    for pathway in PATHWAYS:
        generator = stream(config.seed, epoch, f"{purpose} {pathway}", trainer.device)
        decoder = getattr(model, pathway).decoder
        verdicts[pathway], log_p = evaluation.judge(decoder, config.latent, samples, config.coverage_samples, generator)
        log_ps.append(log_p)
    return verdicts, torch.stack(log_ps)


def evaluate(trainer: Trainer, state: State) -> State:
    """Evaluate the state and put the result in its tables; nothing else of the state changes."""
    epoch, config = int(state["epoch"]), trainer.config
    model = load(trainer.step.model, state["theta"])
    verdicts, log_p = _judge_both(trainer, model, config.eval_samples, epoch, "evaluation")
    exact = evaluation.reconstruction(model, trainer.data.trits[trainer.data.training], state["rho"])
    shares = trainer.gradient_shares(state).cpu()
    values = {"epoch": epoch}
    for column, pathway in enumerate(PATHWAYS):
        verdict = verdicts[pathway]
        for kind in ("coverage", "coverage_argmax"):
            values |= {f"{kind}_{n}_{pathway}": value for n, value in verdict[kind].items()}
        values |= {f"{k}_{pathway}": verdict[k] for k in ("kl_uniform", "kl_uniform_error", "min_log_p")}
        values |= {f"{k}_{pathway}": exact[f"{k}_{pathway}"] for k in ("alone", "coupled")}
        values |= {f"share_{term}_{pathway}": shares[i, column].item() for i, term in enumerate(TERMS)}
    row = [math.nan if values[name] is None else values[name] for name in evaluation_columns(config)]
    new = {"evaluations": torch.tensor([row], dtype=torch.float64), "log_p": log_p.half().cpu().unsqueeze(0)}
    return state | {name: torch.cat([state[name], rows]) for name, rows in new.items()}


def start(trainer: Trainer) -> State:
    """The state before the first epoch, with empty tables of evaluations."""
    return initial_state(trainer.config, trainer.device) | {
        "evaluations": torch.empty((0, len(evaluation_columns(trainer.config))), dtype=torch.float64),
        "log_p": torch.empty((0, 2, evaluation.SIZE), dtype=torch.float16),
    }


def _load_checkpoint(path: Path, trainer: Trainer) -> State:
    """The state of a checkpoint, each tensor in memory of its own on the device where the trainer keeps it."""
    saved = read_tensors(path / "checkpoint.safetensors")
    return {name: saved[name].clone().to(tensor.device) for name, tensor in start(trainer).items()}


def _save_model(path: Path, state: State, trainer: Trainer) -> None:
    tensors = unflatten(state["theta"], trainer.step.model)
    tensors |= {f"statenet.{name}": t for name, t in unflatten(state["statenet_theta"], trainer.statenet).items()}
    write_tensors(path, tensors)


def _save_tables(path: Path, state: State, config: Config) -> None:
    history = pd.DataFrame(state["history"][: int(state["epoch"])].cpu().numpy(), columns=list(HISTORY))
    write_table(path / "history.csv", history.astype({"epoch": int, "phase": int, "gate": int}))
    table = pd.DataFrame(state["evaluations"].numpy(), columns=evaluation_columns(config))
    write_table(path / "evaluations.csv", table.astype({"epoch": int}))


def _final_metrics(trainer: Trainer, state: State) -> dict:
    config, epoch = trainer.config, int(state["epoch"])
    model = load(trainer.step.model, state["theta"])
    verdicts, _ = _judge_both(trainer, model, config.final_samples, epoch, "final")
    start = dict(zip(evaluation_columns(config), state["evaluations"][0].tolist(), strict=True))
    untrained = {
        pathway: {
            kind: {str(n): start[f"{kind}_{n}_{pathway}"] for n in config.coverage_samples}
            for kind in ("coverage", "coverage_argmax")
        }
        for pathway in PATHWAYS
    }
    exact = {
        name: evaluation.reconstruction(model, trainer.data.trits[indices], state["rho"])
        for name, indices in (("training", trainer.data.training), ("held_out", trainer.data.held_out))
    }
    return {
        "format": FORMAT,
        "preset": config.preset,
        "seed": config.seed,
        "epochs": epoch,
        **verdicts,
        "untrained": untrained,
        "uniform": {"coverage": evaluation.uniform_bound(config.coverage_samples)},
        "reconstruction": exact,
    }


def _refuse(path: Path, why: str) -> ParameterError:
    return ParameterError(f"run_dir is '{path}', {why}; it must be new, empty, or hold a run of this configuration.")


def _status(path: Path, config: Config, epochs: int) -> str:
    """What is at `path` for this configuration: "new", "unfinished" or "finished"; ParameterError where neither."""
    try:
        if path.exists() and not path.is_dir():
            raise _refuse(path, "which is a file")
        if not path.exists() or all(entry.name in _OWN or entry.suffix == ".tmp" for entry in path.iterdir()):
            return "new"
    except OSError as error:
        raise _refuse(path, f"which cannot be read ({error.strerror})") from None
    if not config.resume:
        raise ParameterError(f"run_dir is '{path}', which is not empty; with resume False it must be new or empty.")
    if not (path / "config.json").exists():
        raise _refuse(path, "which holds other files")
    try:
        recorded = Run(path).config
        version, parameters = recorded["format"], recorded["parameters"]
    except (ValueError, KeyError, TypeError, OSError):
        raise _refuse(path, "whose config.json cannot be read") from None
    if version != FORMAT:
        raise _refuse(path, f"a run of format {version} where this version writes {FORMAT}")
    for name, value in identity(config).items():
        if parameters.get(name) != value:
            raise _refuse(path, f"a run with {name} {parameters.get(name)!r} where this one has {value!r}")
    checkpoint, finished = path / "checkpoint.safetensors", Run(path).finished
    done = Run(path).metrics["epochs"] if finished else 0
    if checkpoint.exists():
        try:
            with safe_open(checkpoint, "pt") as file:
                done = max(done, int(file.get_tensor("epoch")))
        except SafetensorError:
            raise _refuse(path, "whose checkpoint cannot be read") from None
    if done > epochs:
        raise ParameterError(
            f"epochs is {epochs}; it must be at least {done}, as far as the run in run_dir '{path}' has come."
        )
    if finished and done == epochs == Run(path).metrics["epochs"]:
        return "finished"
    if finished and not checkpoint.exists():
        raise _refuse(path, "a finished run without the checkpoint that going on needs")
    return "unfinished"


@contextlib.contextmanager
def _locked(path: Path):
    """The directory for this process alone, made if it is missing; ParameterError where it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / ".lock", "w")  # noqa: SIM115 - closed by the `with` below
    except OSError as error:
        raise _refuse(path, f"which cannot be written ({error.strerror})") from None
    with lock:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise _refuse(path, "in which another process is at work") from None
                time.sleep(0.1)
        for leftover in path.rglob(".*.tmp"):
            leftover.unlink()
        try:
            write_atomic(path / ".probe", b"")
            (path / ".probe").unlink()
        except OSError as error:
            raise _refuse(path, f"which cannot be written ({error.strerror})") from None
        yield


def _device(config: Config) -> torch.device:
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if config.device == "auto" else config.device)


def device_name(device: torch.device) -> str:
    """The device in words: the GPU's name, or the processor's with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = [platform.processor()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")] + names
    return f"{names[0] or platform.machine()}, {torch.get_num_threads()} threads"


def execute(config: Config) -> Run:
    """Start, continue or show the run of a configuration, and return it.

    A finished run is shown: nothing is computed or written. Raises ParameterError before anything is trained.
    """
    path, epochs = run_path(config), config.epochs or config.total_epochs
    if _status(path, config, epochs) == "finished":
        return Run(path)
    with _locked(path):
        status = _status(path, config, epochs)
        if status == "new":
            now = datetime.datetime.now(datetime.UTC)
            content = {
                "format": FORMAT,
                "run_id": f"{config.preset}-seed{config.seed}-{now:%Y%m%dT%H%M%SZ}",
                "created": now.isoformat(timespec="seconds"),
                "parameters": identity(config),
            }
            write_json(path / "config.json", content)
        if status != "finished":
            (path / "metrics.json").unlink(missing_ok=True)  # it says that the other files are final
            _train(config, path, epochs)
    return Run(path)


def _progress(description: str, first: int, epochs: int) -> tqdm:
    """A bar that moves in a terminal; elsewhere it is silent, to be printed line by line for a log or a page."""
    file = sys.stdout if sys.stdout.isatty() else io.StringIO()
    return tqdm(desc=description, total=epochs, initial=first, unit="epoch", ncols=100, file=file)


def _train(config: Config, path: Path, epochs: int) -> None:
    trainer = Trainer(config, _device(config))
    resumed = (path / "checkpoint.safetensors").exists()
    state = _load_checkpoint(path, trainer) if resumed else start(trainer)
    (path / "snapshots").mkdir(exist_ok=True)
    snapshots = {round(t * config.total_epochs / CLOCK) for t in SNAPSHOTS}
    first, seconds = int(state["epoch"]), {"training": 0.0, "evaluation": 0.0}
    sessions = Run(path).timing["sessions"] if (path / "timing.json").exists() else []

    def save_timing() -> None:
        session = {
            "device": device_name(trainer.device),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "from_epoch": first,
            "to_epoch": int(state["epoch"]),
            "training_seconds": round(seconds["training"], 3),
            "evaluation_seconds": round(seconds["evaluation"], 3),
        }
        write_json(path / "timing.json", {"format": FORMAT, "sessions": [*sessions, session]})

    def checkpoint() -> None:
        lost = ~state["history"][:epoch, list(HISTORY).index("loss")].isfinite()
        if lost.any():
            raise FloatingPointError(f"the loss is not finite from epoch {lost.nonzero()[0].item() + 1} on")
        write_tensors(path / "checkpoint.safetensors", state)
        _save_tables(path, state, config)
        save_timing()

    @contextlib.contextmanager
    def timed(what: str):
        started = time.perf_counter()
        yield
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)
        seconds[what] += time.perf_counter() - started

    with timed("training"):
        trainer.hasten(state, epochs - first)
    with _progress(f"{config.preset}, seed {config.seed}", first, epochs) as bar:
        while True:
            epoch = int(state["epoch"])
            if epoch in snapshots:
                _save_model(path / "snapshots" / f"epoch_{epoch:04d}.safetensors", state, trainer)
            if epoch % config.eval_every == 0 and epoch // config.eval_every == len(state["evaluations"]):
                with timed("evaluation"):
                    state = evaluate(trainer, state)
                shown = dict(zip(evaluation_columns(config), state["evaluations"][-1].tolist(), strict=True))
                n = config.coverage_samples[-1]
                bar.set_postfix_str(
                    f"coverage A {shown[f'coverage_{n}_A']:.2%}, B {shown[f'coverage_{n}_B']:.2%}", refresh=False
                )
            if epoch > first and (epoch % config.checkpoint_every == 0 or epoch == epochs):
                checkpoint()
            if epoch >= epochs:
                break
            with timed("training"):
                state = trainer.epoch(state)
            bar.update()
            if not sys.stdout.isatty() and (bar.n % -(-epochs // 20) == 0 or bar.n == epochs):
                print(bar, flush=True)

    _save_model(path / "model.safetensors", state, trainer)
    _save_tables(path, state, config)  # again, in case the last session ended right after its checkpoint
    epochs_evaluated = state["evaluations"][:, 0].long()
    write_tensors(path / "evaluations.safetensors", {"epoch": epochs_evaluated, "log_p": state["log_p"]})
    with timed("evaluation"):
        metrics = _final_metrics(trainer, state)
    save_timing()
    write_json(path / "metrics.json", metrics)
