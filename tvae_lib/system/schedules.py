"""What each epoch prescribes: phase, permeability, temperatures, KL weights, learning-rate factor.

Every schedule of the document is a function of its own clock t, which runs from 0 to 400. A run of `total_epochs`
epochs goes through the same clock: t = epoch * 400 / total_epochs."""

import math

from torch import Tensor

CLOCK = 400
PHASE_STARTS = (0, 40, 120, 250)
GATES = ("holds", "falls", "open")  # what rho does in phase 3 after an epoch out of balance
BETA_RANGE = (0.6, 1.0)  # of pathway A, at t = 0 and at t = 400
BETA_RATIO = abs(math.sin(math.pi / 4))


def clock(epoch: int, total_epochs: int) -> float:
    """The document's time t at the start of an epoch: epoch * 400 / total_epochs."""
    return epoch * CLOCK / total_epochs


def phase(t: float) -> int:
    """Phase 1 isolation, 2 consolidation, 3 resonant coupling, 4 ultra-exploration.
    Equation: eq-phases. Source: Foundations, "Four Training Phases"."""
    return sum(t >= start for start in PHASE_STARTS)


def permeability(
    t: float, t_before: float, before: Tensor, gate: Tensor, gated: Tensor | float = 1.0, falls: Tensor | float = 0.0
) -> Tensor:
    """rho at time t, a scalar tensor; `before` and `gate` (0 or 1) are those of the epoch at `t_before`.

    0.1 in phase 1, linear to 0.3 in phase 2. In phase 3 it advances at the rate 0.4/130 after each epoch whose gradient
    ratio was balanced, and else holds; where it `falls` (1, else 0) it is on the straight line from 0.3 to 0.7 after
    such an epoch, and else at 0.3. Not `gated`, every epoch counts as balanced. 0.7 in phase 4, wherever phase 3 ended.
    Equation: eq-permeability. Source: Foundations, "Four Training Phases"."""
    now = phase(t)
    if now == 1:
        return before * 0 + 0.1
    if now == 2:
        return before * 0 + (0.1 + 0.2 * (t - 40) / 80)
    if now == 3:
        if phase(t_before) < 3:
            return before * 0 + 0.3
        rate, opened = 0.4 / 130, 1 - gated * (1 - gate)
        held, fallen = before + opened * (t - t_before) * rate, 0.3 + opened * (t - PHASE_STARTS[2]) * rate
        return held + falls * (fallen - held)
    return before * 0 + 0.7


def temperature_base(t: float) -> float:
    """What tau_A cycles around: a straight line from 1 to 0.3."""
    return 1.0 + (0.3 - 1.0) * t / CLOCK


def temperature_A(t: float, boosted_from: float = PHASE_STARTS[3]) -> float:
    """tau_A: a falling base with a cosine of period 30, wider from phase 4 on; below zero in about 24 epochs of it.
    Equation: eq-tau-a. Source: Foundations, "Temperature Schedules"."""
    base = temperature_base(t)
    amplitude = 0.1 * base if t < boosted_from else 0.5
    return base + amplitude * math.cos(2 * math.pi * t / 30 + math.pi / 2)


def temperature_B(t: float, boosted_from: float = PHASE_STARTS[3]) -> float:
    """tau_B: linear before phase 4, 0.3 in it.
    Equation: eq-tau-b. Source: Foundations, "Temperature Schedules"."""
    return 0.9 + (0.2 - 0.9) * (t - 30) / CLOCK if t < boosted_from else 0.3


def beta_A(t: float, start: float = BETA_RANGE[0], end: float = BETA_RANGE[1]) -> float:
    """beta_A, the KL weight of pathway A: linear from `start` at t = 0 to `end` at t = 400.
    Equation: eq-beta-a. Source: Foundations, "Beta (KL Weight) Schedules"."""
    return start + (end - start) * t / CLOCK


def beta_B(t: float, start: float = BETA_RANGE[0], end: float = BETA_RANGE[1], ratio: float = BETA_RATIO) -> float:
    """beta_B, the KL weight of pathway B: the constant |sin(pi/4)| times beta_A.
    Equation: eq-beta-b. Source: Foundations, "Beta (KL Weight) Schedules"."""
    return ratio * beta_A(t, start, end)


def diversity(t: float, start: float, end: float) -> float:
    """gamma, the weight of the collisions: from `start` at t = 0 to `end` at t = 400, each epoch by the same factor.

    0 where either is. Equation: eq-diversity. Source: ours."""
    return start ** (1 - t / CLOCK) * end ** (t / CLOCK) if start and end else 0.0


def cosine_factor(t: float) -> float:
    """Factor on the learning rate that falls from 1 to 0 over the run along half a cosine (presets `bare`, `repaired`).
    Equation: eq-cosine. Source: ours."""
    return 0.5 * (1 + math.cos(math.pi * t / CLOCK))
