"""The document's schedules over ten seeds, and what becomes of it under others: chapter 7."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

from torch import Tensor

from studies.choices import FIRST_EDITION
from studies.pairs import renamed
from studies.study import Case, Study, on_cpu, train_together
from tvae_lib.measures.pair import Effort, Pair, measured, share
from tvae_lib.system import schedules
from tvae_lib.system.schedules import CLOCK, PHASE_STARTS, temperature_base
from tvae_lib.training.config import Config, make_config
from tvae_lib.training.state import Controls, Prescription, State, history_row, prescribe, trained

PHASE_4 = PHASE_STARTS[3]
CYCLE = range(PHASE_4 + 6, CLOCK + 1, 6)  # five times in each cycle of tau_A
STOPS = (10, 20, 40, 80, 120, 160, 200, 225, PHASE_4, *CYCLE)  # epochs at which both decoders are judged
FEWER = range(5)  # seeds of the schedules that are not the document's
EFFORT = Effort(2**17, information=1024)
COLUMNS = (
    *("kl_uniform", "kl_uniform_error", "coverage_50000", "coverage_195000", "min_log_p", "rarest_log_p", "has"),
    *("exact", "information", "joint", "cka", "has_both", "exact_of_partner"),
)
NAMES = {"kl_uniform_error": "kl_error", "exact": "knows", "exact_of_partner": "reads"}  # in the table
RECORDED = ("rho", "tau_A", "tau_B", "beta_A", "beta_B", "gate", "ce_A", "ce_B", "kl_A", "kl_B")


def ramp(t: float, start: float, end: float) -> float:
    """Where t stands between two times, in [0, 1]."""
    return min(max((t - start) / (end - start), 0.0), 1.0)


def straight_permeability(t: float) -> float:
    """rho as the phases name it, without gate or jump: 0.1, to 0.3 in phase 2, to 0.7 in phase 3, 0.7.
    Equation: eq-straight-rho. Source: ours."""
    return 0.1 + 0.2 * ramp(t, *PHASE_STARTS[1:3]) + 0.4 * ramp(t, *PHASE_STARTS[2:])


def boosted_temperature_A(t: float) -> float:
    """tau_A with an amplitude that grows from 0.1 to 0.5 of its base in phase 4: continuous, at least 0.15.
    Equation: eq-boosted-tau-a. Source: ours."""
    base = temperature_base(t)
    amplitude = (0.1 + 0.4 * ramp(t, PHASE_STARTS[3], CLOCK)) * base
    return base + amplitude * math.cos(2 * math.pi * t / 30 + math.pi / 2)


def boosted_temperature_B(t: float) -> float:
    """tau_B from 0.9 to 0.2 before phase 4, from 0.2 to 0.3 in it.
    Equation: eq-boosted-tau-b. Source: ours."""
    return 0.9 - 0.7 * ramp(t, 30, PHASE_STARTS[3]) + 0.1 * ramp(t, PHASE_STARTS[3], CLOCK)


def cycle(t: float, lag: float, depth: float = 0.3) -> float:
    """A factor on a KL weight that swings by `depth` around 1 with period 30, `lag` radians behind.

    Of two such factors the greater is never below 1 - depth cos(lag / 2), lag their difference.
    Equation: eq-cycle. Source: ours."""
    return 1 - depth * math.cos(2 * math.pi * t / 30 - lag)


def without_boost(config: Config, epoch: int) -> Controls[float]:
    """The document's schedules, with the temperatures going on in phase 4 as before it."""
    taus = (formula(epoch, math.inf) for formula in (schedules.temperature_A, schedules.temperature_B))
    return prescribe(config, epoch)._replace(**dict(zip(("tau_A", "tau_B"), taus, strict=True)))


def released(config: Config, epoch: int, at: int = PHASE_4) -> Controls[float]:
    """The document's schedules, with the coupling taken away in phase 4."""
    given = prescribe(config, epoch)
    return given._replace(phased=False, rho=0.0) if epoch >= at else given


def repaired(config: Config, epoch: int) -> Controls[float]:
    """Schedules that do what the document says of its own: see chapter 7."""
    return prescribe(config, epoch)._replace(
        phased=False,
        rho=straight_permeability(epoch),
        tau_A=boosted_temperature_A(epoch),
        tau_B=boosted_temperature_B(epoch),
        beta_A=schedules.beta_A(epoch) * cycle(epoch, 0.0),
        beta_B=schedules.beta_B(epoch) * cycle(epoch, math.pi),
    )


SCHEDULES: dict[str, Prescription] = {
    "document": prescribe,
    "without boost": without_boost,
    "released": released,
    "repaired": repaired,
}
BRANCHES = ("without boost", "released")  # of the document's training, at the start of phase 4
Held = dict[int, dict[str, Tensor]]  # which operations each decoder holds, by epoch and pathway


def turnover(pair: Pair, held: Held, origin: int) -> dict[str, float]:
    """Shares of the operations found and lost since the last epoch in `held`, new and gone since `origin`."""
    row: dict[str, float] = {}
    for p, one in pair.each.items():
        for gained, gone, since in (("found", "lost", max(held, default=None)), ("new", "gone", origin)):
            before = held[since][p] if since in held else one.held
            row |= {f"{gained}_{p}": share(one.held & ~before), f"{gone}_{p}": share(before & ~one.held)}
    return row


def phases(seeds=range(10), fewer=FEWER, stops=STOPS, branch_at=PHASE_4, effort=EFFORT, **parameters) -> Study:
    """The preset `document` under its own schedules and others, both decoders judged as they train: phases.csv."""
    prescriptions = SCHEDULES | {"released": partial(released, at=branch_at)}

    def follow(schedule: str, seed: int, device: str, stops: Sequence[int], held: Held, start: Sequence[State] = ()):
        """Train under a schedule; yields state and row at every stop, and adds to `held`."""
        config = make_config(**FIRST_EDITION, seed=seed, device="cpu", **parameters)
        for _, state in train_together([config], device, stops, prescribe=prescriptions[schedule], start=start):
            epoch, last = int(state["epoch"]), history_row(state)
            pair = Pair(trained(on_cpu(state), config), last, (seed, epoch, "phases"), effort)
            row = renamed(measured(pair, COLUMNS), NAMES) | turnover(pair, held, branch_at)
            held[epoch] = {p: one.held for p, one in pair.each.items()}
            recorded = {name: last[name] for name in RECORDED}
            yield state, {"schedule": schedule, "seed": seed, "epoch": epoch, **row, **recorded}

    def make(cases: list[Case], device: str) -> Iterator[list[dict]]:
        for seed in sorted({case["seed"] for case in cases}):
            wanted = [case["schedule"] for case in cases if case["seed"] == seed]
            branching = [name for name in BRANCHES if name in wanted]
            held: Held = {}
            rows: list[dict] = []
            start: tuple[State, ...] = ()
            if branching or "document" in wanted:
                until = [stop for stop in stops if "document" in wanted or stop <= branch_at]
                for state, row in follow("document", seed, device, until, held):
                    rows.append(row)
                    start = (state,) if row["epoch"] == branch_at else start
                yield rows
            for name in wanted:
                if name in BRANCHES:
                    later = [stop for stop in stops if stop > branch_at]
                    yield [row for _, row in follow(name, seed, device, later, {branch_at: held[branch_at]}, start)]
                elif name != "document":
                    yield [row for _, row in follow(name, seed, device, stops, {})]

    parts = {
        f"seed{seed}": [{"schedule": name, "seed": seed} for name in SCHEDULES if name == "document" or seed in fewer]
        for seed in seeds
    }
    stops_of = {name: [stop for stop in stops if name not in BRANCHES or stop > branch_at] for name in SCHEDULES}
    each = lambda case: [{"epoch": stop} for stop in stops_of[case["schedule"]]]  # noqa: E731
    return Study("phases", ("schedule", "seed", "epoch"), parts, make, each)
