"""StateNet, the meta-controller that moves the learning rate and the loss weights once an epoch."""

import torch
from torch import Tensor, nn

# What trains it besides the penalty on its corrections, in each mode: the path through lambda, the one through lr.
PATHS = {"off": (0, 0), "detached": (0, 0), "backprop": (1, 0), "hypergradient": (1, 1), "rate": (0, 1)}
MODES = tuple(PATHS)
STATE = ("entropy_A", "entropy_B", "kl_A", "kl_B", "grad_ratio", "rho", "lambda_1", "lambda_2", "lambda_3")
CORRECTIONS = ("delta_lr", "delta_1", "delta_2", "delta_3")
LR_RANGE = (1e-6, 0.01)
ALPHA_LR, ALPHA_LAMBDA = 0.05, 0.01  # sizes of the corrections
LAMBDA_LOW = (0.5, 0.5, 0.15)
LAMBDA_HIGH = (0.95, 0.95, 0.75)


class StateNet(nn.Module):
    """State s (9,) -> corrections (4,) in (-1, 1): 9-32-LayerNorm-Tanh-8, then 8-32-ReLU-4-Tanh.

    1,068 parameters. Source: Dynamics, "StateNet Architecture"."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(9, 32), nn.LayerNorm(32), nn.Tanh(), nn.Linear(32, 8))
        self.decoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4), nn.Tanh())

    def forward(self, state: Tensor) -> Tensor:
        return self.decoder(self.encoder(state))


def update_learning_rate(lr: Tensor, correction: Tensor, alpha_lr: Tensor | float = ALPHA_LR) -> Tensor:
    """lr (1 + alpha_lr Delta_lr), clipped to [1e-6, 0.01]: scalars.
    Equation: eq-lr-update. Source: Dynamics, "Hyperparameter Update Rules"."""
    return (lr * (1 + alpha_lr * correction)).clamp(*LR_RANGE)


def update_weights(weights: Tensor, corrections: Tensor, alpha_lambda: Tensor | float = ALPHA_LAMBDA) -> Tensor:
    """lambda_i + alpha_lambda Delta_i, clipped to [0.5, 0.95], [0.5, 0.95] and [0.15, 0.75]: (3,) -> (3,).
    Equation: eq-lambda-update. Source: Dynamics, "Hyperparameter Update Rules"."""
    low, high = weights.new_tensor(LAMBDA_LOW), weights.new_tensor(LAMBDA_HIGH)
    return torch.minimum(torch.maximum(weights + alpha_lambda * corrections, low), high)


def objective(
    corrections: Tensor,
    weights: Tensor,
    lr: Tensor,
    weight_gradient: Tensor,
    lr_gradient: Tensor,
    paths: tuple,
    penalty: float,
    alpha_lr: Tensor | float = ALPHA_LR,
    alpha_lambda: Tensor | float = ALPHA_LAMBDA,
) -> Tensor:
    """The scalar whose gradient trains StateNet: penalty ||corrections||^2 plus what `paths` let through.

    `weights` (3,) and `lr` are those before the corrections; `weight_gradient` (3,) = dL/dlambda = (g_A L_A, g_B L_B,
    L_align) and `lr_gradient` = dL/dlr = -<g_{t+1}, u_t> (Baydin et al., 2018) are averages over the epoch, constant
    here; see `PATHS`. Equation: eq-statenet-objective. Source: Dynamics, "Training StateNet"."""
    by_weights = torch.dot(weight_gradient, update_weights(weights, corrections[1:], alpha_lambda))
    by_lr = lr_gradient * update_learning_rate(lr, corrections[0], alpha_lr)
    return penalty * corrections.square().sum() + paths[0] * by_weights + paths[1] * by_lr
