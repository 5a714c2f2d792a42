"""The state of a training, one flat dictionary of tensors, and what a configuration prescribes in each epoch.

Saved as it is, the state is the checkpoint. It holds all numbers of a run; the modules hold none."""

import copy
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.func import functional_call

from tvae_lib.rng import stream
from tvae_lib.system import losses, schedules, statenet
from tvae_lib.system.collisions import uniform_memory
from tvae_lib.system.dual import DualVAE
from tvae_lib.system.fusible import fusible
from tvae_lib.training.config import Config

State = dict[str, Tensor]

# Columns of history.csv, described in book/howto.md; those of RECORD are averages over the steps of an epoch.
RECORD = (
    *("loss", "loss_A", "loss_B", "slope_1", "slope_2", *losses.TERMS, "entropy_A", "entropy_B"),
    *("g_A", "g_B", "norm_A", "norm_B", "hypergradient"),
)
HISTORY = (
    *("epoch", "phase", "rho", "tau_A", "tau_B", "beta_A", "beta_B", "diversity", "lr"),
    *("lambda_1", "lambda_2", "lambda_3"),
    *(*statenet.CORRECTIONS, *RECORD, "grad_ratio", "gate"),
)

Value = TypeVar("Value")  # a number, or a scalar tensor on the device
Module = TypeVar("Module", bound=torch.nn.Module)


class Controls(NamedTuple, Generic[Value]):
    """What a configuration prescribes in an epoch. Runs that differ in nothing else share their steps."""

    rho: Value
    tau_A: Value
    tau_B: Value
    beta_A: Value
    beta_B: Value
    lr_factor: Value
    diversity: Value
    alignment: Value  # 1 or 0
    balance: Value  # 1 or 0
    train_A: Value  # 1 or 0
    train_B: Value  # 1 or 0
    phased: Value  # 1: rho follows the phases
    gated: Value  # 1: in phase 3 only after a balanced epoch
    falls: Value  # 1: and back to its start after another
    raw_norms: Value  # 1 or 0
    statenet: Value  # 1 or 0
    weight_path: Value  # 1: StateNet's gradient goes through lambda
    lr_path: Value  # 1: StateNet's gradient goes through lr
    balance_power: Value
    ema: Value
    ema_balanced: Value
    alpha_ent: Value
    alpha_rep: Value
    sigma_rep: Value
    memory: Value
    alpha_lr: Value
    alpha_lambda: Value
    statenet_lr: Value
    statenet_penalty: Value


Prescribed = Controls[Tensor]  # on the device
CONSTANT = Controls._fields[Controls._fields.index("balance_power") :]  # the same in every epoch


def prescribe(config: Config, epoch: int) -> Controls[float]:
    """What a configuration prescribes in an epoch, as plain numbers; `rho` is the one that holds without phases."""
    t = schedules.clock(epoch, config.total_epochs)
    both = config.pathways == "AB"
    coupled = both and config.cross_injection
    taus = (config.tau, config.tau)
    if config.phases and config.temperatures == "scheduled":
        taus = (max(schedules.temperature_A(t), config.tau_floor), max(schedules.temperature_B(t), config.tau_floor))
    beta = (config.beta_start, config.beta_end)
    return Controls(
        rho=config.rho * (coupled and not config.phases),
        tau_A=taus[0],
        tau_B=taus[1],
        beta_A=schedules.beta_A(t, *beta),
        beta_B=schedules.beta_B(t, *beta, config.beta_ratio),
        lr_factor=schedules.cosine_factor(t) if config.lr_decay == "cosine" else 1.0,
        diversity=schedules.diversity(t, config.diversity, config.diversity_end),
        alignment=both and config.alignment,
        balance=both and config.gradient_balance,
        train_A="A" in config.pathways,
        train_B="B" in config.pathways,
        phased=coupled and config.phases,
        gated=config.gate != "open",
        falls=config.gate == "falls",
        raw_norms=config.raw_norms,
        statenet=config.statenet != "off",
        weight_path=statenet.PATHS[config.statenet][0],
        lr_path=statenet.PATHS[config.statenet][1],
        **{name: getattr(config, name) for name in CONSTANT},
    )


Prescription = Callable[[Config, int], Controls[float]]  # what an epoch prescribes, as `prescribe` gives it


def flatten(module: torch.nn.Module) -> Tensor:
    """All parameters of a module in one vector, in the order of `named_parameters`."""
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def unflatten(flat: Tensor, module: torch.nn.Module) -> dict[str, Tensor]:
    """Named views of a vector, the inverse of `flatten`; what `torch.func.functional_call` takes."""
    named = dict(module.named_parameters())
    parts = flat.split([p.numel() for p in named.values()])
    return {name: part.view_as(p) for (name, p), part in zip(named.items(), parts, strict=True)}


@fusible
def call(module: torch.nn.Module, flat: Tensor, *arguments):
    """What the module makes of the arguments with the parameters of the vector `flat`."""
    return functional_call(module, unflatten(flat, module), arguments)


def load(module: Module, flat: Tensor) -> Module:
    """A copy of the module, wherever it is, with the parameters of `flat`, on its device, in evaluation mode."""
    module = copy.deepcopy(module).to_empty(device=flat.device)
    module.load_state_dict(unflatten(flat.clone(), module))
    return module.eval()


def untrained(config: Config, pair: type[DualVAE] = DualVAE) -> tuple[DualVAE, statenet.StateNet]:
    """The modules as they are before training, a function of the seed; the two VAEs of the class `pair`."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(stream(config.seed, 0, "initial").get_state())
        return pair(config.latent, config.last_relu), statenet.StateNet()


def trained(state: State, config: Config, pair: type[DualVAE] = DualVAE) -> DualVAE:
    """The two VAEs of a state, of the class `pair`, on the state's device and in evaluation mode."""
    return load(pair(config.latent, config.last_relu), weights_kept(state))


def weights_kept(state: State) -> Tensor:
    """The parameters that are judged and kept, (P,): the last ones, or their moving average where there is one."""
    return state.get("average", state["theta"])


def initial_state(config: Config, device: torch.device, pair: type[DualVAE] = DualVAE) -> State:
    """The state before the first step. See `HISTORY` for the rows of `history`."""
    model, net = untrained(config, pair)
    theta, phi = (flatten(module).to(device) for module in (model, net))
    memory = {"memory": torch.stack([uniform_memory(model.trits)] * 2).to(device)} if config.prior_samples else {}
    zero, count = torch.zeros((), device=device), torch.zeros((), dtype=torch.float64, device=device)
    return {
        "epoch": torch.zeros((), dtype=torch.int64),
        "step": count,
        "theta": theta,
        **{name: torch.zeros_like(theta) for name in ("moment_1", "moment_2", "update")},
        "norms": torch.zeros(2, device=device),
        "averages": torch.zeros(len(RECORD), device=device),
        "lr": torch.tensor(config.lr, device=device),
        "lambdas": torch.tensor([config.lambda_1, config.lambda_2, config.lambda_3], device=device),
        "rho": zero,
        "gate": zero.clone(),
        "statenet_theta": phi,
        **{name: torch.zeros_like(phi) for name in ("statenet_moment_1", "statenet_moment_2")},
        "statenet_step": count.clone(),
        **memory,
        **({"average": theta.clone()} if config.averaging else {}),
        "history": torch.full((config.total_epochs, len(HISTORY)), torch.nan, dtype=torch.float64, device=device),
    }


def not_finite(state: State) -> str:
    """The first part of a state that is not finite, in words; empty where all of it is."""
    epoch = int(state["epoch"])
    rows = ~state["history"][:epoch].isfinite()
    if rows.any():
        row, column = rows.nonzero()[0].tolist()
        return f"{HISTORY[column]} of epoch {row + 1}"
    parts = [name for name in state if name not in ("epoch", "history", "evaluations", "log_p")]
    return next((name for name in parts if not state[name].isfinite().all()), "")


def history_row(state: State) -> dict[str, float]:
    """The last row of the history: a value for each name in `HISTORY`."""
    return dict(zip(HISTORY, state["history"][int(state["epoch"]) - 1].tolist(), strict=True))
