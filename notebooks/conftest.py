"""pytest reads this one when only notebooks are named; the settings are in tests/."""

import tests.conftest  # noqa: F401
