"""The preset `document`, its variants and StateNet set by hand, judged as they train: chapters 3 to 6."""

from studies.choices import FIRST_EDITION
from studies.study import Case, Study, slug, train_cases
from tvae_lib.measures.pair import Effort, Pair, measured
from tvae_lib.training.config import Config, make_config
from tvae_lib.training.state import State, history_row, trained

VARIANTS = {
    "document": {},
    "no alignment": {"alignment": False},
    "no coupling": {"cross_injection": False},
    "StateNet off": {"statenet": "off"},
    "StateNet detached": {"statenet": "detached"},
    "StateNet hypergradient": {"statenet": "hypergradient"},
    "no balance": {"gradient_balance": False},
    "no output entropy": {"alpha_ent": 0.0},
    "no repulsion": {"alpha_rep": 0.0},
}
BY_HAND = {  # without StateNet
    "lr 0.0003": {"lr": 0.0003},
    "lr 0.003": {"lr": 0.003},
    "λ₁, λ₂ .5, λ₃ .75": {"lambda_1": 0.5, "lambda_2": 0.5, "lambda_3": 0.75},
    "λ₁, λ₂ .95, λ₃ .15": {"lambda_1": 0.95, "lambda_2": 0.95, "lambda_3": 0.15},
}
STOPS = (5, 10, 15, 20, 30, 40, 60, 80, 120, 150, 200, 250, 300, 350, 400)  # epochs at which the pairs are judged
EFFORT = Effort(2**18)
COLUMNS = ("kl_uniform", "coverage_50000", "has", "exact", "exact_injected", "has_both", "exact_both", "cka")
NAMES = {"exact": "knows", "exact_injected": "coupled", "exact_both": "knows_both"}  # in the table
RECORDED = (
    *("rho", "lr", "lambda_1", "lambda_2", "lambda_3", "grad_ratio", "ce_A", "ce_B", "kl_A", "kl_B"),
    *("entropy_A", "entropy_B"),
)


def renamed(row: dict, names: dict[str, str]) -> dict:
    """The row with other names for some columns, also before _A and _B."""
    ends = {f"{old}{end}": f"{new}{end}" for old, new in names.items() for end in ("", "_A", "_B")}
    return {ends.get(column, column): value for column, value in row.items()}


def pairs(variants=VARIANTS, by_hand=BY_HAND, seeds=5, fewer=2, stops=STOPS, effort=EFFORT, **parameters) -> Study:
    """Each variant with `seeds` seeds, each setting by hand with `fewer`: pairs.csv."""
    changes = variants | {name: {"statenet": "off", **change} for name, change in by_hand.items()}

    def configure(case: Case) -> Config:
        return make_config(**FIRST_EDITION | changes[case["variant"]], seed=case["seed"], device="cpu", **parameters)

    def measure(case: Case, config: Config, state: State) -> list[dict]:
        epoch, last = int(state["epoch"]), history_row(state)
        pair = Pair(trained(state, config), last, (config.seed, epoch, "pair"), effort)
        found = renamed(measured(pair, COLUMNS), NAMES)
        return [{"epoch": epoch, **found, **{name: last[name] for name in RECORDED}}]

    def make(cases: list[Case], device: str):
        return train_cases(cases, device, configure, stops, measure)

    cases = [{"variant": name, "seed": s} for name in changes for s in range(fewer if name in by_hand else seeds)]
    keys = ("variant", "seed", "epoch")
    return Study("pairs", keys, {slug(c): [c] for c in cases}, make, lambda case: [{"epoch": stop} for stop in stops])
