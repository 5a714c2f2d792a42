"""Chapter 8: the training step, the epoch around it, and the state that both turn into the next.

The state is one flat dictionary of tensors; saved as it is, it is the checkpoint. The step is one function
(state, batch, noise, controls) -> (state, record) on tensors alone: nothing in it waits for the device.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from tvae_lib import losses, replay, schedules, statenet
from tvae_lib.config import Config
from tvae_lib.dual import DualVAE
from tvae_lib.operations import all_operations, one_hot, split
from tvae_lib.streams import stream

State = dict[str, Tensor]
BETAS = (0.9, 0.999)
EPSILON = 1e-8
STEPPED = ("step", "theta", "moment_1", "moment_2", "update", "norms", "lr", "lambdas")  # what a step reads and writes
RECORD_FROM = 50  # epochs ahead from which recording the step pays: it takes as long as it saves in about 30

# Columns of history.csv. Losses, terms, entropies, norms and shares are averages over the steps of the epoch.
HISTORY = {
    "epoch": "epochs completed, from 1",
    "phase": "phase of the epoch, 1 to 4",
    "rho": "permeability",
    "tau_A": "sampling temperature of A",
    "tau_B": "sampling temperature of B",
    "beta_A": "KL weight of A",
    "beta_B": "KL weight of B",
    "lr": "learning rate, its factor over the run included",
    "lambda_1": "weight of L_A",
    "lambda_2": "weight of L_B",
    "lambda_3": "weight of L_align",
    "delta_lr": "StateNet's correction of lr",
    "delta_1": "StateNet's correction of lambda_1",
    "delta_2": "StateNet's correction of lambda_2",
    "delta_3": "StateNet's correction of lambda_3",
    "loss": "L_total",
    "loss_A": "L_A",
    "loss_B": "L_B",
    "slope_1": "g_A L_A, the derivative of L_total by lambda_1",
    "slope_2": "g_B L_B, the derivative of L_total by lambda_2",
    "ce_A": "distortion of A, nats",
    "kl_A": "rate of A, nats",
    "ce_B": "distortion of B, nats",
    "kl_B": "rate of B, nats",
    "negentropy": "-H_output of B, nats",
    "repulsion": "L_rep of B",
    "alignment": "L_align, nats",
    "entropy_A": "soft-histogram entropy of z_A, nats",
    "entropy_B": "soft-histogram entropy of z_B, nats",
    "g_A": "gradient balance factor of A",
    "g_B": "gradient balance factor of B",
    "norm_A": "gradient norm of the total over the parameters of A",
    "norm_B": "gradient norm of the total over the parameters of B",
    "hypergradient": "-<g_{t+1}, u_t>, the derivative of the loss by the learning rate",
    "grad_ratio": "ratio of the averaged norms, B over A, at the end of the epoch",
    "gate": "1 where that ratio is balanced",
}
RECORD = list(HISTORY)[list(HISTORY).index("loss") : list(HISTORY).index("hypergradient") + 1]


class Controls(NamedTuple):
    """What a configuration prescribes in an epoch, a scalar each. Runs that differ in nothing else share steps."""

    rho: Tensor
    tau_A: Tensor
    tau_B: Tensor
    beta_A: Tensor
    beta_B: Tensor
    lr_factor: Tensor
    alpha_ent: Tensor
    alpha_rep: Tensor
    alignment: Tensor  # 1 or 0
    sigma_rep: Tensor
    balance: Tensor  # 1 or 0
    train_A: Tensor  # 1 or 0
    train_B: Tensor  # 1 or 0
    phased: Tensor  # 1: rho follows the phases
    statenet: Tensor  # 1 or 0
    weight_path: Tensor  # 1: StateNet's gradient goes through lambda
    lr_path: Tensor  # 1: StateNet's gradient goes through lr
    alpha_lr: Tensor
    alpha_lambda: Tensor
    statenet_lr: Tensor
    statenet_penalty: Tensor


class Data:
    """The operations on the device: trits as floats (M, 9), indicators (M, 9, 3), training and held-out indices."""

    def __init__(self, config: Config, device: torch.device):
        operations = all_operations()
        self.trits = operations.float().to(device)
        self.indicators = one_hot(operations).to(device)
        self.training, self.held_out = (
            part.to(device) for part in split(config.holdout, stream(config.seed, 0, "split"))
        )


def flatten(module: torch.nn.Module) -> Tensor:
    """All parameters of a module in one vector, in the order of `named_parameters`."""
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def unflatten(flat: Tensor, module: torch.nn.Module) -> dict[str, Tensor]:
    """Named views of a vector, the inverse of `flatten`; what `torch.func.functional_call` takes."""
    named = dict(module.named_parameters())
    parts = flat.split([p.numel() for p in named.values()])
    return {name: part.view_as(p) for (name, p), part in zip(named.items(), parts, strict=True)}


def load(module: torch.nn.Module, flat: Tensor) -> torch.nn.Module:
    """A copy of the module, wherever it is, with the parameters of `flat`, on its device, in evaluation mode."""
    module = copy.deepcopy(module).to_empty(device=flat.device)
    module.load_state_dict(unflatten(flat.clone(), module))
    return module.eval()


def untrained(config: Config) -> tuple[DualVAE, statenet.StateNet]:
    """The modules as they are before training, a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(stream(config.seed, 0, "initial").get_state())
        return DualVAE(config.latent), statenet.StateNet()


def initial_state(config: Config, device: torch.device) -> State:
    """The state before the first step. See `HISTORY` for the rows of `history`."""
    model, net = untrained(config)
    theta, phi = flatten(model).to(device), flatten(net).to(device)
    count = torch.zeros((), dtype=torch.float64, device=device)
    return {
        "epoch": torch.zeros((), dtype=torch.int64),
        "step": count,
        "theta": theta,
        "moment_1": torch.zeros_like(theta),
        "moment_2": torch.zeros_like(theta),
        "update": torch.zeros_like(theta),
        "norms": torch.zeros(2, device=device),
        "lr": torch.tensor(config.lr, device=device),
        "lambdas": torch.tensor([config.lambda_1, config.lambda_2, config.lambda_3], device=device),
        "rho": torch.zeros((), device=device),
        "gate": torch.zeros((), device=device),
        "statenet_theta": phi,
        "statenet_moment_1": torch.zeros_like(phi),
        "statenet_moment_2": torch.zeros_like(phi),
        "statenet_step": count.clone(),
        "history": torch.full((config.total_epochs, len(HISTORY)), torch.nan, dtype=torch.float64, device=device),
    }


def adamw_update(theta, gradient, moment_1, moment_2, step, weight_decay, epsilon=EPSILON):
    """One AdamW direction u, so that theta - lr u is the new vector: (u, new moments); `step` counts from 1.

    Decoupled weight decay is part of u. Equation: eq-adamw. Source: Loshchilov and Hutter (2019).
    """
    moment_1 = torch.lerp(gradient, moment_1, BETAS[0])
    moment_2 = torch.lerp(gradient.square(), moment_2, BETAS[1])
    scale_1, scale_2 = ((1 / (1 - beta**step)).to(theta.dtype) for beta in BETAS)
    root = scale_2.sqrt()
    update = (moment_1 * (scale_1 / root)).div_(moment_2.sqrt().add_(epsilon / root)).add_(theta, alpha=weight_decay)
    return update, moment_1, moment_2


class Step:
    """The training step: `step(state, batch, noise, controls) -> (state, record)`, on tensors alone.

    `batch` = (trits (N, 9), indicators (N, 9, 3)); `noise` (2, N, d) standard normal; `controls` are scalars
    on the device. The record holds the values from `loss` to `hypergradient` of `HISTORY`. Terms that none of
    `configs` uses are not computed. `pair` is the class whose forward pass is trained.
    """

    def __init__(self, *configs: Config, pair: type[DualVAE] = DualVAE):
        with torch.device("meta"):
            self.model = pair(configs[0].latent)
        self.size_A = sum(p.numel() for p in self.model.A.parameters())
        self.weight_decay = configs[0].weight_decay
        self.resting = any(c.pathways != "AB" for c in configs)
        self.used = (
            any(c.alpha_ent > 0 for c in configs),
            any(c.alpha_rep > 0 for c in configs),
            any(c.alignment and c.pathways == "AB" for c in configs),
        )

    def weights(self, state: State, controls: Controls) -> tuple[Tensor, Tensor]:
        """Weights of the seven loss terms (7,), and the balance factors (g_A, g_B) in them."""
        c = controls
        balance = torch.where(c.balance > 0, losses.balance_factors(state["norms"]), 1.0)
        active = (c.train_A, c.train_B, c.alignment)
        parts = (c.beta_A, c.beta_B, c.alpha_ent, c.alpha_rep)
        return losses.term_weights(state["lambdas"], balance, *parts, active), balance

    def terms(self, theta: Tensor, batch, noise: Tensor, controls: Controls) -> tuple[Tensor, Tensor]:
        """The seven loss terms (7,) and the two latent entropies (2,), as functions of the parameters."""
        (trits, indicators), c = batch, controls
        output = functional_call(self.model, unflatten(theta, self.model), (trits, noise, c.rho, c.tau_A, c.tau_B))
        terms, entropies = losses.loss_terms(output, indicators, c.sigma_rep, self.used)
        optional = torch.stack([c.alpha_ent, c.alpha_rep, c.alignment]).sign()  # a term that is off reads 0
        return torch.cat([terms[:4], terms[4:] * optional]), entropies

    def loss(self, theta: Tensor, state: State, batch, noise: Tensor, controls: Controls):
        """L_total, and what it is made of: terms (7,), latent entropies (2,), balance factors (2,)."""
        weights, balance = self.weights(state, controls)
        terms, entropies = self.terms(theta, batch, noise, controls)
        return torch.dot(weights, terms), (terms, entropies, balance)

    def __call__(self, state: State, batch, noise: Tensor, controls: Controls) -> tuple[State, Tensor]:
        theta = state["theta"].detach().requires_grad_()
        loss, parts = self.loss(theta, state, batch, noise, controls)
        (gradient,) = torch.autograd.grad(loss.sum(), theta)  # the sum is over replicas, where there are some
        return self.advance(state, gradient, loss.detach(), tuple(part.detach() for part in parts), controls)

    def advance(self, state: State, gradient: Tensor, loss: Tensor, parts, controls: Controls) -> tuple[State, Tensor]:
        """The next state, and the record of this step."""
        c, (terms, entropies, balance) = controls, parts
        norms = torch.stack([gradient[: self.size_A].norm(), gradient[self.size_A :].norm()])
        hypergradient = -torch.dot(gradient, state["update"])
        step = state["step"] + 1
        update, moment_1, moment_2 = adamw_update(
            state["theta"], gradient, state["moment_1"], state["moment_2"], step, self.weight_decay
        )
        if self.resting:  # weight decay must not move a pathway that rests
            update = torch.cat([update[: self.size_A] * c.train_A, update[self.size_A :] * c.train_B])
        new = state | {
            "step": step,
            "theta": state["theta"] - state["lr"] * c.lr_factor * update,
            "moment_1": moment_1,
            "moment_2": moment_2,
            "update": update,
            "norms": losses.average_norms(state["norms"], norms, state["step"] == 0),
        }
        loss_A = terms[0] + c.beta_A * terms[1]
        loss_B = terms[2] + c.beta_B * terms[3] + c.alpha_ent * terms[4] + c.alpha_rep * terms[5]
        record = {
            "loss": loss,
            "loss_A": loss_A,
            "loss_B": loss_B,
            "slope_1": c.train_A * balance[0] * loss_A,
            "slope_2": c.train_B * balance[1] * loss_B,
            **dict(zip(losses.TERMS, terms, strict=True)),
            **dict(zip(("entropy_A", "entropy_B"), entropies, strict=True)),
            **dict(zip(("g_A", "g_B"), balance, strict=True)),
            **dict(zip(("norm_A", "norm_B"), norms, strict=True)),
            "hypergradient": hypergradient,
        }
        return new, torch.stack([record[name] for name in RECORD])


def prescribe(config: Config, epoch: int) -> Controls:
    """What a configuration prescribes in an epoch, as plain numbers; `rho` is the one that holds without phases."""
    t = schedules.clock(epoch, config.total_epochs)
    both = config.pathways == "AB"
    coupled = both and config.cross_injection
    taus = (config.tau, config.tau)
    if config.phases:
        taus = (max(schedules.temperature_A(t), config.tau_floor), max(schedules.temperature_B(t), config.tau_floor))
    beta = (config.beta_start, config.beta_end)
    return Controls(
        rho=config.rho * (coupled and not config.phases),
        tau_A=taus[0],
        tau_B=taus[1],
        beta_A=schedules.beta_A(t, *beta),
        beta_B=schedules.beta_B(t, *beta, config.beta_ratio),
        lr_factor=schedules.cosine_factor(t) if config.lr_decay == "cosine" else 1.0,
        alpha_ent=config.alpha_ent,
        alpha_rep=config.alpha_rep,
        alignment=both and config.alignment,
        sigma_rep=config.sigma_rep,
        balance=both and config.gradient_balance,
        train_A="A" in config.pathways,
        train_B="B" in config.pathways,
        phased=coupled and config.phases,
        statenet=config.statenet != "off",
        weight_path=statenet.PATHS[config.statenet][0],
        lr_path=statenet.PATHS[config.statenet][1],
        alpha_lr=config.alpha_lr,
        alpha_lambda=config.alpha_lambda,
        statenet_lr=config.statenet_lr,
        statenet_penalty=config.statenet_penalty,
    )


Prescription = Callable[[Config, int], Controls]  # what an epoch prescribes, as `prescribe` gives it


def schedule(state: State, epoch: int, total_epochs: int, prescribed: Controls) -> tuple[State, Controls]:
    """The state with the epoch's rho, and what is prescribed with that rho in it."""
    t, t_before = (schedules.clock(e, total_epochs) for e in (epoch, epoch - 1))
    phased = schedules.permeability(t, t_before, state["rho"], state["gate"])
    rho = torch.where(prescribed.phased > 0, phased, prescribed.rho)
    return state | {"rho": rho}, prescribed._replace(rho=rho)


def state_vector(state: State, epoch: int) -> Tensor:
    """StateNet's input (9,): entropies, rates and gradient ratio of the epoch before, then rho and lambda now.

    Equation: eq-state. Source: Dynamics, "StateNet Architecture".
    """
    columns = [list(HISTORY).index(name) for name in statenet.STATE[:5]]
    averages = state["history"][epoch - 1, columns].to(state["lambdas"].dtype)
    return torch.cat([averages, state["rho"].view(1), state["lambdas"]])


def steer(state: State, epoch: int, controls: Controls, net: statenet.StateNet) -> tuple[State, Tensor]:
    """StateNet's corrections (4,), and the state with the learning rate and loss weights that they give.

    It first acts at the start of the second epoch: before it there are no averages to read.
    """
    if epoch == 0:
        return state, state["lambdas"].new_zeros(len(statenet.CORRECTIONS))
    corrections = functional_call(net, unflatten(state["statenet_theta"], net), state_vector(state, epoch))
    corrections = torch.where(controls.statenet > 0, corrections, 0.0)
    lr = statenet.update_learning_rate(state["lr"], corrections[0], controls.alpha_lr)
    lambdas = statenet.update_weights(state["lambdas"], corrections[1:], controls.alpha_lambda)
    return state | {"lr": lr, "lambdas": lambdas}, corrections


def train_statenet(state: State, before: State, epoch: int, means: Tensor, controls: Controls, net, weight_decay):
    """The state after one step of StateNet's own AdamW at the end of an epoch.

    `before` is the state that StateNet acted on, `means` the averages of the epoch's records.
    """
    if epoch == 0:
        return state
    c = controls
    weight_gradient = means[[RECORD.index(name) for name in ("slope_1", "slope_2", "alignment")]]
    lr_gradient = means[RECORD.index("hypergradient")] * c.lr_factor
    inputs = state_vector(before, epoch)

    def objective(phi):
        corrections = functional_call(net, unflatten(phi, net), inputs)
        past, paths = (before["lambdas"], before["lr"]), (c.weight_path, c.lr_path)
        sizes = (c.statenet_penalty, c.alpha_lr, c.alpha_lambda)
        return statenet.objective(corrections, *past, weight_gradient, lr_gradient, paths, *sizes)

    phi, step = state["statenet_theta"], state["statenet_step"] + 1
    moments = (state["statenet_moment_1"], state["statenet_moment_2"])
    update, moment_1, moment_2 = adamw_update(phi, torch.func.grad(objective)(phi), *moments, step, weight_decay)
    new = {
        "statenet_theta": phi - c.statenet_lr * update,
        "statenet_moment_1": moment_1,
        "statenet_moment_2": moment_2,
        "statenet_step": step,
    }
    return state | {name: torch.where(c.statenet > 0, tensor, state[name]) for name, tensor in new.items()}


class Trainer:
    """One configuration on one device: `epoch(state)` trains an epoch and returns the next state.

    `step` is the training step, `take` what takes it: the step itself, or after `hasten` a recording of it.
    `prescribe` says what each epoch prescribes, where it is not to be the configuration's schedules.
    """

    compiles = False  # a run must not need a compiler, nor come out otherwise where there is one

    def __init__(self, config: Config, device: torch.device | str, prescribe: Prescription = prescribe):
        self.config = config
        self.prescribe = prescribe
        self.device = torch.device(device)
        self.data = Data(config, self.device)
        self.step = self.take = Step(config)
        with torch.device("meta"):
            self.statenet = statenet.StateNet()

    def stack(self, states: list[State]) -> State:
        """What `epoch` takes: of one configuration its own state."""
        (state,) = states
        return state

    def unstack(self, state: State) -> list[State]:
        """The inverse of `stack`."""
        return [state]

    def drawn(self, epoch: int) -> tuple[Tensor, Tensor]:
        """What is random in an epoch: the operations of its S batches of N, (S, N), and the noise (S, 2, N, d).

        The operations are a permutation of the training set, wrapped to whole batches.
        """
        size, count = self.config.batch_size, len(self.data.training)
        steps = -(-count // size)
        order = torch.randperm(count, generator=self._stream(epoch, "order"), device=self.device)
        order = order[torch.arange(steps * size, device=self.device) % count].view(steps, size)
        shape = (steps, 2, size, self.config.latent)
        noise = torch.randn(shape, generator=self._stream(epoch, "noise"), device=self.device)
        return self.data.training[order], noise

    def data_of(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """All batches of an epoch: trits (S, N, 9), indicators with the batch last (S, 9, 3, N), noise (S, 2, N, d)."""
        chosen, noise = self.drawn(epoch)
        return self.data.trits[chosen], self.data.indicators[chosen].movedim(-3, -1).contiguous(), noise

    def batches(self, epoch: int):
        """Every batch of an epoch and its noise, as the step takes them."""
        for trits, indicators, noise in zip(*self.data_of(epoch), strict=True):
            yield (trits, indicators.movedim(-1, -3)), noise

    def _stream(self, epoch: int, purpose: str) -> torch.Generator:
        return stream(self.config.seed, epoch, purpose, self.device)

    def prescribed(self, epoch: int) -> Controls:
        """What the configuration prescribes in an epoch, scalars on the device."""
        return Controls(*torch.tensor(self.prescribe(self.config, epoch), device=self.device).unbind())

    def begin(self, state: State, prescribed: Controls, epoch: int):
        """Before the first batch: the state with rho, lr and lambda of the epoch, its controls, the corrections."""
        before, controls = schedule(state, epoch, self.config.total_epochs, prescribed)
        state, corrections = steer(before, epoch, controls, self.statenet)
        return state, before, controls, corrections

    def finish(self, state: State, before: State, controls: Controls, corrections: Tensor, means: Tensor, epoch: int):
        """After the last batch: StateNet trained, the gate set, the epoch's row in the history."""
        state = train_statenet(state, before, epoch, means, controls, self.statenet, self.config.weight_decay)
        ratio = losses.gradient_ratio(state["norms"])
        gate = losses.is_balanced(ratio)
        c, t = controls, schedules.clock(epoch, self.config.total_epochs)
        head = means.new_tensor([epoch + 1, schedules.phase(t)])
        settings = torch.stack([c.rho, c.tau_A, c.tau_B, c.beta_A, c.beta_B, state["lr"] * c.lr_factor])
        row = torch.cat([head, settings, state["lambdas"], corrections, means, torch.stack([ratio, gate])])
        history = state["history"].clone()
        history[epoch] = row.double()
        return state | {"epoch": state["epoch"] + 1, "gate": gate, "history": history}

    def epoch(self, state: State) -> State:
        """The state after one more epoch, its row of the history filled in."""
        epoch = int(state["epoch"].max())  # replicas are at the same one
        state, before, controls, corrections = self.begin(state, self.prescribed(epoch), epoch)
        stepped = {name: state[name] for name in STEPPED}
        total, steps = 0, 0
        for batch, noise in self.batches(epoch):
            stepped, record = self.take(stepped, batch, noise, controls)
            total, steps = total + record, steps + 1
        state = state | {name: tensor.clone() for name, tensor in stepped.items()}  # ordinary tensors, also from a tape
        return self.finish(state, before, controls, corrections, total.clone() / steps, epoch)

    def hasten(self, state: State, epochs: int) -> None:
        """Take the steps of the next epochs from a recording, or on a GPU from a CUDA graph, where that pays."""
        if epochs < RECORD_FROM:
            return
        epoch = int(state["epoch"].max())
        state, _, controls, _ = self.begin(state, self.prescribed(epoch), epoch)
        example = ({name: state[name] for name in STEPPED}, *next(self.batches(epoch)), controls)
        tape = replay.record(self.step, example, self.compiles)
        self.take = replay.CudaGraph(tape, example) if self.device.type == "cuda" else tape

    def gradient_shares(self, state: State) -> Tensor:
        """How much of the total's gradient each term makes: (7, 2), columns A and B; each column sums to 1.

        The share of term i in the parameters of one pathway is <w_i grad_i, grad> / ||grad||^2, grad the gradient
        of the total there. One batch, with the settings of the epoch that comes next; nothing is changed.
        Equation: eq-share. Source: ours.
        """
        epoch = min(int(state["epoch"]), self.config.total_epochs - 1)
        state, controls = schedule(state, epoch, self.config.total_epochs, self.prescribed(epoch))
        weights, _ = self.step.weights(state, controls)
        chosen = torch.randperm(
            len(self.data.training), generator=self._stream(epoch, "share order"), device=self.device
        )[: self.config.batch_size]
        chosen = self.data.training[chosen]
        shape = (2, len(chosen), self.config.latent)
        noise = torch.randn(shape, generator=self._stream(epoch, "share noise"), device=self.device)
        batch = (self.data.trits[chosen], self.data.indicators[chosen])
        weighted = lambda theta: weights * self.step.terms(theta, batch, noise, controls)[0]  # noqa: E731
        gradients = torch.func.jacrev(weighted, chunk_size=1)(state["theta"])  # one term at a time, to save memory
        parts = gradients.split([self.step.size_A, gradients.shape[1] - self.step.size_A], dim=1)
        totals = [part.sum(0) for part in parts]
        return torch.stack([part @ g / g.square().sum() for part, g in zip(parts, totals, strict=True)], dim=1)
