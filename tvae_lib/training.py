"""Chapter 8: the training step, the epoch around it, and the state that both turn into the next.

The state is one flat dictionary of tensors; saved as it is, it is the checkpoint. The step is one function
(state, batch, noise, controls) -> (state, record) on tensors alone: nothing in it waits for the device.
"""

import copy

import torch
from torch import Tensor
from torch.func import functional_call

from tvae_lib import losses, schedules, statenet
from tvae_lib.config import Config
from tvae_lib.dual import DualVAE
from tvae_lib.operations import all_operations, one_hot, split
from tvae_lib.streams import stream

State = dict[str, Tensor]
BETAS = (0.9, 0.999)
EPSILON = 1e-8

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
    update = (scale_1 * moment_1).div_((scale_2 * moment_2).sqrt_().add_(epsilon)).add_(theta, alpha=weight_decay)
    return update, moment_1, moment_2


class Step:
    """The training step of one configuration: `step(state, batch, noise, controls) -> (state, record)`.

    `batch` = (trits (N, 9), indicators (N, 9, 3)); `noise` (2, N, d) standard normal; `controls` (6,) =
    rho, tau_A, tau_B, beta_A, beta_B, factor on lr. The record holds the values from `loss` to `hypergradient`
    of `HISTORY`.
    """

    def __init__(self, config: Config):
        self.config = config
        with torch.device("meta"):
            self.model = DualVAE(config.latent)
        self.size_A = sum(p.numel() for p in self.model.A.parameters())
        self.both = config.pathways == "AB"
        self.active = ("A" in config.pathways, "B" in config.pathways, self.both and config.alignment)

    def weights(self, state: State, controls: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the seven loss terms (7,), and the balance factors (g_A, g_B) in them."""
        balance = losses.balance_factors(state["norms"])
        if not (self.config.gradient_balance and self.both):
            balance = torch.ones_like(balance)
        config, beta_A, beta_B = self.config, controls[3], controls[4]
        weights = losses.term_weights(
            state["lambdas"], balance, beta_A, beta_B, config.alpha_ent, config.alpha_rep, self.active
        )
        return weights, balance

    def terms(self, theta: Tensor, batch, noise: Tensor, controls: Tensor) -> tuple[Tensor, Tensor]:
        """The seven loss terms (7,) and the two latent entropies (2,), as functions of the parameters."""
        trits, indicators = batch
        output = functional_call(self.model, unflatten(theta, self.model), (trits, noise, *controls[:3]))
        used = (self.config.alpha_ent > 0, self.config.alpha_rep > 0, self.active[2])
        return losses.loss_terms(output, indicators, self.config.sigma_rep, used)

    def __call__(self, state: State, batch, noise: Tensor, controls: Tensor) -> tuple[State, Tensor]:
        weights, balance = self.weights(state, controls)
        theta = state["theta"].detach().requires_grad_()
        terms, entropies = self.terms(theta, batch, noise, controls)
        loss = torch.dot(weights, terms)
        (gradient,) = torch.autograd.grad(loss, theta)
        loss, terms, entropies = loss.detach(), terms.detach(), entropies.detach()
        norms = torch.stack([gradient[: self.size_A].norm(), gradient[self.size_A :].norm()])
        hypergradient = -torch.dot(gradient, state["update"])

        step = state["step"] + 1
        update, moment_1, moment_2 = adamw_update(
            state["theta"], gradient, state["moment_1"], state["moment_2"], step, self.config.weight_decay
        )
        if not self.both:  # weight decay must not move the pathway that rests
            resting = slice(self.size_A, None) if self.active[0] else slice(None, self.size_A)
            update[resting] = 0
        new = state | {
            "step": step,
            "theta": state["theta"] - state["lr"] * controls[5] * update,
            "moment_1": moment_1,
            "moment_2": moment_2,
            "update": update,
            "norms": losses.average_norms(state["norms"], norms, state["step"] == 0),
        }
        loss_A = terms[0] + controls[3] * terms[1]
        loss_B = terms[2] + controls[4] * terms[3]
        loss_B = loss_B + self.config.alpha_ent * terms[4] + self.config.alpha_rep * terms[5]
        record = {
            "loss": loss,
            "loss_A": loss_A,
            "loss_B": loss_B,
            "slope_1": self.active[0] * balance[0] * loss_A,
            "slope_2": self.active[1] * balance[1] * loss_B,
            **dict(zip(losses.TERMS, terms, strict=True)),
            **dict(zip(("entropy_A", "entropy_B"), entropies, strict=True)),
            **dict(zip(("g_A", "g_B"), balance, strict=True)),
            **dict(zip(("norm_A", "norm_B"), norms, strict=True)),
            "hypergradient": hypergradient,
        }
        return new, torch.stack([record[name] for name in RECORD])


def schedule(state: State, epoch: int, config: Config) -> tuple[State, Tensor]:
    """What the epoch prescribes: the state with its rho, and the step's controls (6,)."""
    t, t_before = (schedules.clock(e, config.total_epochs) for e in (epoch, epoch - 1))
    if config.pathways != "AB" or not config.cross_injection:
        rho = torch.zeros_like(state["rho"])
    elif config.phases:
        rho = schedules.permeability(t, t_before, state["rho"], state["gate"])
    else:
        rho = torch.full_like(state["rho"], config.rho)
    taus = (config.tau, config.tau)
    if config.phases:
        taus = (max(schedules.temperature_A(t), config.tau_floor), max(schedules.temperature_B(t), config.tau_floor))
    beta = (config.beta_start, config.beta_end)
    rest = [
        *taus,
        schedules.beta_A(t, *beta),
        schedules.beta_B(t, *beta, config.beta_ratio),
        schedules.cosine_factor(t) if config.lr_decay == "cosine" else 1.0,
    ]
    return state | {"rho": rho}, torch.cat([rho.view(1), rho.new_tensor(rest)])


def state_vector(state: State, epoch: int) -> Tensor:
    """StateNet's input (9,): entropies, rates and gradient ratio of the epoch before, then rho and lambda now.

    Equation: eq-state. Source: Dynamics, "StateNet Architecture".
    """
    columns = [list(HISTORY).index(name) for name in statenet.STATE[:5]]
    averages = state["history"][epoch - 1, columns].to(state["lambdas"].dtype)
    return torch.cat([averages, state["rho"].view(1), state["lambdas"]])


def steer(state: State, epoch: int, config: Config, net: statenet.StateNet) -> tuple[State, Tensor]:
    """StateNet's corrections (4,), and the state with the learning rate and loss weights that they give.

    It first acts at the start of the second epoch: before it there are no averages to read.
    """
    if config.statenet == "off" or epoch == 0:
        return state, torch.zeros(4, device=state["lr"].device)
    corrections = functional_call(net, unflatten(state["statenet_theta"], net), state_vector(state, epoch))
    lr = statenet.update_learning_rate(state["lr"], corrections[0], config.alpha_lr)
    lambdas = statenet.update_weights(state["lambdas"], corrections[1:], config.alpha_lambda)
    return state | {"lr": lr, "lambdas": lambdas}, corrections


def train_statenet(state: State, before: State, epoch: int, means: Tensor, factor: Tensor, config: Config, net):
    """The state after one step of StateNet's own AdamW at the end of an epoch.

    `before` is the state that StateNet acted on, `means` the averages of the epoch's records and `factor` the
    schedule's factor on the learning rate.
    """
    if config.statenet == "off" or epoch == 0:
        return state
    weight_gradient = means[[RECORD.index(name) for name in ("slope_1", "slope_2", "alignment")]]
    lr_gradient = means[RECORD.index("hypergradient")] * factor
    inputs = state_vector(before, epoch)

    def objective(phi):
        corrections = functional_call(net, unflatten(phi, net), inputs)
        past = (before["lambdas"], before["lr"])
        sizes = (config.statenet_penalty, config.alpha_lr, config.alpha_lambda)
        return statenet.objective(corrections, *past, weight_gradient, lr_gradient, config.statenet, *sizes)

    phi, step = state["statenet_theta"], state["statenet_step"] + 1
    moments = (state["statenet_moment_1"], state["statenet_moment_2"])
    gradient = torch.func.grad(objective)(phi)
    update, moment_1, moment_2 = adamw_update(phi, gradient, *moments, step, config.weight_decay)
    return state | {
        "statenet_theta": phi - config.statenet_lr * update,
        "statenet_moment_1": moment_1,
        "statenet_moment_2": moment_2,
        "statenet_step": step,
    }


class Trainer:
    """One configuration on one device: `epoch(state)` trains an epoch and returns the next state."""

    def __init__(self, config: Config, device: torch.device | str):
        self.config = config
        self.device = torch.device(device)
        self.data = Data(config, self.device)
        self.step = Step(config)
        with torch.device("meta"):
            self.statenet = statenet.StateNet()

    def batches(self, epoch: int):
        """Every batch of an epoch and its noise: the permutation of the training set, wrapped to whole batches."""
        size, count = self.config.batch_size, len(self.data.training)
        steps = -(-count // size)
        order = torch.randperm(count, generator=self._stream(epoch, "order"), device=self.device)
        order = order[torch.arange(steps * size, device=self.device) % count].view(steps, size)
        shape = (steps, 2, size, self.config.latent)
        noise = torch.randn(shape, generator=self._stream(epoch, "noise"), device=self.device)
        for chosen, epsilon in zip(self.data.training[order], noise, strict=True):
            yield (self.data.trits[chosen], self.data.indicators[chosen]), epsilon

    def _stream(self, epoch: int, purpose: str) -> torch.Generator:
        return stream(self.config.seed, epoch, purpose, self.device)

    def epoch(self, state: State) -> State:
        """The state after one more epoch, its row of the history filled in."""
        epoch, config = int(state["epoch"]), self.config
        state, controls = schedule(state, epoch, config)
        before = state
        state, corrections = steer(state, epoch, config, self.statenet)
        total, steps = 0, 0
        for batch, noise in self.batches(epoch):
            state, record = self.step(state, batch, noise, controls)
            total, steps = total + record, steps + 1
        means = total / steps
        state = train_statenet(state, before, epoch, means, controls[5], config, self.statenet)

        ratio = losses.gradient_ratio(state["norms"])
        gate = losses.is_balanced(ratio)
        t = schedules.clock(epoch, config.total_epochs)
        head = torch.tensor([epoch + 1, schedules.phase(t)], device=self.device)
        lr = state["lr"] * controls[5]
        row = [head, controls[:5], lr.view(1), state["lambdas"], corrections, means, ratio.view(1), gate.view(1)]
        history = state["history"].clone()
        history[epoch] = torch.cat([part.double() for part in row])
        return state | {"epoch": state["epoch"] + 1, "gate": gate, "history": history}

    def gradient_shares(self, state: State) -> Tensor:
        """How much of the total's gradient each term makes: (7, 2), columns A and B; each column sums to 1.

        The share of term i in the parameters of one pathway is <w_i grad_i, grad> / ||grad||^2, grad the gradient
        of the total there. One batch, with the settings of the epoch that comes next; nothing is changed.
        Equation: eq-share. Source: ours.
        """
        epoch = min(int(state["epoch"]), self.config.total_epochs - 1)
        state, controls = schedule(state, epoch, self.config)
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
