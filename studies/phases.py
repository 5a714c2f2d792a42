"""The document's schedules over ten seeds, and what becomes of it under others: chapter 7."""

import math

from studies.study import Study
from studies.variants import EFFORT, FIVE, PHASE_4, STOPS_OF_PHASES, judged
from tvae_lib.system import schedules
from tvae_lib.system.schedules import CLOCK, PHASE_STARTS, temperature_base
from tvae_lib.training.config import Config
from tvae_lib.training.state import Controls, Prescription, prescribe


def ramp(t: float, start: float, end: float) -> float:
    """Where t stands between two times, in [0, 1]."""
    return min(max((t - start) / (end - start), 0.0), 1.0)


def straight_permeability(t: float) -> float:
    """rho as the phases name it, without gate or jump: 0.1, to 0.3 in phase 2, to 0.7 in phase 3, 0.7.
    Equation: eq-straight-rho. Source: ours."""
    return 0.1 + 0.2 * ramp(t, *PHASE_STARTS[1:3]) + 0.4 * ramp(t, *PHASE_STARTS[2:])


def boosted_temperature_A(t: float) -> float:
    """tau_A with an amplitude that grows from 0.1 to 0.5 of its base in phase 4: continuous, at least 0.15.
    Equation: eq-boosted-tau-a. Source: ours."""
    base = temperature_base(t)
    amplitude = (0.1 + 0.4 * ramp(t, PHASE_STARTS[3], CLOCK)) * base
    return base + amplitude * math.cos(2 * math.pi * t / 30 + math.pi / 2)


def boosted_temperature_B(t: float) -> float:
    """tau_B from 0.9 to 0.2 before phase 4, from 0.2 to 0.3 in it.
    Equation: eq-boosted-tau-b. Source: ours."""
    return 0.9 - 0.7 * ramp(t, 30, PHASE_STARTS[3]) + 0.1 * ramp(t, PHASE_STARTS[3], CLOCK)


def cycle(t: float, lag: float, depth: float = 0.3) -> float:
    """A factor on a KL weight that swings by `depth` around 1 with period 30, `lag` radians behind.

    Of two such factors the greater is never below 1 - depth cos(lag / 2), lag their difference.
    Equation: eq-cycle. Source: ours."""
    return 1 - depth * math.cos(2 * math.pi * t / 30 - lag)


def without_boost(config: Config, epoch: int) -> Controls[float]:
    """The document's schedules, with the temperatures going on in phase 4 as before it."""
    taus = (formula(epoch, math.inf) for formula in (schedules.temperature_A, schedules.temperature_B))
    return prescribe(config, epoch)._replace(**dict(zip(("tau_A", "tau_B"), taus, strict=True)))


def released(config: Config, epoch: int, at: int = PHASE_4) -> Controls[float]:
    """The document's schedules, with the coupling taken away in phase 4."""
    given = prescribe(config, epoch)
    return given._replace(phased=False, rho=0.0) if epoch >= at else given


def repaired(config: Config, epoch: int) -> Controls[float]:
    """Schedules that do what the document says of its own: see chapter 7."""
    return prescribe(config, epoch)._replace(
        phased=False,
        rho=straight_permeability(epoch),
        tau_A=boosted_temperature_A(epoch),
        tau_B=boosted_temperature_B(epoch),
        beta_A=schedules.beta_A(epoch) * cycle(epoch, 0.0),
        beta_B=schedules.beta_B(epoch) * cycle(epoch, math.pi),
    )


SCHEDULES: dict[str, Prescription] = {
    "without boost": without_boost,  # these two as the document's until phase 4 starts
    "released": released,
    "repaired": repaired,
}


def phases(schedules=SCHEDULES, seeds=FIVE, stops=STOPS_OF_PHASES, effort=EFFORT, **parameters) -> Study:
    """The preset `document` under other schedules, both decoders judged as they train: phases.csv."""
    cases = [{"schedule": name, "seed": seed} for name in schedules for seed in seeds]
    return judged("phases", cases, stops, effort, prescription=lambda case: schedules[case["schedule"]], **parameters)
