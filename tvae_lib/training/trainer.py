"""The training step, the epoch around it, and StateNet between epochs.

The step is one function (state, batch, noise, controls) -> (state, record) on tensors alone: nothing in it waits for
the device, so that it can be recorded, compiled, and taken by many replicas at once."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.func import functional_call

from tvae_lib.operations import all_operations, one_hot, split
from tvae_lib.rng import stream
from tvae_lib.system import losses, schedules, statenet
from tvae_lib.system.collisions import remember
from tvae_lib.system.dual import DualVAE
from tvae_lib.system.fusible import fusible
from tvae_lib.system.vae import reparameterise
from tvae_lib.training import recording
from tvae_lib.training.config import Config
from tvae_lib.training.state import (
    HISTORY,
    RECORD,
    Controls,
    Prescribed,
    Prescription,
    State,
    call,
    prescribe,
    unflatten,
)
from tvae_lib.training.threads import alone

BETAS = (0.9, 0.999)
EPSILON = 1e-8
# What a step takes of a state.
STEPPED = ("step", "theta", "moment_1", "moment_2", "update", "norms", "lr", "lambdas", "memory", "average")
RECORD_FROM = 20  # epochs of a run from which recording the step pays: it takes as long as it saves in about ten


def adamw_update(theta, gradient, moment_1, moment_2, step, weight_decay, epsilon=EPSILON):
    """One AdamW direction u, so that theta - lr u is the new vector: (u, new moments); `step` counts from 1.

    Decoupled weight decay is part of u. Equation: eq-adamw. Source: Loshchilov and Hutter (2019)."""
    moment_1 = torch.lerp(gradient, moment_1, BETAS[0])
    moment_2 = torch.lerp(gradient.square(), moment_2, BETAS[1])
    scale_1, scale_2 = ((1 / (1 - beta**step)).to(theta.dtype) for beta in BETAS)
    root = scale_2.sqrt()
    update = (moment_1 * (scale_1 / root)).div_(moment_2.sqrt().add_(epsilon / root)).add_(theta, alpha=weight_decay)
    return update, moment_1, moment_2


@fusible
def descend(theta, gradient, before, moment_1, moment_2, step, lrs, sizes, weight_decay):
    """A step of AdamW, pathway by pathway: new theta, update u, moments (P,), gradient norms (2,), <gradient, before>.

    `lrs` and `sizes` are the learning rate and the number of parameters of each pathway; `before` is the update of the
    step before. Equation: eq-adamw. Source: Loshchilov and Hutter (2019)."""
    update, moment_1, moment_2 = adamw_update(theta, gradient, moment_1, moment_2, step, weight_decay)
    moved = [lr * part for lr, part in zip(lrs, update.split(sizes), strict=True)]
    norms = torch.stack([part.norm() for part in gradient.split(sizes)])
    return theta - torch.cat(moved), update, moment_1, moment_2, norms, torch.dot(gradient, before)


def averaged(average: Tensor, theta: Tensor, alpha: float) -> Tensor:
    """The moving average of the parameters after a step, alpha average + (1 - alpha) theta: (P,).
    Equation: eq-average. Source: Polyak and Juditsky (1992)."""
    return torch.lerp(theta, average, alpha)


@fusible
def weigh(lambdas: Tensor, norms: Tensor, controls: Prescribed) -> tuple[Tensor, Tensor]:
    """What `Step.weights` returns."""
    c = controls
    balance = torch.where(c.balance > 0, losses.balance_factors(norms, c.balance_power), 1.0)
    active = (c.train_A, c.train_B, c.alignment)
    own = (c.beta_A, c.beta_B, c.alpha_ent, c.alpha_rep)
    return losses.term_weights(lambdas, balance, *own, active, c.rho, c.diversity), balance


@fusible
def account(weights, terms, entropies, balance, norms, along, average, step, controls) -> tuple[Tensor, Tensor]:
    """The record of a step, in the order of `RECORD`, and the moving average of the gradient norms, (2,), after it.

    `along` is <gradient, update of the step before>; `average` and `step` are those before the step."""
    c = controls
    loss_A = terms[0] + c.beta_A * terms[1] + (c.rho * terms[7] + c.diversity * terms[9])
    loss_B = terms[2] + c.beta_B * terms[3] + c.alpha_ent * terms[4] + c.alpha_rep * terms[5]
    loss_B = loss_B + (c.rho * terms[8] + c.diversity * terms[10])
    record = {
        "loss": torch.dot(weights, terms),
        "loss_A": loss_A,
        "loss_B": loss_B,
        "slope_1": c.train_A * balance[0] * loss_A,
        "slope_2": c.train_B * balance[1] * loss_B,
        **dict(zip(losses.TERMS, terms, strict=True)),
        **dict(zip(("entropy_A", "entropy_B"), entropies, strict=True)),
        **dict(zip(("g_A", "g_B"), balance, strict=True)),
        **dict(zip(("norm_A", "norm_B"), norms, strict=True)),
        "hypergradient": -along,
    }
    scales = torch.stack([weights[0], weights[2]])  # of the losses of A and of B in the total
    observed = torch.where((c.raw_norms > 0) & (scales > 0), norms / scales, norms)
    moved = losses.average_norms(average, observed, step == 0, (c.ema, c.ema_balanced))
    return torch.stack([record[name] for name in RECORD]), moved


def stepped(state: State) -> State:
    """The part of a state that a step reads and writes."""
    return {name: state[name] for name in STEPPED if name in state}


class Step:
    """The training step: `step(state, batch, noise, controls) -> (state, record)`, on tensors alone.

    `batch` = (trits (N, 9), indicators (N, 9, 3)); `noise` (2, N + K, d) standard normal, where the last K rows are
    codes from the prior; `controls` are scalars on the device. The record holds the values from `loss` to
    `hypergradient` of `HISTORY`. Terms that none of `configs` uses are not computed. `pair` is the class whose forward
    pass is trained."""

    def __init__(self, *configs: Config, pair: type[DualVAE] = DualVAE):
        with torch.device("meta"):
            self.model = pair(configs[0].latent, configs[0].last_relu)
        self.sizes = [sum(p.numel() for p in pathway.parameters()) for pathway in (self.model.A, self.model.B)]
        self.weight_decay = configs[0].weight_decay
        self.turns = turns(configs[0])
        self.far = configs[0].hypergradient == "epoch"
        self.averaging = configs[0].averaging
        self.mixed = len(configs) > 1
        self.forms = losses.Forms(*(getattr(configs[0], name) for name in losses.Forms._fields))
        self.untempered = configs[0].entropy_of == "untempered"
        self.used = (
            any(c.alpha_ent > 0 for c in configs),
            any(c.alpha_rep > 0 for c in configs),
            any(c.alignment and c.pathways == "AB" for c in configs),
        )

    def terms(self, theta: Tensor, batch, noise: Tensor, controls: Prescribed, memory=None):
        """As functions of the parameters: terms (11,), latent entropies (2,), logits of prior codes (K, 9, 3) each.

        `memory` (2, 243, 81) is what each decoder's collisions are with; None: they are left out."""
        (trits, indicators), c, n = batch, controls, len(batch[0])
        output = call(self.model, theta, trits, noise, c.rho, c.tau_A, c.tau_B, self.turns)
        codes = None
        if self.untempered:
            posteriors = output.posterior_A, output.posterior_B
            codes = tuple(reparameterise(one, noise[i, :n]) for i, one in enumerate(posteriors))
        terms, entropies = losses.loss_terms(output, indicators, c.sigma_rep, self.used, self.forms, codes, memory)
        if self.mixed:  # a term that is off in this replica, though not in another, reads 0
            optional = torch.stack([c.alpha_ent, c.alpha_rep, c.alignment]).sign()
            terms = torch.cat([terms[:4], terms[4:7] * optional, terms[7:]])
        return terms, entropies, (output.prior_A, output.prior_B)

    def weights(self, state: State, controls: Prescribed) -> tuple[Tensor, Tensor]:
        """Weights of the loss terms (11,), and the balance factors (g_A, g_B) in them, (2,)."""
        return weigh(state["lambdas"], state["norms"], controls)

    def loss(self, theta: Tensor, state: State, batch, noise: Tensor, controls: Prescribed):
        """L_total, and what it is made of: terms (11,), latent entropies (2,), balance factors (2,)."""
        weights, balance = self.weights(state, controls)
        terms, entropies, _ = self.terms(theta, batch, noise, controls, state.get("memory"))
        return torch.dot(weights, terms), (terms, entropies, balance)

    def __call__(self, state: State, batch, noise: Tensor, controls: Prescribed) -> tuple[State, Tensor]:
        theta = state["theta"].detach().requires_grad_()
        weights, balance = self.weights(state, controls)
        terms, entropies, generated = self.terms(theta, batch, noise, controls, state.get("memory"))
        (gradient,) = torch.autograd.grad(terms, theta, weights)  # of <weights, terms>
        record = terms.detach(), entropies.detach(), tuple(logits.detach() for logits in generated)
        return self.advance(state, gradient, weights, balance, *record, controls)

    def advance(
        self,
        state: State,
        gradient: Tensor,
        weights: Tensor,
        balance: Tensor,
        terms: Tensor,
        entropies: Tensor,
        generated: tuple[Tensor, Tensor],
        controls,
    ) -> tuple[State, Tensor]:
        """The next state, and the record of this step."""
        c = controls
        lrs = state["lr"] * c.lr_factor * torch.stack([c.train_A, c.train_B])  # a pathway at rest does not even decay
        step = state["step"] + 1
        theta, update, moment_1, moment_2, norms, along = descend(
            *(state["theta"], gradient, state["update"], state["moment_1"], state["moment_2"], step),
            *(lrs, self.sizes, self.weight_decay),
        )
        record, average = account(
            weights, terms, entropies, balance, norms, along, state["norms"], state["step"], controls
        )
        new = {"step": step, "theta": theta, "moment_1": moment_1, "moment_2": moment_2, "update": update}
        if self.far:  # the direction of the epoch before stays what gradients are compared with
            new["update"] = state["update"]
        if "memory" in state:
            pairs = zip(state["memory"], generated, strict=True)
            new["memory"] = torch.stack([remember(memory, logits, c.memory) for memory, logits in pairs])
        if "average" in state:
            new["average"] = averaged(state["average"], theta, self.averaging)
        return state | new | {"norms": average}, record


def moved(begun: Tensor, theta: Tensor, lr: Tensor) -> Tensor:
    """The direction of an epoch, so that theta = begun - lr times it: (P,), or (R, P) with a learning rate (R,).
    Equation: eq-epoch-direction. Source: ours, after Baydin et al. (2018)."""
    return (begun - theta) / lr.clamp_min(1e-9).unsqueeze(-1)


def turns(config: Config) -> int:
    """Operations of a batch whose partner's code a decoder reads in turn: one in four, or none."""
    return -(-config.batch_size // 4) if config.injection == "in turn" else 0


def schedule(state: State, epoch: int, total_epochs: int, prescribed: Prescribed) -> tuple[State, Prescribed]:
    """The state with the epoch's rho, and what is prescribed with that rho in it."""
    t, t_before = (schedules.clock(e, total_epochs) for e in (epoch, epoch - 1))
    phased = schedules.permeability(t, t_before, state["rho"], state["gate"], prescribed.gated, prescribed.falls)
    rho = torch.where(prescribed.phased > 0, phased, prescribed.rho)
    return state | {"rho": rho}, prescribed._replace(rho=rho)


def state_vector(state: State) -> Tensor:
    """StateNet's input (9,): entropies and rates of the epoch before, the gradient ratio, rho and lambda now.

    Where StateNet acts at every step, those of the step before. Equation: eq-state. Source: Dynamics, "StateNet
    Architecture"."""
    entropies_and_rates = state["averages"][[RECORD.index(name) for name in statenet.STATE[:4]]]
    ratio = losses.gradient_ratio(state["norms"])
    return torch.cat([entropies_and_rates, ratio.view(1), state["rho"].view(1), state["lambdas"]])


def steer(state: State, controls: Prescribed, net: statenet.StateNet) -> tuple[State, Tensor]:
    """StateNet's corrections (4,), and the state with the learning rate and loss weights that they give."""
    corrections = functional_call(net, unflatten(state["statenet_theta"], net), state_vector(state))
    corrections = torch.where(controls.statenet > 0, corrections, 0.0)
    lr = statenet.update_learning_rate(state["lr"], corrections[0], controls.alpha_lr)
    lambdas = statenet.update_weights(state["lambdas"], corrections[1:], controls.alpha_lambda)
    return state | {"lr": lr, "lambdas": lambdas}, corrections


def along_epoch(means: Tensor, direction: Tensor, lr: Tensor) -> Tensor:
    """What stands for dL/dlr where the direction is that of the epoch before: -cos / lr, a scalar.

    cos is the mean of <gradient, direction> over the product of their norms, so that d log lr has no unit, and no size
    that changes by orders over a run. Equation: eq-epoch-cosine. Source: ours, after Baydin et al. (2018)."""
    along, *norms = means[[RECORD.index(name) for name in ("hypergradient", "norm_A", "norm_B")]]
    return along / (torch.stack(norms).norm() * direction.norm() * lr).clamp_min(losses.LEAST)


def train_statenet(state: State, before: State, means: Tensor, controls: Prescribed, net, weight_decay, far=False):
    """The state after one step of StateNet's own AdamW.

    `before` is the state that StateNet acted on, `means` the averages of the records since then; `far` says that the
    direction in it is that of an epoch."""
    c = controls
    weight_gradient = means[[RECORD.index(name) for name in ("slope_1", "slope_2", "alignment")]]
    lr_gradient = means[RECORD.index("hypergradient")] * c.lr_factor
    if far:
        lr_gradient = along_epoch(means, before["update"], before["lr"])
    inputs = state_vector(before)

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

    `step` is the training step, `take` what takes it, and `path` what that is: the step itself (plain), or after
    `hasten` a recording of it. `prescribe` says what each epoch prescribes, where it is not to be the configuration's
    schedules; `pair` is the class of the two VAEs, where they are not to be coupled as in `DualVAE`; `data` are the
    trits (X, n) of what is trained on, where that is not every operation but those held out."""

    def __init__(
        self,
        config: Config,
        device: torch.device | str,
        prescribe: Prescription = prescribe,
        pair: type[DualVAE] = DualVAE,
        data: Tensor | None = None,
    ):
        self.config = config
        self.prescribe = prescribe
        self.device = torch.device(device)
        everything = all_operations() if data is None else data
        self.trits = everything.float().to(self.device)
        self.indicators = one_hot(everything).to(self.device)
        parts = (
            split(config.holdout, stream(config.seed, 0, "split"), config.holdout_by)
            if data is None
            else torch.arange(len(data)).split([len(data), 0])
        )
        self.training, self.held_out = (indices.to(self.device) for indices in parts)
        self.step = Step(config, pair=pair)
        self.take: Callable = self.step
        self.path, self.threads = "plain", config.team
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
        """What is random in an epoch: the operations of its S batches of N, (S, N), and the noise (S, 2, N + K, d).

        The operations are a permutation of the training set, wrapped to whole batches."""
        size, count = self.config.batch_size, len(self.training)
        steps = -(-count // size)
        order = torch.randperm(count, generator=self._stream(epoch, "order"), device=self.device)
        order = order[torch.arange(steps * size, device=self.device) % count].view(steps, size)
        shape = (steps, 2, size + self.config.prior_samples, self.config.latent)
        noise = torch.randn(shape, generator=self._stream(epoch, "noise"), device=self.device)
        return self.training[order], noise

    def batches(self, epoch: int) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        """Every batch of an epoch, trits and indicators, and its noise; in memory the batch is the last axis."""
        chosen, noise = self.drawn(epoch)
        indicators = self.indicators[chosen].movedim(-3, -1).contiguous()
        for parts in zip(self.trits[chosen], indicators.movedim(-1, -3), noise, strict=True):
            yield parts[:2], parts[2]

    def _stream(self, epoch: int, purpose: str) -> torch.Generator:
        return stream(self.config.seed, epoch, purpose, self.device)

    def prescribed(self, epoch: int) -> Prescribed:
        """What the configuration prescribes in an epoch, scalars on the device."""
        return Controls(*torch.tensor(self.prescribe(self.config, epoch), device=self.device).unbind())

    def scheduled(self, state: State, prescribed: Prescribed, epoch: int) -> tuple[State, Prescribed]:
        """The state with rho of the epoch, and the epoch's controls."""
        return schedule(state, epoch, self.config.total_epochs, prescribed)

    def steered(self, state: State, controls: Prescribed) -> tuple[State, Tensor]:
        """The state after StateNet's corrections, and these."""
        return steer(state, controls, self.statenet)

    def taught(self, state: State, before: State, means: Tensor, controls: Prescribed) -> State:
        """The state after StateNet's own training on what came of its corrections to `before`."""
        far = self.config.hypergradient == "epoch"
        return train_statenet(state, before, means, controls, self.statenet, self.config.weight_decay, far)

    def finish(self, state: State, controls: Prescribed, corrections: Tensor, means: Tensor, epoch: int) -> State:
        """After the last batch: the gate set, the epoch's row in the history."""
        ratio = losses.gradient_ratio(state["norms"])
        gate = losses.is_balanced(ratio)
        c, t = controls, schedules.clock(epoch, self.config.total_epochs)
        row = {
            "epoch": means.new_tensor(epoch + 1),
            "phase": means.new_tensor(schedules.phase(t)),
            **{name: getattr(c, name) for name in ("rho", "tau_A", "tau_B", "beta_A", "beta_B", "diversity")},
            "lr": state["lr"] * c.lr_factor,
            **dict(zip(("lambda_1", "lambda_2", "lambda_3"), state["lambdas"], strict=True)),
            **dict(zip(statenet.CORRECTIONS, corrections, strict=True)),
            **dict(zip(RECORD, means, strict=True)),
            "grad_ratio": ratio,
            "gate": gate,
        }
        history = state["history"].clone()
        history[epoch] = torch.stack([row[name] for name in HISTORY]).double()
        return state | {"epoch": state["epoch"] + 1, "gate": gate, "history": history}

    def epoch(self, state: State) -> State:
        """The state after one more epoch, its row of the history filled in.

        StateNet acts before it, and learns after it, or does both at every step; first when there is something to read.
        """
        epoch = int(state["epoch"].max())  # replicas are at the same one
        state, controls = self.scheduled(state, self.prescribed(epoch), epoch)
        each_step = self.config.statenet_acts == "step"
        before, steering = state, epoch > 0
        corrections = torch.zeros_like(state["lambdas"][..., :1]).expand(*state["lambdas"].shape[:-1], 4)
        if steering and not each_step:
            state, corrections = self.steered(state, controls)
        taken = stepped(state)
        total, steps, acted = torch.zeros((), device=self.device), 0, corrections
        with alone() if self.path == "fused" else contextlib.nullcontext():
            for batch, noise in self.batches(epoch):
                if each_step and steering:
                    before = state | taken | {"norms": taken["norms"].clone()}  # a tape may write there again
                    state, corrections = self.steered(before, controls)
                    taken, acted = stepped(state), acted + corrections
                taken, record = self.take(taken, batch, noise, controls)
                total, steps = total + record, steps + 1
                if each_step:
                    state = state | {"averages": record.clone()}
                    state = self.taught(state, before, state["averages"], controls) if steering else state
                    steering = True
        begun = state["theta"]
        state = state | {name: tensor.clone() for name, tensor in taken.items()}  # ordinary tensors, also from a tape
        if self.config.hypergradient == "epoch":
            state["update"] = moved(begun, state["theta"], state["lr"] * controls.lr_factor)
        means = total.clone() / steps
        if each_step:
            corrections = acted / steps
        else:
            state = self.taught(state, before, means, controls) if steering else state
            state = state | {"averages": means}
        return self.finish(state, controls, corrections, means, epoch)

    def hasten(self, state: State) -> None:
        """Take the steps from now on from a recording: on a GPU as a CUDA graph, on a CPU with fused pieces.

        Where Numba is missing a CPU's recording does the operations of the step itself."""
        epoch = int(state["epoch"].max())
        state, controls = self.scheduled(state, self.prescribed(epoch), epoch)
        example = (stepped(state), *next(self.batches(epoch)), controls)
        self.take, self.path = recording.recorded(self.step, example, self.threads)

    def gradient_shares(self, state: State) -> Tensor:
        """How much of the total's gradient each term makes: (11, 2), columns A and B; each column sums to 1.

        The share of term i in the parameters of one pathway is <w_i grad_i, grad> / ||grad||^2, grad the gradient of
        the total there. One batch, with the settings of the epoch that comes next; nothing is changed.
        Equation: eq-share. Source: ours."""
        epoch = min(int(state["epoch"]), self.config.total_epochs - 1)
        state, controls = schedule(state, epoch, self.config.total_epochs, self.prescribed(epoch))
        weights, _ = self.step.weights(state, controls)
        chosen = torch.randperm(len(self.training), generator=self._stream(epoch, "share order"), device=self.device)[
            : self.config.batch_size
        ]
        chosen = self.training[chosen]
        shape = (2, len(chosen) + self.config.prior_samples, self.config.latent)
        noise = torch.randn(shape, generator=self._stream(epoch, "share noise"), device=self.device)
        batch = (self.trits[chosen], self.indicators[chosen])
        given = batch, noise, controls, state.get("memory")
        weighted = lambda theta: weights * self.step.terms(theta, *given)[0]  # noqa: E731
        gradients = torch.func.jacrev(weighted, chunk_size=1)(state["theta"])  # one term at a time, to save memory
        parts = gradients.split(self.step.sizes, dim=1)
        totals = [part.sum(0) for part in parts]
        return torch.stack([part @ g / g.square().sum() for part, g in zip(parts, totals, strict=True)], dim=1)
