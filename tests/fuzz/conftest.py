"""`make fuzz` makes all of these attempts, from a seed that it prints; `make test` a tenth, always the same."""

import os
import random

import hypothesis
import pytest

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


@pytest.fixture
def dice(request) -> random.Random:
    """Random numbers of a test's own, of the seed that `make fuzz` printed."""
    return random.Random(f"{SEED or 0} {request.node.name}")


def pytest_report_header():
    return f"fuzz seed: {SEED or 'fixed'}"
