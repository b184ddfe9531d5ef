"""Requests that cannot be met: what a command answers in a line, without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Refused", "refusing"]


class Refused(ValueError):
    """What was asked for cannot be; the message says the remedy."""


@contextmanager
def refusing() -> Iterator[None]:
    """A `ValueError` within is about what was asked for: it becomes :class:`Refused`."""
    try:
        yield
    except ValueError as error:
        raise Refused(str(error)) from error
