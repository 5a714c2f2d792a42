"""The document's pair as it is, under other readings, without each mechanism, and set by hand, judged as it trains.

Chapters 3 to 7 and 9 read its tables: what a verdict is under each reading, and over the epochs."""

from studies.pairs import VARIANTS
from studies.phases import CYCLE, Held, turnover
from studies.phases import STOPS as STOPS_OF_PHASES
from studies.study import Case, Study, slug, train_cases
from tvae_lib.measures.generation import Draws
from tvae_lib.measures.pair import Effort, Pair, measured
from tvae_lib.system.schedules import PHASE_STARTS
from tvae_lib.training.config import Config, make_config
from tvae_lib.training.state import State, history_row, trained

FIRST_READINGS = {  # R1, R2, R5, R6: ten seeds
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
WITHOUT = {name: change for name, change in VARIANTS.items() if name not in ("document", "no alignment")}  # five
BY_HAND = {  # without StateNet: three
    "lr 0.0003": {"statenet": "off", "lr": 0.0003},
    "lr 0.003": {"statenet": "off", "lr": 0.003},
    "λ₁, λ₂ .5, λ₃ .75": {"statenet": "off", "lambda_1": 0.5, "lambda_2": 0.5, "lambda_3": 0.75},
    "λ₁, λ₂ .95, λ₃ .15": {"statenet": "off", "lambda_1": 0.95, "lambda_2": 0.95, "lambda_3": 0.15},
}
FIVE = range(5)  # seeds of the other variants

LAST_CYCLE = tuple(CYCLE)[-5:]  # five places of the last cycle of tau_A
STOPS = (5, 10, 15, 20, 30, 40, 60, 80, 120, 150, 200, 250, 280, 340, *LAST_CYCLE)
STOPS_OF_BASE = tuple(sorted({*STOPS, *STOPS_OF_PHASES}))
EFFORT = Effort(2**18, draws=195_000)
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


def judged(name: str, changes: dict[str, dict], cases: list[Case], stops, effort: Effort, **parameters) -> Study:
    """A study of the preset `document` with the changes of each case, judged at the stops."""
    held: dict[str, Held] = {}

    def configure(case: Case) -> Config:
        return make_config(**changes.get(str(case.get("variant")), {}), seed=case["seed"], device="cpu", **parameters)

    def measure(case: Case, config: Config, state: State) -> list[dict]:
        epoch, last = int(state["epoch"]), history_row(state)
        pair = Pair(trained(state, config), last, (config.seed, epoch, "variants"), effort)
        before = held.setdefault(slug(case), {})
        found = measured(pair, COLUMNS) | turnover(pair, before, PHASE_STARTS[3])
        before[epoch] = {p: one.held for p, one in pair.each.items()}
        return [{"epoch": epoch, **found, **{name: last[name] for name in RECORDED}}]

    def make(cases: list[Case], device: str):
        return train_cases(cases, device, configure, stops, measure)

    keys = (*cases[0], "epoch")
    return Study(name, keys, {slug(case): [case] for case in cases}, make, lambda case: [{"epoch": e} for e in stops])


def base(seeds=range(10), stops=STOPS_OF_BASE, effort=EFFORT, **parameters) -> Study:
    """The preset `document` as it is: base.csv."""
    return judged("base", {}, [{"seed": seed} for seed in seeds], stops, effort, **parameters)


def with_seeds(variants, seeds) -> list[Case]:
    return [{"variant": name, "seed": seed} for name in variants for seed in seeds]


def other_readings(
    first=FIRST_READINGS, more=MORE_READINGS, seeds=range(10), fewer=FIVE, stops=STOPS, effort=EFFORT, **given
):
    """One reading at a time, all others as in `document`: readings.csv."""
    cases = with_seeds(first, seeds) + with_seeds(more, fewer)
    return judged("readings", first | more, cases, stops, effort, **given)


def mechanisms(without=WITHOUT, by_hand=BY_HAND, seeds=FIVE, fewer=range(3), stops=STOPS, effort=EFFORT, **given):
    """Without each mechanism, and with StateNet's settings by hand: mechanisms.csv."""
    cases = with_seeds(without, seeds) + with_seeds(by_hand, fewer)
    return judged("mechanisms", without | by_hand, cases, stops, effort, **given)
