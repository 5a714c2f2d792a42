"""The document's pair as it is, under other readings, without each mechanism, and set by hand, judged as it trains.

Chapters 3 to 7 and 9 read its tables: what a verdict is under each reading, and over the epochs."""

from collections.abc import Callable

import torch
from torch import Tensor

from studies.study import Case, Study, slug, train_cases
from tvae_lib.measures.generation import Draws
from tvae_lib.measures.pair import Effort, Pair, measured, share
from tvae_lib.measures.reconstruction import trit_accuracy
from tvae_lib.operations import all_operations
from tvae_lib.rng import stream
from tvae_lib.system.dual import DualVAE
from tvae_lib.system.schedules import CLOCK, PHASE_STARTS
from tvae_lib.training.config import Config, make_config
from tvae_lib.training.state import Prescription, State, history_row, initial_state, prescribe, trained

FIRST_READINGS = {  # R1, R2, R5, R6, and the base beside them: ten seeds
    "document": {},
    "soft histogram": {"histogram": "soft"},
    "τ floored": {"tau_floor": 0.05},
    "last ReLU": {"last_relu": True},
    "gate falls": {"gate": "falls"},
    "no gate": {"gate": "open"},
}
MORE_READINGS = {  # R7 to R12: five
    "A/B": {"balance_power": -1.0},
    "raw norms": {"raw_norms": True},
    "root of raw norms": {"raw_norms": True, "balance_power": 0.5},
    "constant α": {"ema_balanced": 0.9},
    "entropy of values": {"output_entropy": "values"},
    "entropy of operations": {"output_entropy": "operations"},
    "entropy of untempered codes": {"entropy_of": "untempered"},
    "repelled means": {"repelled": "means"},
    "StateNet at every step": {"statenet_acts": "step"},
}
WITHOUT = {  # five
    "no coupling": {"cross_injection": False},
    "StateNet off": {"statenet": "off"},
    "StateNet detached": {"statenet": "detached"},
    "StateNet hypergradient": {"statenet": "hypergradient"},
    "no balance": {"gradient_balance": False},
    "no output entropy": {"alpha_ent": 0.0},
    "no repulsion": {"alpha_rep": 0.0},
}
REMAINING = {  # three, on a CPU as the base
    "no alignment": {"alignment": False},
    "no phases": {"phases": False},
    "A alone": {"pathways": "A"},
    "B alone": {"pathways": "B"},
}
BY_HAND = {  # without StateNet: three
    "lr 0.0003": {"statenet": "off", "lr": 0.0003},
    "lr 0.003": {"statenet": "off", "lr": 0.003},
    "λ₁, λ₂ .5, λ₃ .75": {"statenet": "off", "lambda_1": 0.5, "lambda_2": 0.5, "lambda_3": 0.75},
    "λ₁, λ₂ .95, λ₃ .15": {"statenet": "off", "lambda_1": 0.95, "lambda_2": 0.95, "lambda_3": 0.15},
}
FIVE = range(5)  # seeds of the other variants

PHASE_4 = PHASE_STARTS[3]
CYCLE = range(PHASE_4 + 6, CLOCK + 1, 6)  # five times in each cycle of tau_A
LAST_CYCLE = tuple(CYCLE)[-5:]
STOPS = (5, 10, 15, 20, 30, 40, 60, 80, 120, 150, 200, 250, 280, 340, *LAST_CYCLE)
STOPS_OF_PHASES = (10, 20, 40, 80, 120, 160, 200, 225, PHASE_4, *CYCLE)
STOPS_OF_BASE = tuple(sorted({*STOPS, *STOPS_OF_PHASES}))
EFFORT = Effort(2**18, draws=195_000)
NUDGED = {"document": {}, "soft histogram": FIRST_READINGS["soft histogram"]}
STOPS_OF_NUDGES = (120, 150, 250, 340, 376, 388, 400)
EFFORT_OF_NUDGES = Effort(2**17, draws=195_000)
COLUMNS_OF_NUDGES = ("kl_uniform", "has", "exact", *(f"{reading}_195000" for reading in Draws._fields))
IS_READ = 2 / 3  # share of the operations whose trit comes back, from which it counts as read; guessing gives 1/3
OF_THE_PAIR = ("half_50000", "half_195000", "union_195000")
COLUMNS = (
    *("kl_uniform", "kl_uniform_error", "min_log_p", "rarest_log_p", "has", "exact", "exact_injected"),
    *("exact_of_partner", "information", "has_both", "exact_both", "cka", "joint"),
    *(f"{reading}_{n}" for reading in Draws._fields for n in (50_000, 195_000)),
    *(f"{reading}_{which}" for reading in Draws._fields for which in OF_THE_PAIR),
)
RECORDED = (
    *("rho", "tau_A", "tau_B", "beta_A", "beta_B", "gate", "lr", "lambda_1", "lambda_2", "lambda_3", "grad_ratio"),
    *("ce_A", "ce_B", "kl_A", "kl_B", "entropy_A", "entropy_B", "norm_A", "norm_B"),
)


Held = dict[int, dict[str, Tensor]]  # which operations each decoder holds, by epoch and pathway


def turnover(pair: Pair, held: Held, origin: int) -> dict[str, float]:
    """Shares of the operations found and lost since the last epoch in `held`, new and gone since `origin`."""
    row: dict[str, float] = {}
    for p, one in pair.each.items():
        for gained, gone, since in (("found", "lost", max(held, default=None)), ("new", "gone", origin)):
            before = held[since][p] if since in held else one.held
            row |= {f"{gained}_{p}": share(one.held & ~before), f"{gone}_{p}": share(before & ~one.held)}
    return row


def judged(
    name: str,
    cases: list[Case],
    stops,
    effort: Effort,
    changes: Callable[[Case], dict] = lambda case: {},
    prescription: Callable[[Case], Prescription] = lambda case: prescribe,
    origin: int = PHASE_4,
    columns=COLUMNS,
    pair: type[DualVAE] = DualVAE,
    **parameters,
) -> Study:
    """A study of the preset `document`, with the changes and the prescription of each case, judged at the stops.

    `origin` is the epoch with which the operations held at others are compared; `pair` the class of the two VAEs."""
    held: dict[str, Held] = {}

    def configure(case: Case) -> Config:
        return make_config(**changes(case), seed=case["seed"], device="cpu", **parameters)

    def measure(case: Case, config: Config, state: State) -> list[dict]:
        epoch, last = int(state["epoch"]), history_row(state)
        read = last | {"rho": config.mixed_at(last["rho"])}
        both = Pair(trained(state, config, pair), read, (config.seed, epoch, "variants"), effort)
        before = held.setdefault(slug(case), {})
        found = measured(both, columns) | turnover(both, before, origin)
        before[epoch] = {p: one.held for p, one in both.each.items()}
        return [{"epoch": epoch, **found, **{name: last[name] for name in RECORDED}}]

    def make(cases: list[Case], device: str):
        for given in dict.fromkeys(map(prescription, cases)):
            chosen = [case for case in cases if prescription(case) is given]
            yield from train_cases(chosen, device, configure, stops, measure, pair, given)

    keys = (*cases[0], "epoch")
    return Study(name, keys, {slug(case): [case] for case in cases}, make, lambda case: [{"epoch": e} for e in stops])


def base(seeds=range(10), stops=STOPS_OF_BASE, effort=EFFORT, **parameters) -> Study:
    """The preset `document` as it is: base.csv."""
    return judged("base", [{"seed": seed} for seed in seeds], stops, effort, **parameters)


def with_seeds(variants, seeds) -> list[Case]:
    return [{"variant": name, "seed": seed} for name in variants for seed in seeds]


def other_readings(
    first=FIRST_READINGS, more=MORE_READINGS, seeds=range(10), fewer=FIVE, stops=STOPS, effort=EFFORT, **given
):
    """One reading at a time, all others as in `document`: readings.csv."""
    cases = with_seeds(first, seeds) + with_seeds(more, fewer)
    return judged("readings", cases, stops, effort, lambda case: (first | more)[case["variant"]], **given)


def mechanisms(without=WITHOUT, by_hand=BY_HAND, seeds=FIVE, fewer=range(3), stops=STOPS, effort=EFFORT, **given):
    """Without each mechanism, and with StateNet's settings by hand: mechanisms.csv."""
    cases = with_seeds(without, seeds) + with_seeds(by_hand, fewer)
    return judged("mechanisms", cases, stops, effort, lambda case: (without | by_hand)[case["variant"]], **given)


def remaining(without=REMAINING, seeds=range(3), stops=STOPS, effort=EFFORT, **given) -> Study:
    """Without each of the mechanisms that `mechanisms` leaves in: remaining.csv."""
    return judged(
        "remaining", with_seeds(without, seeds), stops, effort, lambda case: without[case["variant"]], **given
    )


def nudges(
    readings=NUDGED, seeds=range(1), times=range(8), stops=STOPS_OF_NUDGES, effort=EFFORT_OF_NUDGES, **parameters
) -> Study:
    """The same seed many times over, its initial weights nudged: nudges.csv.

    A nudge moves each parameter by some 1e-7 of itself, as another order of additions would; nudge 0 is none."""

    def configure(case: Case) -> Config:
        return make_config(**readings[case["variant"]], seed=case["seed"], device="cpu", **parameters)

    def start(case: Case, config: Config, device: torch.device) -> State:
        state = initial_state(config, device)
        noise = torch.randn(state["theta"].shape, generator=stream(case["nudge"], 0, "nudge")).to(device)
        return state | {"theta": state["theta"] * (1 + (case["nudge"] > 0) * 1e-7 * noise)}

    def measure(case: Case, config: Config, state: State) -> list[dict]:
        epoch, last = int(state["epoch"]), history_row(state)
        model = trained(state, config)
        pair = Pair(model, last, (config.seed, epoch, f"nudges {case['nudge']}"), effort)
        accuracy = trit_accuracy(model, all_operations().float(), last["rho"])
        row = measured(pair, COLUMNS_OF_NUDGES)
        for p, shares in zip("AB", accuracy.tolist(), strict=True):
            row |= {f"read_{p}": sum(share > IS_READ for share in shares), f"least_read_{p}": min(shares)}
        return [{"epoch": epoch, **row, "rho": last["rho"]}]

    def make(cases: list[Case], device: str):
        return train_cases(cases, device, configure, stops, measure, start=start)

    cases = [{"variant": name, "seed": seed, "nudge": time} for name in readings for seed in seeds for time in times]
    keys = ("variant", "seed", "nudge", "epoch")
    parts = {slug(case): [case] for case in cases}
    return Study("nudges", keys, parts, make, lambda case: [{"epoch": epoch} for epoch in stops])
