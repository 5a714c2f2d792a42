"""Speed, side by side in one process: the library, a plain loop, Pyro, and the matrix products alone.

usage: python benchmarks/bench.py [--rounds N] [--device cpu|cuda] [--output FILE]

Times are medians over rounds in which the candidates take turns, so that a machine that slows down slows them all. An
epoch of ours is an epoch of a full run: 39 recorded steps at batch 512, and a tenth of an evaluation (which comes every
ten epochs). Recording, and compiling the ensemble's step, are spread over the 400 epochs of a run. The floor is the
time that the matrix products would take at the rate measured in the same rounds."""

import argparse
import json
import math
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()  # before torch reads it: compiling always starts afresh

import plain
import torch
from torch import nn

from studies.study import CPU_REPLICAS, can_compile
from tvae_lib.coverage import measured_coverage
from tvae_lib.measures.generation import SECOND_EVERY, joint_factors, likeliest
from tvae_lib.operations import all_operations, index_of
from tvae_lib.rng import stream
from tvae_lib.runs.evaluate import evaluate, judge, start
from tvae_lib.runs.execute import device_name
from tvae_lib.system.losses import repulsion, soft_entropy
from tvae_lib.training import recording
from tvae_lib.training.config import make_config
from tvae_lib.training.ensemble import Ensemble
from tvae_lib.training.state import flatten, initial_state, load
from tvae_lib.training.trainer import STEPPED, Trainer, adamw_update

RESULTS = Path(__file__).resolve().parent / "results"
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


def ensemble_of(count: int, device: torch.device):
    """A task that trains an epoch of `count` replicas, in ensembles of the size for the device; seconds to record."""
    configs = [make_config(seed=seed) for seed in range(count)]
    size = CPU_REPLICAS if device.type == "cpu" else count
    groups = [Ensemble(configs[i : i + size], device) for i in range(0, count, size)]
    groups[0].compiles = device.type == "cpu" and can_compile()
    states = [group.stack([initial_state(m.config, device) for m in group.members]) for group in groups]
    seconds = Clock(device)(lambda: (groups[0].hasten(states[0], EPOCHS), groups[0].epoch(states[0])))
    for group in groups:
        group.take = groups[0].take
    return lambda: [group.epoch(state) for group, state in zip(groups, states, strict=True)], seconds


def repeat(task: Callable[[], object], count: int = STEPS) -> tuple[Callable[[], object], int]:
    """The task several times over, for what is too short to time once; and how many times."""
    return lambda: [task() for _ in range(count)], count


def differentiate(function: Callable, inputs: torch.Tensor) -> torch.Tensor:
    inputs = inputs.detach().requires_grad_()
    return torch.autograd.grad(function(inputs), inputs)[0]


def pieces(trainer: Trainer, state) -> dict[str, dict]:
    """What was changed, each as it is usually written and as it is here."""
    config, model = trainer.config, load(trainer.step.model, state["theta"])
    z = torch.randn(config.batch_size, config.latent)
    logits, large = torch.randn(config.batch_size, 9, 3), torch.randn(4096, 9, 3)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    theta = flatten(model)
    gradient, moments = torch.randn_like(theta), (torch.rand_like(theta), torch.rand_like(theta))
    count, half = torch.tensor(5.0), trainer.step.size_A
    rows = all_operations()[torch.randint(3**9, (195_000,))]
    begun, _, controls, _ = trainer.begin(state, trainer.prescribed(2), 2)
    stepped, batch = {name: begun[name] for name in STEPPED}, next(trainer.batches(2))
    by_rows = lambda x: torch.log_softmax(x, -1).sum()  # noqa: E731
    batch_last = lambda x: torch.log_softmax(x.movedim(0, -1), -2).sum()  # noqa: E731
    by_formula = lambda: theta - 1e-3 * adamw_update(theta, gradient, *moments, count, config.weight_decay)[0]  # noqa: E731
    pairs = {  # before, after
        "softmax": (lambda: differentiate(by_rows, logits), lambda: differentiate(batch_last, logits)),
        "entropy": (lambda: differentiate(plain.entropy, z), lambda: differentiate(soft_entropy, z)),
        "repulsion": (lambda: differentiate(plain.repulsion, z), lambda: differentiate(repulsion, z)),
        "optimiser": (optimiser.step, by_formula),
        "norms": (
            lambda: [plain.norm_of_gradients(m) for m in (model.A, model.B)],
            lambda: torch.stack([gradient[:half].norm(), gradient[half:].norm()]),
        ),
        "step": (lambda: trainer.step(stepped, *batch, controls), lambda: trainer.take(stepped, *batch, controls)),
        "coverage": (
            lambda: len({tuple(row) for row in rows.tolist()}),
            lambda: measured_coverage(index_of(rows), (10_000, 50_000, 195_000)),
        ),
        "argmax": (lambda: large.argmax(-1), lambda: likeliest(large.movedim(0, -1).contiguous())),
    }
    once = ("coverage",)
    return {
        name: {
            when: repeat(task, 1 if name in once else STEPS)
            for when, task in zip(("before", "after"), pair, strict=True)
        }
        for name, pair in pairs.items()
    }


def steps_of(trainer: Trainer, state, compiled: bool):
    """A task of several steps of one run, from a tape of its own."""
    epoch = int(state["epoch"])
    begun, _, controls, _ = trainer.begin(state, trainer.prescribed(epoch), epoch)
    example = ({name: begun[name] for name in STEPPED}, *next(trainer.batches(epoch)), controls)
    take = recording.record(trainer.step, example, compiled)
    take(*example)
    return lambda: [take(*example) for _ in range(STEPS)]


def compiling(trainer: Trainer, state, clock: Clock, rounds: int) -> dict[str, float] | None:
    """Seconds to compile the step of one run, and of that step, compiled and not; None where there is no compiler."""
    if not can_compile():
        return None
    steps = {"recorded": steps_of(trainer, state, False)}
    seconds = clock(lambda: steps.update(compiled=steps_of(trainer, state, True)))
    return {"seconds": seconds, **{name: s / STEPS for name, s in clock.medians(steps, rounds).items()}}


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """The slope of log seconds over log size, least squares."""
    x, y = ([math.log(v) for v in values] for values in (sizes, seconds))
    return statistics.linear_regression(x, y).slope


def grown(trainer: Trainer, clock: Clock, rounds: int) -> dict[str, dict]:
    """Seconds against size: a step by batch and by latent width, an epoch by replicas, p-hat by number of trits."""

    def step_of(**parameters):
        other = Trainer(make_config(**parameters), trainer.device)
        return steps_of(other, initial_state(other.config, other.device), False)

    def replicas_of(count):
        many = Ensemble([make_config(seed=seed, holdout=0.9) for seed in range(count)], trainer.device)
        state = many.stack([initial_state(m.config, many.device) for m in many.members])
        return lambda: many.epoch(state)

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
        "replicas": {r: replicas_of(r) for r in (1, 2, 4, 8)},
        "operations": {3**n: p_hat_of(n) for n in range(5, 12)},
    }
    result = {}
    for name, tasks in series.items():
        median = clock.medians(tasks, rounds)
        repeated = 1 if name == "replicas" else STEPS
        sizes, seconds = list(median), [value / repeated for value in median.values()]
        exponents = {
            "exponent": exponent(sizes, seconds),
            "exponent_of_the_largest": exponent(sizes[-3:], seconds[-3:]),
        }
        result[name] = {"sizes": sizes, "seconds": seconds, **exponents}
    return result


def tasks_of(trainer: Trainer, state) -> dict[str, Callable[[], object]]:
    """What is timed in turns: an epoch and an evaluation, ours and plain, and a VAE alone, by Pyro and ours."""
    device, model = trainer.device, load(trainer.step.model, state["theta"])
    tasks: dict[str, Callable[[], object]] = {
        "epoch": lambda: trainer.epoch(state),
        "evaluation": lambda: evaluate(trainer, state),
        "plain_epoch_64": lambda: plain.train(1, 64, 0, device=device),
        "plain_epoch_512": lambda: plain.train(1, 512, 0, device=device),
        "plain_coverage": lambda: [plain.coverage(m.decoder, 195_000) for m in (model.A, model.B)],
    }
    if device.type == "cuda":
        judged = [(m.decoder, stream(0, 0, name, device)) for m, name in ((model.A, "A"), (model.B, "B"))]
        size, counts = trainer.config.eval_samples, trainer.config.coverage_samples
        tasks["judgement"] = lambda: [judge(d, trainer.config.latent, size, counts, g) for d, g in judged]
    if device.type == "cpu":
        import single

        pyro, library = single.WithPyro(), single.WithLibrary()
        tasks |= {"pyro_epoch": lambda: pyro.epoch(512), "single_epoch": lambda: library.epoch(512)}
    return tasks


def compared(median: dict[str, float], to_record: float, compiling_all: float, full: float, floor: dict) -> dict:
    """The ratios of the performance page; `floor` has the seconds of the products alone, of a run and of replicas."""
    ours = median["epoch"] + median["evaluation"] / 10 + to_record / EPOCHS
    ratios = {
        "speedup_vs_plain": (median["plain_epoch_64"] + median["plain_coverage"]) / ours,
        "speedup_equal_work": (median["plain_epoch_512"] + median["plain_coverage"] / 10) / ours,
    }
    if "pyro_epoch" in median:
        ratios["speedup_vs_pyro"] = median["pyro_epoch"] / median["single_epoch"]
    together = median["replicas_epoch"] + compiling_all / EPOCHS
    ratios |= {"full_run_over_floor": full / floor["full"], f"{floor['name']}_over_floor": together / floor["replicas"]}
    if "judgement" in median:
        ratios[f"{floor['name']}_over_one"] = median["replicas_epoch"] / median["epoch"]
    return ratios


def measure(rounds: int, device: torch.device) -> dict:
    clock, trainer, count = Clock(device), Trainer(make_config(), device), REPLICAS[device.type]
    state = start(trainer)
    for _ in range(2):
        state = trainer.epoch(state)
    to_record = clock(lambda: trainer.hasten(state, EPOCHS))
    state = evaluate(trainer, state | {"epoch": torch.zeros_like(state["epoch"])}) | {"epoch": state["epoch"]}
    rates: list[float] = []
    median = clock.medians(tasks_of(trainer, state) | {"rates": lambda: rates.append(rate(clock))}, rounds)
    del median["rates"]
    speed = statistics.median(rates)
    together, compiling_all = ensemble_of(count, device)  # last: a compiler leaves the process heavier
    median |= clock.medians({"replicas_epoch": together}, rounds)
    flop = floor_flop(trainer)
    final = median["evaluation"] * trainer.config.final_samples / trainer.config.eval_samples
    full = to_record + EPOCHS * median["epoch"] + EVALUATIONS * median["evaluation"] + final
    floor = {"full": sum(flop.values()) / speed, "replicas": count * flop["training"] / EPOCHS / speed}
    ratios = compared(median, to_record, compiling_all, full, floor | {"name": f"replicas{count}"})
    if "judgement" in median:
        median["full_run_judged_every_epoch"] = EPOCHS * (median["epoch"] + median["judgement"])
    with device:
        pairs, found = pieces(trainer, state), {}
    for name, pair in pairs.items():
        seconds = clock.medians({when: task for when, (task, _) in pair.items()}, rounds)
        found[name] = {when: seconds[when] / times for when, (_, times) in pair.items()}
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "rounds": rounds,
        "replicas": count,
        "median_seconds": median | {"full_run": full},
        "seconds_to_record": to_record,
        "compiling_one_run": compiling(trainer, state, clock, rounds) if device.type == "cpu" else None,
        "seconds_to_record_and_compile_the_ensemble": compiling_all,
        "gflop_per_second": speed / 1e9,
        "floor_gflop": {name: value / 1e9 for name, value in flop.items()},
        "ratios": ratios,
        "pieces": found,
        "growth": grown(trainer, clock, rounds) if device.type == "cpu" else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=tuple(REPLICAS), default="cpu")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    result = measure(arguments.rounds, torch.device(arguments.device))
    output = arguments.output or RESULTS / f"{arguments.device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")
    shutil.rmtree(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    print(" ".join(f"{name}={value:.2f}" for name, value in result["ratios"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
