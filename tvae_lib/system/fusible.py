"""Pieces of the system that have a faster twin: the plain function teaches, the twin does the same in fewer passes."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar

_twins: ContextVar[Mapping[Callable, Callable]] = ContextVar("twins", default={})  # noqa: B039 - never changed


def fusible(plain: Callable) -> Callable:
    """The function as it is written; where `twins` has another for it, and that can take the arguments, the other."""

    @functools.wraps(plain)
    def either(*arguments):
        twin = _twins.get().get(either)
        result = twin(*arguments) if twin else NotImplemented
        return plain(*arguments) if result is NotImplemented else result

    return either


@contextlib.contextmanager
def twins(of: Mapping[Callable, Callable]) -> Iterator[None]:
    """Inside, each fusible function in `of` is taken by its twin, unless that returns NotImplemented."""
    token = _twins.set(of)
    try:
        yield
    finally:
        _twins.reset(token)
