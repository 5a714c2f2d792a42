"""Where the balance of gradients comes to rest: fixed points of the loop of factors and scaled norms."""

from tvae_lib.system.losses import BALANCE_RANGE


def settled_ratio(raw: float) -> float:
    """The ratio of scaled gradient norms, B over A, at which the balance loop rests if that of the raw ones is `raw`.

    The cube root of it in [1/8, 8]; beyond, where both factors are clipped, a quarter or four times of it.
    Equation: eq-settled. Source: ours."""
    low, high = BALANCE_RANGE
    root = raw ** (1 / 3)
    return root if low <= root <= high else raw * (low / high if raw > 1 else high / low)


def loop_eigenvalue(alpha: float) -> float:
    """What a small error of the log-ratio is multiplied by in a step of the balance loop where nothing is clipped.
    Equation: eq-eigenvalue. Source: ours."""
    return 3 * alpha - 2
