"""The parameters of a run: what each means, what it may be, and the presets.

`make_config` turns whatever a caller passed into a `Config`, or raises `ParameterError` with one sentence that names
the parameter, its value and what is allowed. It writes nothing."""

import ast
import difflib
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace

import torch

from tvae_lib.errors import FileError, ParameterError, shown
from tvae_lib.operations import HELD_OUT, SIZE
from tvae_lib.system.collisions import ALPHA_MEMORY
from tvae_lib.system.losses import ALPHAS, DISTANCES, ENTROPIES, OUTPUT_ENTROPIES, REPELLED, SIGMA_REP
from tvae_lib.system.schedules import BETA_RANGE, BETA_RATIO, GATES
from tvae_lib.system.statenet import ALPHA_LAMBDA, ALPHA_LR, LAMBDA_HIGH, LAMBDA_LOW, LR_RANGE, MODES
from tvae_lib.system.vae import LAST_RELU, LATENT
from tvae_lib.training.threads import allowed

SOURCE = Path(__file__).resolve().parents[2]
ROOT = SOURCE if (SOURCE / "pyproject.toml").exists() else Path()  # outside a checkout, wherever one works
REFERENCE = ROOT / "results" / "reference"
SHOW_REFERENCE = "TVAE_SHOW_REFERENCE"  # set by the tests: the full-run notebook shows the reference run
NO = ("", "0", "false", "no", "off")

# Two VAEs side by side under a rising beta, and nothing else.
BARE = {
    "phases": False,
    "cross_injection": False,
    "beta_start": 0.3,
    "beta_end": 0.98,
    "beta_ratio": 1.0,
    "lr_decay": "cosine",
    "alignment": False,
    "alpha_ent": 0.0,
    "alpha_rep": 0.0,
    "gradient_balance": False,
    "statenet": "off",
}
# The mechanisms of the documents, each in a form that does what its sentence says: notebooks/11_repaired.ipynb.
REPAIRED = BARE | {
    "cross_injection": True,
    "injection": "in turn",
    "rho": 0.5,
    "alignment": True,
    "histogram": "gaussian",
    "distance": "squared",
    "diversity": 1.0,
    "diversity_end": 16.0,
    "prior_samples": 128,
    "gradient_balance": True,
    "raw_norms": True,
    "balance_power": 0.5,
    "statenet": "rate",
    "hypergradient": "epoch",
    "statenet_lr": 0.01,
    "statenet_penalty": 2e-3,
    "averaging": 0.99,
}
PRESETS = {"document": {}, "bare": BARE, "repaired": REPAIRED}
INJECTIONS = ("mixed", "in turn")
SWITCH = (True, False)


def _parameter(default, kind, help, system=False, **rules):
    return field(default=default, metadata={"kind": kind, "help": help, "system": system, **rules})


def _number(default, low, high, help, kind=float, system=True):
    return _parameter(default, kind, help, system, low=low, high=high)


def _count(default, low, high, help):
    return _number(default, low, high, help, int, system=False)


def _choice(default, choices, help, system=True):
    return _parameter(default, type(default), help, system, choices=choices)


@dataclass(frozen=True)
class Config:
    """Every parameter of a run. The defaults are the preset `document`; `make_config` checks and fills them in."""

    preset: str = _choice(
        "document", tuple(PRESETS), "the equations as written, two VAEs alone, or the mended equations", False
    )
    epochs: int | None = _count(None, 1, 100_000, "how far to train, 1 ... total_epochs; None: all the way")
    total_epochs: int = _count(400, 1, 100_000, "the length of the schedules, in epochs")
    seed: int = _count(0, 0, 2**64 - 1, "seed of all random numbers, 0 ... 2^64 - 1")
    device: str = _parameter("auto", str, "auto (a GPU when there is one), cpu, cuda or cuda:N")
    threads: str | int = _parameter("auto", str, "of the CPU: auto (as many as pay), or a number from 1 to 256")
    batch_size: int = _count(512, 1, SIZE, "operations in a training step, 1 ... 19,683")
    holdout: float = _number(0.0, 0, 0.9, "fraction of operations kept out of training, 0 ... 0.9", system=False)
    holdout_by: str = _choice("operations", HELD_OUT, "kept out: single ones, or all with a pair of trit values", False)
    eval_every: int = _count(10, 1, 100_000, "epochs between evaluations (they do not change the model)")
    eval_samples: int = _count(262_144, 1024, 2**30, "prior samples behind p(x) during training")
    final_samples: int = _count(10_485_760, 1024, 2**34, "prior samples behind p(x) at the end")
    final_error: float = _number(
        5e-4, 0, 1, "at the end fewer do once KL(U||p) is known to so many nats; 0: never fewer", system=False
    )
    coverage_samples: tuple[int, ...] = _parameter(
        (10_000, 50_000, 195_000), tuple, "numbers of draws at which coverage is reported, comma separated"
    )
    checkpoint_every: int = _count(10, 1, 100_000, "epochs between checkpoints: what a killed run can lose")
    run_dir: str = _parameter("", str, "where the run is kept; empty: runs/<preset>-seed<seed>")
    resume: bool = _choice(
        True, SWITCH, "continue or show the run in run_dir; False: refuse one that is not empty", False
    )

    latent: int = _number(LATENT, 1, 256, "d, latent coordinates of each pathway", int)
    lr: float = _number(1e-3, *LR_RANGE, "learning rate of AdamW at the start")
    lr_decay: str = _choice("none", ("none", "cosine"), "a factor on lr over the run")
    weight_decay: float = _number(1e-4, 0, 1, "decoupled weight decay")
    averaging: float = _number(0.0, 0, 0.99999, "of the moving average of the weights that is judged and kept; 0: off")
    pathways: str = _choice("AB", ("AB", "A", "B"), "which train; one alone is not coupled")
    phases: bool = _choice(True, SWITCH, "four phases of rho and tau; False: rho and tau constant")
    last_relu: bool = _choice(LAST_RELU, SWITCH, "a ReLU after decoder B's last residual block")
    cross_injection: bool = _choice(True, SWITCH, "couple the pathways; False: rho stays 0")
    injection: str = _choice("mixed", INJECTIONS, "the partner's code: mixed into one's own, or read after it, in turn")
    temperatures: str = _choice("scheduled", ("scheduled", "constant"), "with phases: as scheduled, or tau")
    rho: float = _number(0.3, 0, 1, "permeability when phases is False")
    tau: float = _number(1.0, 0, 10, "sampling temperature of both where it is constant")
    tau_floor: float = _number(-1.0, -1, 10, "lowest scheduled temperature; -1: as the formula has it, also below zero")
    gate: str = _choice("holds", GATES, "rho in phase 3 after an epoch out of balance; open: no gate")
    beta_start: float = _number(BETA_RANGE[0], 0, 100, "KL weight of A at the start")
    beta_end: float = _number(BETA_RANGE[1], 0, 100, "KL weight of A at the end")
    beta_ratio: float = _number(BETA_RATIO, 0, 100, "KL weight of B over that of A")
    lambda_1: float = _number(0.7, LAMBDA_LOW[0], LAMBDA_HIGH[0], "weight of L_A at the start")
    lambda_2: float = _number(0.7, LAMBDA_LOW[1], LAMBDA_HIGH[1], "weight of L_B at the start")
    lambda_3: float = _number(0.3, LAMBDA_LOW[2], LAMBDA_HIGH[2], "weight of L_align at the start")
    alignment: bool = _choice(True, SWITCH, "the entropy alignment term")
    histogram: str = _choice("hard", tuple(ENTROPIES), "behind the entropies of the codes; a hard one has no gradient")
    distance: str = _choice("absolute", tuple(DISTANCES), "of the two entropies; squared: half its square")
    entropy_of: str = _choice("tempered", ("tempered", "untempered"), "codes in it: sampled with tau sigma, or sigma")
    alpha_ent: float = _number(0.05, 0, 100, "weight of the output entropy; 0: off")
    output_entropy: str = _choice("trits", tuple(OUTPUT_ENTROPIES), "of each trit, of all trits, of whole operations")
    alpha_rep: float = _number(0.01, 0, 100, "weight of the repulsion; 0: off")
    repelled: str = _choice("codes", tuple(REPELLED), "what repels: sampled codes of B, or its means")
    sigma_rep: float = _number(SIGMA_REP, 1e-3, 1e3, "width of the repulsion kernel")
    diversity: float = _number(0.0, 0, 1000, "weight of the collisions at the start; 0: off")
    diversity_end: float = _number(0.0, 0, 1000, "weight of the collisions at the end")
    prior_samples: int = _number(0, 0, 8192, "codes of the prior in a step, behind the collisions; 0: off", int)
    memory: float = _number(ALPHA_MEMORY, 0, 0.99999, "of the moving average of p(x) that collisions are with")
    gradient_balance: bool = _choice(True, SWITCH, "scale the losses by g_A and g_B")
    balance_power: float = _number(1.0, -1, 1, "of the ratio B/A in g_A; -1: A/B, 0.5: its root")
    raw_norms: bool = _choice(False, SWITCH, "norms of the gradients before lambda and g scale them")
    ema: float = _number(ALPHAS[0], 0, 1, "of the moving average of the norms while out of balance")
    ema_balanced: float = _number(ALPHAS[1], 0, 1, "of the moving average of the norms while balanced")
    statenet: str = _choice("backprop", MODES, "what trains StateNet, or off")
    statenet_acts: str = _choice("epoch", ("epoch", "step"), "when it corrects: once an epoch, or at every step")
    hypergradient: str = _choice("step", ("step", "epoch"), "of lr: along the last step, or all of the epoch before")
    alpha_lr: float = _number(ALPHA_LR, 0, 1, "size of StateNet's correction of lr")
    alpha_lambda: float = _number(ALPHA_LAMBDA, 0, 1, "size of StateNet's corrections of lambda")
    statenet_lr: float = _number(1e-3, 0, 1, "learning rate of StateNet's own AdamW")
    statenet_penalty: float = _number(1.0, 0, 1e6, "weight of ||corrections||^2 in StateNet's loss")

    @property
    def team(self) -> list[int]:
        """How many threads a training on the CPU may use: all of torch's, or fewer where they pay better."""
        most = allowed()
        return (
            sorted({*(2**i for i in range(most.bit_length())), most}) if self.threads == "auto" else [int(self.threads)]
        )

    def mixed_at(self, rho):
        """The permeability of the codes that a decoder reads, where rho is what the schedule has: 0 in turn."""
        return rho if self.injection == "mixed" else 0.0

    def partner_at(self, rho):
        """The permeability of what a decoder reads of its partner: rho, or 1 in turn, the partner's own code."""
        return rho if self.injection == "mixed" else 1.0

    @property
    def last_epoch(self) -> int:
        """How far to train."""
        return self.epochs or self.total_epochs


FIELDS = {f.name: f for f in fields(Config)}
# A run may be continued elsewhere and further; every other parameter is part of what the run is.
FREE = ("epochs", "device", "threads", "run_dir", "resume")
# These may be None: all the epochs, or the preset's value.
OPTIONAL = ("epochs", *(name for name, f in FIELDS.items() if f.metadata["system"]))


def _whole(text: str) -> int | None:
    """A short whole number written out; None where it is none."""
    text = text.strip()
    return int(text) if text.isdecimal() and len(text) < 12 else None


def _coverage(value) -> tuple[int, ...]:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    counts: list = [_whole(part) if isinstance(part, str) else part for part in parts]
    if counts and all(type(n) is int and 1 <= n <= 100_000_000 for n in counts):
        return tuple(sorted(set(counts)))
    raise ParameterError(
        f"coverage_samples is {shown(value)}; it must be whole numbers from 1 to 100,000,000 with commas between."
    )


def _threads(value) -> str | int:
    count = _whole(value) if isinstance(value, str) and value != "auto" else value
    if count == "auto" or (type(count) is int and 1 <= count <= 256):
        return count
    raise ParameterError(f"threads is {shown(value)}; it must be 'auto' or a whole number from 1 to 256.")


def _run_dir(value) -> str:
    """A path that the system can name; whether it can be used is seen when the run begins."""
    try:
        if type(value) is str and b"\0" not in os.fsencode(Path(value).expanduser()):
            return value
        allowed = "text (papermill's -r passes a number as text)"
    except (RuntimeError, ValueError):  # no such user; not to be encoded
        allowed = "a path that exists or can be made"
    raise ParameterError(f"run_dir is {shown(value)}; it must be {allowed}, without null characters.")


SPECIAL = {"coverage_samples": _coverage, "threads": _threads, "run_dir": _run_dir}


def _checked(name: str, value, **limits):
    """`value` as the type of parameter `name`, or the sentence that says why not; `limits` narrow its range."""
    if name in SPECIAL:
        return SPECIAL[name](value)
    rules = {**FIELDS[name].metadata, **limits}
    kind = rules["kind"]
    if "choices" in rules:
        if type(value) is kind and value in rules["choices"]:
            return value
        allowed = " or ".join(repr(choice) for choice in rules["choices"])
        if kind is str and type(value) is bool:
            allowed += " (in a YAML file put it in quotes)"
    elif kind is str:
        if type(value) is str:
            return value
        allowed = "text (papermill's -r passes a number as text)"
    else:
        number = type(value) is kind or (kind is float and type(value) is int)
        if number and rules["low"] <= value <= rules["high"]:
            return kind(value)
        low, high = (f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (rules["low"], rules["high"]))
        allowed = f"a {'whole ' if kind is int else ''}number from {low} to {high}"
        if kind is float and isinstance(value, str):
            allowed += " (in a YAML file 1e-2 is text: write 0.01)"
    raise ParameterError(f"{name} is {shown(value)}; it must be {allowed}.")


def _check_device(device: str) -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = ["auto", "cpu"] + (["cuda"] if count else []) + [f"cuda:{i}" for i in range(count)]
    if device not in known:
        raise ParameterError(f"device is {shown(device)}; on this machine it must be one of {', '.join(known)}.")


def _unknown(name: str, value) -> ParameterError:
    near = difflib.get_close_matches(name, FIELDS, 1, 0.7)
    told = f"perhaps {near[0]} is meant" if near else f"allowed are {', '.join(FIELDS)}"
    name = name if name.isidentifier() else shown(name)
    return ParameterError(f"{name} is {shown(value)}, but no such parameter exists; {told}.")


def make_config(**given) -> Config:
    """Check every parameter and fill in the preset's values where one is missing or None.

    Raises ParameterError, one sentence, for an unknown name or a value that is not allowed."""
    for name, value in given.items():
        if name not in FIELDS:
            raise _unknown(name, value)
    given = {name: value for name, value in given.items() if value is not None or name not in OPTIONAL}
    preset = _checked("preset", given.get("preset", "document"))
    values = {"preset": preset, **PRESETS[preset]} | {
        name: _checked(name, value) for name, value in given.items() if name != "epochs"
    }
    if "epochs" in given:
        total = values.get("total_epochs", Config.total_epochs)
        values["epochs"] = _checked("epochs", given["epochs"], high=total)
    config = Config(**values)
    _check_device(config.device)
    return config


def _is_plain(value: ast.AST | None) -> bool:
    """Whether an expression is a value written out, as papermill writes parameters: float('nan') too."""
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "float" and all(map(_is_plain, value.args))
    plain = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.UnaryOp, ast.unaryop, ast.expr_context)
    return value is not None and all(isinstance(node, plain) for node in ast.walk(value))


def _plain_assignments(cell: str) -> list[str]:
    """The names that a cell assigns where it does nothing but assign plain values; else none."""
    names: list[str] = []
    try:
        statements = ast.parse(cell).body
    except (SyntaxError, ValueError, TypeError, RecursionError):
        return []
    for statement in statements:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or not _is_plain(statement.value):
            return []
        for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
            if not isinstance(target, ast.Name):
                return []
            names.append(target.id)
    return names


def _typed(namespace: dict) -> list[str]:
    """The names in a notebook that somebody meant for parameters: of the cells of plain values just above this one.

    Outside a notebook, all plain values. What a page or papermill's --inject-paths defines is not among them."""
    cells = namespace.get("In")
    names: list[str] = []
    if isinstance(cells, list) and len(cells) > 1:
        for cell in reversed(cells[:-1]):  # the last one is the one that asks
            if not (found := _plain_assignments(cell)):
                break
            names += found
    else:
        hidden = getattr(namespace.get("get_ipython", lambda: SimpleNamespace())(), "user_ns_hidden", {})
        plain = (bool, int, float, str, list, tuple, dict, type(None))
        names = [name for name, value in namespace.items() if name not in hidden and isinstance(value, plain)]
    return [name for name in names if not name.startswith(("_", "PAPERMILL_")) and name not in ("In", "Out")]


def from_namespace(namespace: dict) -> Config:
    """The configuration in a notebook's global names; a name that is no parameter, in the cells just above, is refused.

    With the environment variable TVAE_SHOW_REFERENCE set to anything but 0, the run is the reference run."""
    given = {name: namespace[name] for name in [*FIELDS, *_typed(namespace)] if name in namespace}
    if os.environ.get(SHOW_REFERENCE, "").strip().lower() not in NO:
        if not (REFERENCE / "metrics.json").exists():
            raise FileError(f"{SHOW_REFERENCE} is set, but there is no finished run in {shown(str(REFERENCE))}.")
        given["run_dir"] = str(REFERENCE)
    return make_config(**given)


def identity(config: Config) -> dict:
    """The parameters that make the run what it is, as JSON values: all but where, on what and how far.

    What is held out by is no part of it where nothing is."""
    idle = () if config.holdout else ("holdout_by",)
    return {
        name: list(value) if isinstance(value := getattr(config, name), tuple) else value
        for name in FIELDS
        if name not in FREE and name not in idle
    }
