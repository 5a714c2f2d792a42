"""The system as such things are usually written: the yardstick of the benchmarks, and nothing else.

A DataLoader, modules and torch.optim, every loss term straight from its formula, `.item()` for the log in each step,
gradient norms parameter by parameter, StateNet updated in each epoch, coverage through a Python set of tuples. The
equations are the library's; tests hold the library to a transcription like this one."""

import math

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tvae_lib.operations import all_operations
from tvae_lib.system import schedules
from tvae_lib.system.dual import DualVAE
from tvae_lib.system.losses import BIN_WIDTH, BINS, REACH
from tvae_lib.system.statenet import StateNet, update_learning_rate, update_weights


def entropy(z: torch.Tensor) -> torch.Tensor:
    """Soft-histogram entropy of the codes, straight from equation eq-soft-entropy."""
    centres = torch.linspace(-REACH + BIN_WIDTH / 2, REACH - BIN_WIDTH / 2, BINS, device=z.device)
    kernel = torch.exp(-((z.unsqueeze(-1) - centres) ** 2) / (2 * BIN_WIDTH**2))
    p = kernel.sum(0) / kernel.sum((0, 2)).unsqueeze(-1)
    return -(p * torch.log(p / BIN_WIDTH + 1e-20)).sum()


@torch.no_grad()
def counted_entropy(z: torch.Tensor) -> torch.Tensor:
    """Histogram entropy of the codes, straight from equation eq-entropy."""
    total = torch.zeros(())
    for column in z.T.cpu():
        p = torch.histc(column, BINS, -REACH, REACH)
        p = p[p > 0] / p.sum()
        total = total - (p * torch.log(p / BIN_WIDTH)).sum()
    return total


def repulsion(z: torch.Tensor) -> torch.Tensor:
    """Mean repulsion kernel of the codes, straight from equation eq-repulsion."""
    distances = ((z.unsqueeze(0) - z.unsqueeze(1)) ** 2).sum(-1)
    return torch.exp(-distances / (2 * 0.5**2)).mean()


def norm_of_gradients(module: nn.Module) -> float:
    return math.sqrt(sum(p.grad.norm().item() ** 2 for p in module.parameters()))


@torch.no_grad()
def coverage(decoder: nn.Module, draws: int, batch: int = 1000) -> float:
    """Share of the operations among the draws, collected in a set of tuples."""
    seen, device = set(), next(decoder.parameters()).device
    for _ in range(draws // batch):
        p = torch.softmax(decoder(torch.randn(batch, 16, device=device)), dim=-1)
        trits = torch.distributions.Categorical(p).sample() - 1
        seen.update(tuple(row) for row in trits.tolist())
    return len(seen) / 3**9


def terms_of(model: DualVAE, x: torch.Tensor, rho, taus, betas) -> dict[str, torch.Tensor]:
    """The losses of both pathways on a batch, and what the log shows of them."""
    classes, (tau_A, tau_B), (beta_A, beta_B) = (x + 1).long(), taus, betas
    (mu_A, log_A), (mu_B, log_B) = model.A.encoder(x), model.B.encoder(x)
    z_A = mu_A + tau_A * torch.exp(0.5 * log_A) * torch.randn_like(mu_A)
    z_B = mu_B + tau_B * torch.exp(0.5 * log_B) * torch.randn_like(mu_B)
    logits_A = model.A.decoder((1 - rho) * z_A + rho * z_B.detach())
    logits_B = model.B.decoder((1 - rho) * z_B + rho * z_A.detach())
    ce_A = nn.functional.cross_entropy(logits_A.flatten(0, 1), classes.flatten(), reduction="sum") / len(x)
    ce_B = nn.functional.cross_entropy(logits_B.flatten(0, 1), classes.flatten(), reduction="sum") / len(x)
    kl_A = -0.5 * (1 + log_A - mu_A**2 - log_A.exp()).sum(1).mean()
    kl_B = -0.5 * (1 + log_B - mu_B**2 - log_B.exp()).sum(1).mean()
    mean = torch.softmax(logits_B, -1).mean(0)
    output_entropy = -(mean * torch.log(mean + 1e-20)).sum()
    loss_A = ce_A + beta_A * kl_A
    loss_B = ce_B + beta_B * kl_B - 0.05 * output_entropy + 0.01 * repulsion(z_B)
    shown = {"loss_A": loss_A, "loss_B": loss_B, "ce_A": ce_A, "ce_B": ce_B, "kl_A": kl_A, "kl_B": kl_B}
    return shown | {"entropy_A": counted_entropy(z_A), "entropy_B": counted_entropy(z_B)}


def steer(controller: StateNet, state: list[float], lambdas: torch.Tensor, lr: torch.Tensor):
    """StateNet's corrections, and the weights and the learning rate that they give."""
    corrections = controller(torch.tensor([*state, *lambdas.tolist()]))
    lr = update_learning_rate(lr, corrections[0]).detach()
    return corrections, update_weights(lambdas, corrections[1:]).detach(), lr


def teach(optimiser, averages: dict[str, float], lambdas: torch.Tensor, corrections: torch.Tensor) -> None:
    """A step of StateNet's own optimiser, on the epoch's averages."""
    slopes = torch.tensor([averages[name] for name in ("slope_1", "slope_2", "alignment")])
    steered = torch.dot(slopes, update_weights(lambdas, corrections[1:]))
    optimiser.zero_grad()
    (steered + corrections.square().sum()).backward()
    optimiser.step()


def train(
    epochs: int, batch_size: int, evaluate_every: int, draws: int = 195_000, total: int = 400, device="cpu"
) -> list[dict]:
    """Train the preset `document` for some epochs of its schedule; one dictionary of averages an epoch."""
    model, controller = DualVAE().to(device), StateNet()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    controller_optimiser = torch.optim.AdamW(controller.parameters(), lr=1e-3, weight_decay=1e-4)
    loader = DataLoader(TensorDataset(all_operations().float()), batch_size=batch_size, shuffle=True)
    lambdas, lr, rho, gate = torch.tensor([0.7, 0.7, 0.3]), torch.tensor(1e-3), torch.tensor(0.0), 0.0
    norm_A, norm_B, history = None, None, []
    for epoch in range(epochs):
        t, before = schedules.clock(epoch, total), schedules.clock(epoch - 1, total)
        rho = schedules.permeability(t, before, rho, torch.tensor(gate))
        tau_A, tau_B = schedules.temperature_A(t), schedules.temperature_B(t)
        beta_A, beta_B = schedules.beta_A(t), schedules.beta_B(t)
        corrections, old_lambdas = None, lambdas
        if history:
            last = history[-1]
            state = [last["entropy_A"], last["entropy_B"], last["kl_A"], last["kl_B"], norm_B / norm_A, rho.item()]
            corrections, lambdas, lr = steer(controller, state, lambdas, lr)
            for group in optimiser.param_groups:
                group["lr"] = lr.item()
        sums: dict[str, float] = {}
        for (x,) in loader:
            x = x.to(device)
            terms = terms_of(model, x, rho, (tau_A, tau_B), (beta_A, beta_B))
            alignment = (terms["entropy_A"] - terms["entropy_B"]).abs()
            ratio = 1.0 if norm_A is None else norm_B / norm_A
            g_A, g_B = min(max(ratio, 0.5), 2.0), min(max(1 / ratio, 0.5), 2.0)
            loss = lambdas[0] * g_A * terms["loss_A"] + lambdas[1] * g_B * terms["loss_B"] + lambdas[2] * alignment
            optimiser.zero_grad()
            loss.backward()
            new_A, new_B = norm_of_gradients(model.A), norm_of_gradients(model.B)
            alpha = 0.95 if 0.8 < ratio < 1.2 else 0.9
            norm_A = new_A if norm_A is None else alpha * norm_A + (1 - alpha) * new_A
            norm_B = new_B if norm_B is None else alpha * norm_B + (1 - alpha) * new_B
            optimiser.step()
            slopes = {"slope_1": g_A * terms["loss_A"], "slope_2": g_B * terms["loss_B"]}
            for name, value in {"loss": loss, **terms, "alignment": alignment, **slopes}.items():
                sums[name] = sums.get(name, 0.0) + value.item()
        history.append({name: value / len(loader) for name, value in sums.items()})
        gate = float(0.8 < norm_B / norm_A < 1.2)
        if corrections is not None:
            teach(controller_optimiser, history[-1], old_lambdas, corrections)
        if evaluate_every and epoch % evaluate_every == 0:
            history[-1]["coverage_A"] = coverage(model.A.decoder, draws)
            history[-1]["coverage_B"] = coverage(model.B.decoder, draws)
    return history
