"""One call, from checked arguments to its result: prepared once, run by one of two doors."""

from .dispatch import backend_for, backend_named
from .known import forget_calls

__all__ = [
    "backend_for",
    "backend_named",
    "forget_calls",
]
