"""Speed, side by side in one process: the library against the plain loop, and against the matrix products alone.

usage: python benchmarks/bench.py [--rounds N] [--output FILE]

Every time is the median over rounds in which the candidates take turns, so that a machine that slows down slows
them all. An epoch of ours is an epoch of the default run: training, and a tenth of an evaluation (which comes every
ten epochs). The floor is the time that the matrix products of a full run would take at the rate measured in between.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from plain import coverage, train

from tvae_lib.config import make_config
from tvae_lib.runs import device_name, evaluate, start
from tvae_lib.training import Trainer, load

RESULTS = Path(__file__).resolve().parent / "results"
EPOCHS, EVALUATIONS = 400, 41


def seconds(task: Callable[[], object]) -> float:
    started = time.perf_counter()
    task()
    return time.perf_counter() - started


def rate(size: int = 2048) -> float:
    """FLOP/s of a square float32 matrix product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(5))


def products(module: torch.nn.Module) -> list[int]:
    """FLOP of each linear layer's matrix product, for one sample, forwards."""
    return [2 * m.in_features * m.out_features for m in module.modules() if isinstance(m, torch.nn.Linear)]


def floor_flop(trainer: Trainer) -> dict[str, float]:
    """FLOP of the matrix products of a full run: training forwards and backwards, evaluations, final evaluation.

    Backwards costs two products a layer, one for an encoder's first layer, whose input needs no gradient.
    """
    config, model = trainer.config, trainer.step.model
    sample = sum(3 * sum(products(m)) for m in (model.A, model.B)) - 2 * products(model.A.encoder)[0]
    steps = -(-len(trainer.data.training) // config.batch_size)
    judged = sum(sum(products(m.decoder)) + 2 * 2 * 3**5 * 3**4 for m in (model.A, model.B))
    return {
        "training": EPOCHS * steps * config.batch_size * sample,
        "evaluation": EVALUATIONS * config.eval_samples * judged,
        "final": config.final_samples * judged,
    }


def measure(rounds: int) -> dict:
    trainer = Trainer(make_config(device="cpu"), "cpu")
    state = start(trainer)
    for _ in range(2):
        state = trainer.epoch(state)
    state = evaluate(trainer, state | {"epoch": torch.zeros_like(state["epoch"])}) | {"epoch": state["epoch"]}
    model = load(trainer.step.model, state["theta"])
    tasks = {
        "epoch": lambda: trainer.epoch(state),
        "evaluation": lambda: evaluate(trainer, state),
        "plain_epoch_64": lambda: train(1, 64, 0),
        "plain_epoch_512": lambda: train(1, 512, 0),
        "plain_coverage": lambda: [coverage(m.decoder, 195_000) for m in (model.A, model.B)],
    }
    times: dict[str, list[float]] = {name: [] for name in tasks}
    rates = []
    for task in tasks.values():
        task()
    for _ in range(rounds):
        for name, task in tasks.items():
            times[name].append(seconds(task))
        rates.append(rate())
    median = {name: statistics.median(values) for name, values in times.items()}
    flop, speed = floor_flop(trainer), statistics.median(rates)
    ours = median["epoch"] + median["evaluation"] / 10
    final = median["evaluation"] * trainer.config.final_samples / trainer.config.eval_samples
    full = EPOCHS * median["epoch"] + EVALUATIONS * median["evaluation"] + final
    return {
        "device": device_name(trainer.device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "rounds": rounds,
        "median_seconds": median,
        "gflop_per_second": speed / 1e9,
        "floor_gflop": {name: value / 1e9 for name, value in flop.items()},
        "ratios": {
            "speedup_vs_plain": (median["plain_epoch_64"] + median["plain_coverage"]) / ours,
            "speedup_equal_work": (median["plain_epoch_512"] + median["plain_coverage"] / 10) / ours,
            "full_run_over_floor": full / (sum(flop.values()) / speed),
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "cpu.json")
    arguments = parser.parse_args()
    result = measure(arguments.rounds)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(" ".join(f"{name}={value:.2f}" for name, value in result["ratios"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
