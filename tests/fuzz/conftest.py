"""`make fuzz` makes all of these attempts, from a seed that it prints; `make test` a tenth, always the same."""

import random

import pytest
from attempts import SEED


@pytest.fixture
def dice(request) -> random.Random:
    """Random numbers of a test's own, of the seed that `make fuzz` printed."""
    return random.Random(f"{SEED or 0} {request.node.name}")


def pytest_report_header():
    return f"fuzz seed: {SEED or 'fixed'}"
