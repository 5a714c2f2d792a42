"""pytest reads this one when only notebooks are named; the settings are those of the tests."""

import tests.conftest  # noqa: F401
