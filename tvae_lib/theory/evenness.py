"""Likelihood against collisions: the distribution at which the two agree, where the data are not even."""

from scipy.optimize import brentq
from torch import Tensor


def compromise(law: Tensor, weight: float) -> Tensor:
    """The distribution p with the least -Σ law log p + weight/2 χ²(p‖U), for data of a law: (M,) -> (M,) float64.

    `weight` is that of the collisions over that of the likelihood, above 0.
    Equation: eq-compromise. Source: ours."""
    law = law.double()
    scale = weight * len(law)
    slack = 1e-6 * (1 + weight)  # of rounding

    def at(level: float) -> Tensor:  # the root of scale p² - level p - law
        size = (level**2 + 4 * scale * law).sqrt()
        return (size + level) / (2 * scale) if level >= 0 else 2 * law / (size - level)

    highest = scale * law.square().sum().item() - 1
    return at(brentq(lambda level: at(level).sum().item() - 1, weight - 1 - slack, highest + slack, xtol=1e-13))
