"""Speed, side by side in one sitting: the library, a plain loop, Pyro, JAX, and the matrix products alone.

usage: python benchmarks/bench.py [--rounds N] [--device cpu|cuda] [--output FILE] [--jax PYTHON]

Times are medians over rounds in which the candidates take turns, so that a machine that slows down slows them all. An
epoch of ours is an epoch of a full run: 39 steps at batch 512, and a tenth of an evaluation (which comes every ten
epochs). Recording is spread over the 400 epochs of a run. The floor is the time that the matrix products would take at
the rate measured in the same rounds. JAX runs in the environment of the given Python; without one it is left out."""

import argparse
import contextlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import plain
import torch
from torch import nn

from studies import peers
from studies.limits import pair_of, tables_of
from tvae_lib.coverage import measured_coverage
from tvae_lib.measures.generation import SECOND_EVERY, joint_factors, likeliest
from tvae_lib.operations import all_operations, index_of
from tvae_lib.rng import stream
from tvae_lib.runs.evaluate import evaluate, judge, start
from tvae_lib.runs.execute import device_name
from tvae_lib.system import losses
from tvae_lib.training import recording
from tvae_lib.training.config import make_config
from tvae_lib.training.ensemble import Ensemble
from tvae_lib.training.state import call, flatten, initial_state, load
from tvae_lib.training.threads import alone
from tvae_lib.training.trainer import Trainer, descend, stepped

HERE = Path(__file__).resolve().parent
EPOCHS, EVALUATIONS, STEPS, REPLICAS = 400, 41, 20, {"cpu": 16, "cuda": 64}


class Clock:
    """Seconds that a task takes; on a GPU until it has finished there."""

    def __init__(self, device: torch.device):
        self.device = device
        self.wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def __call__(self, task: Callable[[], object]) -> float:
        self.wait()
        started = time.perf_counter()
        task()
        self.wait()
        return time.perf_counter() - started

    def medians(self, tasks: dict, rounds: int) -> dict:
        """Median seconds of each task over rounds in which they take turns, after one round to warm up."""
        times = [{name: self(task) for name, task in tasks.items()} for _ in range(rounds + 1)][1:]
        return {name: statistics.median(row[name] for row in times) for name in tasks}


def rate(clock: Clock, size: int = 2048) -> float:
    """FLOP/s of a square float32 matrix product."""
    a, b = (torch.randn(size, size, device=clock.device) for _ in range(2))
    return 2 * size**3 / min(clock(lambda: a @ b) for _ in range(5))


def products(module: nn.Module) -> list[int]:
    """FLOP of each linear layer's matrix product, for one sample, forwards."""
    return [2 * m.in_features * m.out_features for m in module.modules() if isinstance(m, nn.Linear)]


def floor_flop(trainer: Trainer) -> dict[str, float]:
    """FLOP of the matrix products of a full run: training forwards and backwards, evaluations, final evaluation.

    Backwards costs two products a layer, one for an encoder's first layer, whose input needs no gradient. The repulsion
    makes two products of the whole batch with itself."""
    config, model = trainer.config, trainer.step.model
    sample = sum(3 * sum(products(m)) for m in (model.A, model.B)) - 2 * products(model.A.encoder)[0]
    sample += 2 * 2 * config.batch_size * config.latent
    steps = -(-len(trainer.training) // config.batch_size)
    outer = 2 * 3**9 * (1 + 1 / SECOND_EVERY)
    judged = sum(sum(products(m.decoder)) + outer for m in (model.A, model.B))
    return {
        "training": EPOCHS * steps * config.batch_size * sample,
        "evaluation": EVALUATIONS * config.eval_samples * judged,
        "final": config.final_samples * judged,
    }


class Process:
    """Another process that answers each line it is sent with a line of JSON."""

    def __init__(self, *command: object, **environment: str):
        env = os.environ | {"PYTHONPATH": str(HERE.parent)} | environment
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
        self.process = subprocess.Popen(list(map(str, command)), **pipes)
        self.ready = self.answer()

    def answer(self) -> dict:
        return json.loads(self.process.stdout.readline())

    def ask(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def work(seeds: list[int]) -> None:
    """A process of the replicas: an epoch of each seed for every line of standard input."""
    configs = [make_config(seed=seed, threads=1) for seed in seeds]
    trainers = [Trainer(config, "cpu") for config in configs]
    states = [initial_state(config, torch.device("cpu")) for config in configs]
    trainers[0].hasten(states[0])
    for trainer in trainers:
        trainer.take, trainer.path = trainers[0].take, trainers[0].path
    states = [trainer.epoch(state) for trainer, state in zip(trainers, states, strict=True)]
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        states = [trainer.epoch(state) for trainer, state in zip(trainers, states, strict=True)]
        print(json.dumps({"ready": True}), flush=True)


@contextlib.contextmanager
def replicas(count: int, device: torch.device) -> Iterator[Callable[[], object]]:
    """A task that trains an epoch of `count` replicas: on a CPU one process a core, on a GPU one ensemble."""
    if device.type == "cuda":
        ensemble = Ensemble([make_config(seed=seed) for seed in range(count)], device)
        state = ensemble.stack([initial_state(m.config, device) for m in ensemble.members])
        ensemble.hasten(state)
        yield lambda: ensemble.epoch(state)
        return
    cores = torch.get_num_threads()
    shares = [list(range(i, count, cores)) for i in range(cores)]
    processes = [
        Process(sys.executable, __file__, "--work", ",".join(map(str, share)), OMP_NUM_THREADS="1") for share in shares
    ]

    def task():
        for process in processes:
            process.ask()
        for process in processes:
            process.answer()

    yield task
    for process in processes:
        process.end()


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Inside, another process keeps a core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Inside, no fused pieces are found: what is evaluated is evaluated as it is written."""
    fused, recording.fused = recording.fused, lambda module: None
    try:
        yield
    finally:
        recording.fused = fused


def repeat(task: Callable[[], object], count: int = STEPS) -> tuple[Callable[[], object], int]:
    """The task several times over, for what is too short to time once; and how many times."""
    return lambda: [task() for _ in range(count)], count


def differentiate(function: Callable, inputs: torch.Tensor) -> torch.Tensor:
    inputs = inputs.detach().requires_grad_()
    return torch.autograd.grad(function(inputs), inputs)[0]


def fused(function: Callable, inputs: torch.Tensor, *others: torch.Tensor) -> Callable[[], object]:
    """The gradient of a function by its first argument, recorded with fused pieces for one thread, as a task."""

    def step(carried, inputs, *others):
        return carried, differentiate(lambda x: function(x, *others), inputs)

    example = (torch.zeros(()), inputs, *others)
    take, _ = recording.recorded(step, example, [1])
    return lambda: take(*example)


def pieces_of_a_step(trainer: Trainer, state) -> dict[str, tuple]:
    """Each piece of a step with its gradient, as it is usually written and fused."""
    config, model = trainer.config, load(trainer.step.model, state["theta"])
    (trits, indicators), noise = next(trainer.batches(0))
    z, logits, classes = noise[0], torch.randn(config.batch_size, 9, 3), indicators.argmax(-1).flatten()
    written_network = lambda: torch.autograd.grad(  # noqa: E731
        model.B(trits, noise[1])[1].sum(), list(model.B.parameters())
    )
    network = lambda flat: call(trainer.step.model.B, flat, trits, noise[1])[1].sum()  # noqa: E731
    written_softmax = lambda x: nn.functional.cross_entropy(x.flatten(0, 1), classes, reduction="sum") / len(x)  # noqa: E731
    return {
        "networks": (written_network, fused(network, flatten(model.B))),
        "softmax": (lambda: differentiate(written_softmax, logits), fused(losses.cross_entropy, logits, indicators)),
        "entropy": (lambda: differentiate(plain.entropy, z), fused(losses.soft_entropy, z)),
        "repulsion": (lambda: differentiate(plain.repulsion, z), fused(losses.repulsion, z, torch.tensor(0.5))),
    }


def optimisers(trainer: Trainer, state) -> tuple:
    """AdamW and the gradient norms: torch's and one by one, and fused."""
    model, sizes = load(trainer.step.model, state["theta"]), trainer.step.sizes
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    theta, zero = state["theta"].clone(), torch.zeros_like(state["theta"])
    carried = theta, zero, zero.clone(), zero.clone()
    rest = torch.randn_like(theta), torch.tensor(5.0, dtype=torch.float64), torch.full((2,), 1e-3)

    def step(carried, gradient, count, lrs):
        theta, update, *moments = carried
        new = descend(theta, gradient, update, *moments, count, lrs, sizes, 1e-4)
        return new[:4], new[4]

    take, _ = recording.recorded(step, (carried, *rest), [1])
    kept = take(carried, *rest)[0]
    return (
        lambda: (optimiser.step(), [plain.norm_of_gradients(m) for m in (model.A, model.B)]),
        lambda: take(kept, *rest),
    )


def pieces(trainer: Trainer, state) -> dict[str, dict]:
    """What was changed, each as it is usually written and as it is here, on one thread, and how many times over."""
    rows, large = all_operations()[torch.randint(3**9, (195_000,))], torch.randn(4096, 9, 3)
    coverage = (
        lambda: len({tuple(row) for row in rows.tolist()}),
        lambda: measured_coverage(index_of(rows), (10_000, 50_000, 195_000)),
    )
    argmax = lambda: large.argmax(-1), lambda: likeliest(large.movedim(0, -1).contiguous())
    pairs = pieces_of_a_step(trainer, state) | {"optimiser": optimisers(trainer, state), "argmax": argmax}
    several = {name: (repeat(before), repeat(after)) for name, (before, after) in pairs.items()}
    several["coverage"] = tuple(repeat(task, 1) for task in coverage)
    return {name: dict(zip(("before", "after"), pair, strict=True)) for name, pair in several.items()}


def begun(trainer: Trainer, state) -> tuple:
    """The arguments of the next step of a run."""
    epoch = int(state["epoch"])
    begun, controls = trainer.scheduled(state, trainer.prescribed(epoch), epoch)
    return (stepped(begun), *next(trainer.batches(epoch)), controls)


def on_threads(threads: int, step: Callable[[], object]) -> Callable[[], object]:
    """A task of several steps with so many threads of torch's."""

    def task():
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        for _ in range(STEPS):
            step()
        torch.set_num_threads(before)

    return task


def steps_of(trainer: Trainer, state, threads: int, fused: bool = True) -> Callable[[], object]:
    """A task of several steps of one run with so many threads, fused or only recorded."""
    (carried, *rest) = example = begun(trainer, state)
    take, _ = recording.recorded(trainer.step, example, [threads] if fused else [])

    def step():
        nonlocal carried
        carried, _ = take(carried, *rest)

    return on_threads(1 if fused else threads, step)


def steps(trainer: Trainer, state, clock: Clock, rounds: int) -> dict[str, dict]:
    """Seconds of a step as written, recorded, and fused, by the number of threads."""
    most, found, example = torch.get_num_threads(), {}, begun(trainer, state)
    for threads in sorted({1, min(2, most), most}):
        tasks = {
            "written": on_threads(threads, lambda: trainer.step(*example)),
            "recorded": steps_of(trainer, state, threads, False),
            "fused": steps_of(trainer, state, threads),
        }
        found[str(threads)] = {name: s / STEPS for name, s in clock.medians(tasks, rounds).items()}
    return found


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """The slope of log seconds over log size, least squares."""
    x, y = ([math.log(v) for v in values] for values in (sizes, seconds))
    return statistics.linear_regression(x, y).slope


def grown(trainer: Trainer, clock: Clock, rounds: int) -> dict[str, dict]:
    """Seconds against size: a step by batch, by latent width, by threads and by tables, p-hat by tables."""
    most = torch.get_num_threads()

    def step_of(threads=most, **parameters):
        other = Trainer(make_config(**parameters), trainer.device)
        return steps_of(other, initial_state(other.config, other.device), threads)

    def step_of_tables(trits):
        pair = pair_of(trits)
        other = Trainer(make_config(preset="repaired"), trainer.device, pair=pair, data=tables_of(trits))
        return steps_of(other, initial_state(other.config, other.device, pair), most)

    def p_hat_of(trits):
        p = torch.softmax(torch.randn(trits, 3, 4096, device=trainer.device), 1)

        def task():
            for _ in range(STEPS):
                head, tail = joint_factors(p)
                head @ tail.T

        return task

    series = {
        "batch": {n: step_of(batch_size=n) for n in (8, 64, 128, 256, 512, 1024, 2048)},
        "latent": {d: step_of(latent=d) for d in (4, 16, 64, 256)},
        "threads": {
            n: step_of(n, batch_size=2048) for n in sorted({1, *(2**i for i in range(most.bit_length())), most})
        },
        "operations": {3**n: p_hat_of(n) for n in range(5, 12)},
        "tables": {3**n: step_of_tables(n) for n in (3, 5, 7, 9, 11)},
    }
    result = {}
    for name, tasks in series.items():
        median = clock.medians(tasks, rounds)
        sizes, seconds = list(median), [value / STEPS for value in median.values()]
        exponents = (
            {}
            if len(sizes) < 2
            else {"exponent": exponent(sizes, seconds), "exponent_of_the_largest": exponent(sizes[-3:], seconds[-3:])}
        )
        result[name] = {"sizes": sizes, "seconds": seconds, **exponents}
    return result


def epoch_of(preset: str, device: torch.device) -> Callable[[], object]:
    """An epoch of a run of another preset, as a task."""
    trainer = Trainer(make_config(preset=preset), device)
    state = trainer.epoch(initial_state(trainer.config, device))
    trainer.hasten(state)
    return lambda: trainer.epoch(state)


def tasks_of(trainer: Trainer, state, jax: Process | None) -> dict[str, Callable[[], object]]:
    """What is timed in turns: an epoch and an evaluation, ours and plain, and a VAE alone, by Pyro and ours."""
    device, model = trainer.device, load(trainer.step.model, state["theta"])
    judged = [(m.decoder, stream(0, 0, name, device)) for m, name in ((model.A, "A"), (model.B, "B"))]
    size, counts = trainer.config.eval_samples, trainer.config.coverage_samples
    tasks: dict[str, Callable[[], object]] = {
        "epoch": lambda: trainer.epoch(state),
        "repaired_epoch": epoch_of("repaired", device),
        "evaluation": lambda: evaluate(trainer, state),
        "judgement": lambda: [judge(d, trainer.config.latent, size, counts, g) for d, g in judged],
        "plain_epoch_64": lambda: plain.train(1, 64, 0, device=device),
        "plain_epoch_512": lambda: plain.train(1, 512, 0, device=device),
        "plain_coverage": lambda: [plain.coverage(m.decoder, 195_000) for m in (model.A, model.B)],
    }
    if device.type == "cpu":
        import single

        def as_written():
            with unfused():
                evaluate.__wrapped__(trainer, state)  # on all of torch's threads

        pyro, library = peers.WithPyro(), single.WithLibrary()
        tasks |= {"pyro_epoch": lambda: pyro.epoch(512), "single_epoch": lambda: library.epoch(512)}
        tasks |= {"evaluation_as_written": as_written}
    if jax:
        tasks["jax_epoch"] = lambda: (jax.ask(), jax.answer())
    return tasks


def compared(median: dict[str, float], to_record: float, full: float, floor: dict, step: dict) -> dict:
    """The ratios of the performance page; `floor` has the seconds of the products alone, of a run and of replicas."""
    ours = median["epoch"] + median["evaluation"] / 10 + to_record / EPOCHS
    ratios = {
        "speedup_vs_plain": (median["plain_epoch_64"] + median["plain_coverage"]) / ours,
        "speedup_equal_work": (median["plain_epoch_512"] + median["plain_coverage"] / 10) / ours,
        "repaired_over_document": median["repaired_epoch"] / median["epoch"],
    }
    if "pyro_epoch" in median:
        ratios["speedup_vs_pyro"] = median["pyro_epoch"] / median["single_epoch"]
        ratios["evaluation_over_written"] = median["evaluation"] / median["evaluation_as_written"]
        ratios["loaded_over_alone"] = median["epoch_loaded"] / median["epoch"]
    if "jax_epoch" in median:
        ratios["speedup_vs_jax"] = median["jax_epoch"] / median["epoch"]
    for threads, found in step.items():
        ratios[f"fused_over_recorded_{threads}"] = found["fused"] / found["recorded"]
    ratios |= {
        "full_run_over_floor": full / floor["full"],
        f"{floor['name']}_over_floor": median["replicas_epoch"] / floor["replicas"],
    }
    if floor["name"] == "replicas64":
        ratios["replicas64_over_one"] = median["replicas_epoch"] / median["epoch"]
    return ratios


def loaded(trainer: Trainer, state, clock: Clock, rounds: int) -> dict[str, float]:
    """Seconds of an epoch beside a process that keeps a core busy: ours, and recorded with all of torch's threads."""
    other = Trainer(trainer.config, trainer.device)
    other.take = recording.Tape(other.step, begun(trainer, state))
    with busy():
        median = clock.medians({"epoch_loaded": lambda: trainer.epoch(state)}, rounds)
        return median | {"recorded_epoch_loaded": clock(lambda: other.epoch(state))}


def measure(rounds: int, device: torch.device, jax: Process | None) -> dict:
    clock, trainer, count = Clock(device), Trainer(make_config(), device), REPLICAS[device.type]
    state = start(trainer.config, device)
    for _ in range(2):
        state = trainer.epoch(state)
    to_record = clock(lambda: trainer.hasten(state))
    state = evaluate(trainer, state | {"epoch": torch.zeros_like(state["epoch"])}) | {"epoch": state["epoch"]}
    rates: list[float] = []
    median = clock.medians(tasks_of(trainer, state, jax) | {"rates": lambda: rates.append(rate(clock))}, rounds)
    del median["rates"]
    speed, on_cpu = statistics.median(rates), device.type == "cpu"
    with replicas(count, device) as together:
        median |= clock.medians({"replicas_epoch": together}, rounds)
    if on_cpu:
        median |= loaded(trainer, state, clock, rounds)
    flop = floor_flop(trainer)
    final = median["judgement"] * trainer.config.final_samples / trainer.config.eval_samples
    full = to_record + EPOCHS * median["epoch"] + EVALUATIONS * median["evaluation"] + final
    floor = {"full": sum(flop.values()) / speed, "replicas": count * flop["training"] / EPOCHS / speed}
    step = steps(trainer, state, clock, rounds) if on_cpu else {}
    ratios = compared(median, to_record, full, floor | {"name": f"replicas{count}"}, step)
    found = {}
    if on_cpu:
        with alone():
            for name, pair in pieces(trainer, state).items():
                seconds = clock.medians({when: task for when, (task, _) in pair.items()}, rounds)
                found[name] = {when: seconds[when] / times for when, (_, times) in pair.items()}
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "jax": jax.ready["jax"] if jax else None,
        "rounds": rounds,
        "replicas": count,
        "median_seconds": median | {"full_run": full},
        "seconds_to_record": to_record,
        "gflop_per_second": speed / 1e9,
        "floor_gflop": {name: value / 1e9 for name, value in flop.items()},
        "ratios": ratios,
        "step": step,
        "pieces": found,
        "growth": grown(trainer, clock, rounds) if on_cpu else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=tuple(REPLICAS), default="cpu")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--jax", help="the Python of an environment that has JAX")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work([int(seed) for seed in arguments.work.split(",")])
        return 0
    jax = Process(arguments.jax, HERE / "peer_jax.py") if arguments.jax else None
    result = measure(arguments.rounds, torch.device(arguments.device), jax)
    if jax:
        jax.end()
    output = arguments.output or HERE / "results" / f"{arguments.device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(" ".join(f"{name}={value:.2f}" for name, value in result["ratios"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
