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
from tvae_lib.ensemble import Ensemble, check
from tvae_lib.losses import TERMS
from tvae_lib.schedules import CLOCK
from tvae_lib.statenet import StateNet
from tvae_lib.streams import stream
from tvae_lib.training import HISTORY, State, Trainer, initial_state, load, unflatten

FORMAT = 1
SNAPSHOTS = (0, 40, 120, 150, 250)  # on the clock of the schedules
PATHWAYS = ("A", "B")
_OWN = (".lock", ".probe")
LOCK_SECONDS = float(os.environ.get("TVAE_LOCK_SECONDS", 15))  # a killed kernel can outlive its parent by a second
TABLES = ("evaluations", "log_p")  # what a run keeps in its state beside what is trained


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

    def snapshots(self) -> list[int]:
        """The epochs, counted as finished, of which the weights are kept besides the last."""
        return sorted(int(path.stem.removeprefix("epoch_")) for path in (self.path / "snapshots").glob("epoch_*"))

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


def _epoch(path: Path) -> int:
    """How many epochs the checkpoint in a run directory has completed; 0 where there is none."""
    if not (path / "checkpoint.safetensors").exists():
        return 0
    with safe_open(path / "checkpoint.safetensors", "pt") as file:
        return int(file.get_tensor("epoch"))


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
    try:
        done = max(done, _epoch(path))
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


def _epochs(config: Config) -> int:
    return config.epochs or config.total_epochs


def _check_together(configs: list[Config]) -> None:
    """ParameterError, one sentence, where runs cannot train together: `ensemble.check`, and as far, on one device."""
    check(configs)
    for name, value in (("epochs", _epochs), ("device", lambda config: config.device)):
        for i, config in enumerate(configs):
            if value(config) != value(configs[0]):
                raise ParameterError(
                    f"{name} is {value(config)!r} in replica {i}; it must be "
                    f"{value(configs[0])!r}, the same in every run that trains together."
                )
    paths = [run_path(config) for config in configs]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise ParameterError(f"run_dir is '{path}' in replicas {paths.index(path)} and {i}; each needs its own.")


def execute(config: Config) -> Run:
    """Start, continue or show the run of a configuration, and return it.

    A finished run is shown: nothing is computed or written. Raises ParameterError before anything is trained.
    """
    return execute_together([config])[0]


def execute_together(configs: list[Config]) -> list[Run]:
    """As `execute`, for several configurations that train as one ensemble, each in a run directory of its own.

    Runs whose checkpoints are at different epochs go on in groups, one after the other. One that diverges ends alone:
    the others go on, and FloatingPointError comes at the end. Raises ParameterError before anything is trained.
    """
    _check_together(configs)
    wanted = [config for config in configs if _status(run_path(config), config, _epochs(config)) != "finished"]
    with contextlib.ExitStack() as stack:
        for config in wanted:
            stack.enter_context(_locked(run_path(config)))
        errors = [str(error) for group in _groups([c for c in wanted if _begin(c)]) for error in _train(group)]
    if errors:
        raise FloatingPointError("; ".join(errors))
    return [Run(run_path(config)) for config in configs]


def _begin(config: Config) -> bool:
    """Whether the run is still to be trained; if so, its directory says so from now on."""
    path = run_path(config)
    status = _status(path, config, _epochs(config))
    if status == "new":
        now = datetime.datetime.now(datetime.UTC)
        content = {
            "format": FORMAT,
            "run_id": f"{config.preset}-seed{config.seed}-{now:%Y%m%dT%H%M%SZ}",
            "created": now.isoformat(timespec="seconds"),
            "parameters": identity(config),
        }
        write_json(path / "config.json", content)
    if status == "unfinished":
        (path / "metrics.json").unlink(missing_ok=True)  # it says that the other files are final
    return status != "finished"


def _groups(configs: list[Config]) -> list[list[Config]]:
    """The configurations whose checkpoints are at the same epoch, those that are behind first."""
    groups = {}
    for config in configs:
        groups.setdefault(_epoch(run_path(config)), []).append(config)
    return [groups[epoch] for epoch in sorted(groups)]


def _progress(description: str, first: int, epochs: int) -> tqdm:
    """A bar that moves in a terminal; elsewhere it is silent, to be printed line by line for a log or a page."""
    file = sys.stdout if sys.stdout.isatty() else io.StringIO()
    return tqdm(desc=description, total=epochs, initial=first, unit="epoch", ncols=100, file=file)


class _Member:
    """A run while it trains, alone or together with others: its state, its time, and what it writes."""

    def __init__(self, trainer: Trainer, replicas: int):
        self.trainer, self.config, self.replicas = trainer, trainer.config, replicas
        self.path, self.epochs = run_path(self.config), _epochs(self.config)
        (self.path / "snapshots").mkdir(exist_ok=True)
        resumed = (self.path / "checkpoint.safetensors").exists()
        self.state = _load_checkpoint(self.path, trainer) if resumed else start(trainer)
        self.snapshots = {round(t * self.config.total_epochs / CLOCK) for t in SNAPSHOTS}
        self.first, self.seconds = self.epoch, {"training": 0.0, "evaluation": 0.0}
        self.sessions = Run(self.path).timing["sessions"] if (self.path / "timing.json").exists() else []

    @property
    def epoch(self) -> int:
        return int(self.state["epoch"])

    @property
    def trained(self) -> State:
        """The part of the state that `Trainer.epoch` takes."""
        return {name: tensor for name, tensor in self.state.items() if name not in TABLES}

    @property
    def coverage(self) -> str:
        """The last evaluation, for the bar."""
        shown = dict(zip(evaluation_columns(self.config), self.state["evaluations"][-1].tolist(), strict=True))
        n = self.config.coverage_samples[-1]
        return f"coverage A {shown[f'coverage_{n}_A']:.2%}, B {shown[f'coverage_{n}_B']:.2%}"

    def visit(self) -> None:
        """Whatever is due between two epochs: a snapshot, an evaluation, a checkpoint."""
        epoch, config = self.epoch, self.config
        if epoch in self.snapshots:
            _save_model(self.path / "snapshots" / f"epoch_{epoch:04d}.safetensors", self.state, self.trainer)
        if epoch % config.eval_every == 0 and epoch // config.eval_every == len(self.state["evaluations"]):
            self.check()
            with _timed([self], "evaluation"):
                self.state = evaluate(self.trainer, self.state)
        if epoch > self.first and (epoch % config.checkpoint_every == 0 or epoch == self.epochs):
            self.check()
            write_tensors(self.path / "checkpoint.safetensors", self.state)
            _save_tables(self.path, self.state, config)
            self.save_timing()

    def check(self) -> None:
        lost = ~self.state["history"][: self.epoch, list(HISTORY).index("loss")].isfinite()
        if lost.any():
            first = lost.nonzero()[0].item() + 1
            raise FloatingPointError(f"the loss is not finite from epoch {first} on in run_dir '{self.path}'")

    def save_timing(self) -> None:
        session = {
            "device": device_name(self.trainer.device),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "from_epoch": self.first,
            "to_epoch": self.epoch,
            "training_seconds": round(self.seconds["training"], 3),
            "evaluation_seconds": round(self.seconds["evaluation"], 3),
        }
        if self.replicas > 1:
            session["replicas"] = self.replicas  # all of them trained in these seconds
        write_json(self.path / "timing.json", {"format": FORMAT, "sessions": [*self.sessions, session]})

    def finish(self) -> None:
        """The files of the end; metrics.json comes last."""
        _save_model(self.path / "model.safetensors", self.state, self.trainer)
        _save_tables(self.path, self.state, self.config)  # again, in case the last session ended after its checkpoint
        epochs_evaluated = self.state["evaluations"][:, 0].long()
        tables = {"epoch": epochs_evaluated, "log_p": self.state["log_p"]}
        write_tensors(self.path / "evaluations.safetensors", tables)
        with _timed([self], "evaluation"):
            metrics = _final_metrics(self.trainer, self.state)
        self.save_timing()
        write_json(self.path / "metrics.json", metrics)


@contextlib.contextmanager
def _timed(members: list[_Member], what: str):
    started, device = time.perf_counter(), members[0].trainer.device
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    for member in members:
        member.seconds[what] += seconds


def _visited(members: list[_Member]) -> tuple[list[_Member], list[FloatingPointError]]:
    """The members that go on after each was visited, and why the others do not."""
    going, errors = [], []
    for member in members:
        try:
            member.visit()
            going.append(member)
        except FloatingPointError as error:
            errors.append(error)
    return going, errors


def _train(configs: list[Config]) -> list[FloatingPointError]:
    """Train runs that are at the same epoch to their end, as one; what is wrong with those that did not get there."""
    device, several = _device(configs[0]), len(configs) > 1
    trainer = Ensemble(configs, device) if several else Trainer(configs[0], device)
    everyone = [_Member(one, len(configs)) for one in (trainer.members if several else [trainer])]
    first, epochs = everyone[0].first, everyone[0].epochs
    with _timed(everyone, "training"):
        state = trainer.stack([member.trained for member in everyone])  # noqa: PD013 - no table
        trainer.hasten(state, epochs - first)
    going, errors = everyone, []
    title = f"{len(configs)} runs" if several else f"{configs[0].preset}, seed {configs[0].seed}"
    with _progress(title, first, epochs) as bar:
        while True:
            going, lost = _visited(going)
            errors += lost
            if not going or going[0].epoch >= epochs:
                break
            bar.set_postfix_str(going[0].coverage, refresh=False)
            with _timed(everyone, "training"):
                state = trainer.epoch(state)
            for member, part in zip(everyone, trainer.unstack(state), strict=True):  # noqa: PD010
                member.state = member.state | part
            bar.update()
            if not sys.stdout.isatty() and (bar.n % -(-epochs // 20) == 0 or bar.n == epochs):
                print(bar, flush=True)
    for member in going:
        member.finish()
    return errors
