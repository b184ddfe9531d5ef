"""What is remembered of calls until settings change: as much as training loops meet, not more."""

from __future__ import annotations

from typing import TypeVar

from ..planner import forget_plans

__all__ = ["Memory", "forget_calls"]

_T = TypeVar("_T")
_MOST = 1024
_MEMORIES: list[Memory] = []


class Memory(dict[object, _T]):
    """Values by their key; it is emptied when it is full, and by :func:`forget_calls`."""

    def __init__(self) -> None:
        super().__init__()
        _MEMORIES.append(self)

    def keep(self, key: object, value: _T) -> _T:
        """Remember the value."""
        if len(self) >= _MOST:
            self.clear()
        self[key] = value
        return value


def forget_calls() -> None:
    """Prepare and plan anew from here on, with the profiles and settings that are there now."""
    for memory in _MEMORIES:
        memory.clear()
    forget_plans()
