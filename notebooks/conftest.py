"""For the notebooks; when only they are named, pytest reads no other."""

import tests.conftest  # noqa: F401


def pytest_collectstart(collector):
    """What libraries say of this machine on stderr is no part of what is shown."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
