"""How many attempts: all of them under `make fuzz`, else a tenth."""

import os

import hypothesis

SEED = os.environ.get("TVAE_FUZZ")
SCALE = 1.0 if SEED else 0.1
CHECKS = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture]


def attempts(number: int) -> hypothesis.settings:
    """So many examples, or a tenth of them, without a deadline."""
    return hypothesis.settings(
        max_examples=round(number * SCALE),
        deadline=None,
        derandomize=not SEED,
        print_blob=True,
        suppress_health_check=CHECKS,
        database=None,
    )
