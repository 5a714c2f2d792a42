"""Runs started, continued or shown, alone or several as one ensemble, each in a directory of its own."""

import contextlib
import datetime
import io
import platform
import sys
import time
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from tvae_lib.errors import DivergenceError, FileError, ParameterError, UserError, shown
from tvae_lib.runs.directory import NEXT, Run
from tvae_lib.runs.evaluate import TABLES, evaluate, evaluation_columns, final_metrics, not_usable, start
from tvae_lib.runs.files import FORMAT, digest_of_json, replace, write_json, write_sealed, write_table, write_tensors
from tvae_lib.runs.status import epoch_reached, locked, read_checkpoint, run_path, settle, status
from tvae_lib.system.schedules import CLOCK
from tvae_lib.training.config import Config, identity
from tvae_lib.training.ensemble import Ensemble, check_alike, check_replicas
from tvae_lib.training.state import HISTORY, State, unflatten, weights_kept
from tvae_lib.training.trainer import RECORD_FROM, Trainer

SNAPSHOTS = (0, 40, 120, 150, 250)  # on the clock of the schedules


def execute(config: Config) -> Run:
    """Start, continue or show the run of a configuration, and return it.

    A finished run is shown: nothing is computed or written. Raises ParameterError, or FileError about what is there,
    before anything is trained; DivergenceError or FileError where the training could not go on."""
    return execute_together([config])[0]


def execute_together(configs: list[Config]) -> list[Run]:
    """As `execute`, for several configurations that train as one ensemble, each in a run directory of its own.

    Runs whose checkpoints are at different epochs go on in groups, one after the other. One that diverges or cannot be
    written ends alone: the others go on, and its error comes at the end."""
    check_together(configs)
    wanted = [config for config in configs if status(config) != "finished"]
    with contextlib.ExitStack() as stack:
        for config in wanted:
            stack.enter_context(locked(run_path(config)))
        settle([run_path(config) for config in wanted])
        groups: dict[int, list[Config]] = {}
        for config in [config for config in wanted if status(config) != "finished"]:  # now that nobody else is at work
            groups.setdefault(epoch_reached(run_path(config)), []).append(config)
        for config in wanted:
            begin(config)
        errors = [error for epoch in sorted(groups) for error in train_to_end(groups[epoch])]
    if len(errors) > 1:
        raise UserError("; ".join(str(error).removesuffix(".") for error in errors) + ".")
    if errors:
        raise errors[0]
    return [Run(run_path(config)) for config in configs]


def check_together(configs: list[Config]) -> None:
    """ParameterError, one sentence, where runs cannot train together: as replicas, as far, on one device, apart."""
    check_replicas(configs)
    check_alike(
        configs, {"epochs": attrgetter("last_epoch"), "device": attrgetter("device")}, "run that trains together"
    )
    paths = [run_path(config) for config in configs]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise ParameterError(f"run_dir is '{path}' in replicas {paths.index(path)} and {i}; each needs its own.")


def begin(config: Config) -> None:
    """Let a new directory say what it holds from now on."""
    path = run_path(config)
    if (path / "config.json").exists():
        return
    now = datetime.datetime.now(datetime.UTC)
    content = {
        "format": FORMAT,
        "run_id": f"{config.preset}-seed{config.seed}-{now:%Y%m%dT%H%M%SZ}",
        "created": now.isoformat(timespec="seconds"),
        "parameters": identity(config),
    }
    write_sealed(path / "config.json", content)


def device_name(device: torch.device) -> str:
    """The device in words: the GPU's name, or the processor's with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = [platform.processor()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")] + names
    return f"{names[0] or platform.machine()}, {torch.get_num_threads()} threads"


class Member:
    """A run while it trains, alone or together with others: its state, its time, and what it writes."""

    def __init__(self, trainer: Trainer, replicas: int):
        self.trainer, self.config, self.replicas = trainer, trainer.config, replicas
        self.path, self.epochs = run_path(self.config), self.config.last_epoch
        self.identity = digest_of_json(identity(self.config))
        self.state = start(self.config, trainer.device)
        if saved := read_checkpoint(self.path, self.config):
            self.state = {name: saved[name].to(tensor.device) for name, tensor in self.state.items()}
        self.steps_taken = "plain"
        self.snapshots = {round(t * self.config.total_epochs / CLOCK) for t in SNAPSHOTS}
        self.first, self.seconds = self.epoch, {"training": 0.0, "evaluation": 0.0}
        self.sessions = Run(self.path).timing["sessions"]

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
        snapshot = self.path / "snapshots" / f"epoch_{epoch:04d}.safetensors"
        if epoch in self.snapshots and not (epoch == self.first and snapshot.exists()):
            self.prepare()
            self.save_model(snapshot)
        if epoch % config.eval_every == 0 and epoch // config.eval_every == len(self.state["evaluations"]):
            self.check()
            with timed([self], "evaluation"):
                self.state = evaluate(self.trainer, self.state)
        if epoch > self.first and (epoch % config.checkpoint_every == 0 or epoch == self.epochs):
            self.prepare()
            write_tensors(self.path / NEXT, self.state, identity=self.identity)

    def commit(self) -> None:
        """Let a new checkpoint take its place, now that all that train together have theirs."""
        if (self.path / NEXT).exists():
            replace(self.path / NEXT, self.path / "checkpoint.safetensors")
            self.save_tables()
            self.save_timing()

    def prepare(self) -> None:
        """Before anything is written: what is kept is finite, and metrics.json, which vouches for the files, goes."""
        self.check()
        try:
            (self.path / "snapshots").mkdir(exist_ok=True)
            (self.path / "metrics.json").unlink(missing_ok=True)
        except OSError as error:
            raise FileError(f"{shown(str(self.path), 1000)} cannot be written ({error.strerror}).") from None

    def check(self) -> None:
        """DivergenceError where the state is not finite, or too large to compute with."""
        if lost := not_usable(self.trainer, self.state):
            kept = epoch_reached(self.path)
            path = shown(str(self.path), 1000)
            told = f"its checkpoint of epoch {kept} is good" if kept else "it has no checkpoint yet"
            raise DivergenceError(
                f"the run in {path} diverged by epoch {self.epoch}: {lost} is not finite; {told}, "
                "and the same command goes on from there, but if this comes again, take a lower lr or another seed, "
                "and a run_dir of its own."
            )

    def save_model(self, path: Path) -> None:
        net = unflatten(self.state["statenet_theta"], self.trainer.statenet)
        named = {f"statenet.{name}": tensor for name, tensor in net.items()}
        write_tensors(
            path, unflatten(weights_kept(self.state), self.trainer.step.model) | named, identity=self.identity
        )

    def save_tables(self) -> None:
        history = pd.DataFrame(self.state["history"][: self.epoch].cpu().numpy(), columns=list(HISTORY))
        write_table(self.path / "history.csv", history.astype({"epoch": int, "phase": int, "gate": int}))
        table = pd.DataFrame(self.state["evaluations"].numpy(), columns=evaluation_columns(self.config))
        write_table(self.path / "evaluations.csv", table.astype({"epoch": int}))

    def save_timing(self) -> None:
        session = {
            "device": device_name(self.trainer.device),
            "step": self.steps_taken,
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
        """The files of the end; metrics.json comes last, and vouches for the others."""
        self.prepare()
        self.save_model(self.path / "model.safetensors")
        self.save_tables()  # again, in case the last session ended after its checkpoint
        tables = {"epoch": self.state["evaluations"][:, 0].long(), "log_p": self.state["log_p"]}
        write_tensors(self.path / "evaluations.safetensors", tables, identity=self.identity)
        with timed([self], "evaluation"):
            metrics = final_metrics(self.trainer, self.state)
        self.save_timing()
        vouched = {"identity": self.identity, "files": Run(self.path).digests()}
        write_sealed(self.path / "metrics.json", metrics | vouched)


@contextlib.contextmanager
def timed(members: list[Member], what: str) -> Iterator[None]:
    """Add the seconds spent inside to `what` of every member."""
    started, device = time.perf_counter(), members[0].trainer.device
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    for member in members:
        member.seconds[what] += seconds


def each(going: list[Member], act: Callable[[Member], None]) -> list[UserError]:
    """Let every member act; one that cannot leaves the others, and its error is returned."""
    errors: list[UserError] = []
    for member in list(going):
        try:
            act(member)
        except (DivergenceError, FileError) as error:
            errors.append(error)
            going.remove(member)
    return errors


def train_to_end(configs: list[Config]) -> list[UserError]:
    """Train runs that are at the same epoch to their end, as one; what is wrong with those that did not get there."""
    automatic, several = "cuda" if torch.cuda.is_available() else "cpu", len(configs) > 1
    device = automatic if configs[0].device == "auto" else configs[0].device
    trainer = Ensemble(configs, device) if several else Trainer(configs[0], device)
    trainers = trainer.members if isinstance(trainer, Ensemble) else [trainer]
    everyone = [Member(one, len(configs)) for one in trainers]
    first, epochs = everyone[0].first, everyone[0].epochs
    with timed(everyone, "training"):
        state = trainer.stack([member.trained for member in everyone])  # noqa: PD013 - no table
        # By the length of the whole run: one that goes on is to take the same steps as one that went through.
        if configs[0].total_epochs >= RECORD_FROM:
            trainer.hasten(state)
        for member in everyone:
            member.steps_taken = trainer.path
    going, errors = list(everyone), list[UserError]()
    title = f"{len(configs)} runs" if several else f"{configs[0].preset}, seed {configs[0].seed}"
    # A bar that moves in a terminal; elsewhere it is silent, and printed line by line for a log or a page.
    file = sys.stdout if sys.stdout.isatty() else io.StringIO()
    with tqdm(desc=title, total=epochs, initial=first, unit="epoch", ncols=100, file=file) as bar:
        while True:
            errors += each(going, Member.visit)
            errors += each(going, Member.commit)
            if not going or going[0].epoch >= epochs:
                break
            bar.set_postfix_str(going[0].coverage, refresh=False)
            with timed(everyone, "training"):
                state = trainer.epoch(state)
            for member, part in zip(everyone, trainer.unstack(state), strict=True):  # noqa: PD010
                member.state = member.state | part
            bar.update()
            if not sys.stdout.isatty() and (bar.n % -(-epochs // 20) == 0 or bar.n == epochs):
                print(bar, flush=True)
    return errors + each(going, Member.finish)
