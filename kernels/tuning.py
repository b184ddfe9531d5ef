"""The seam for tuning: a launcher that is not told its configuration may ask somebody.

Kernels know nothing of timing or files. A launcher is marked with the table that it takes its
configuration from and with the arguments that it adds to, and :func:`set_tuner` says whom to ask.
Without a tuner the launcher decides by its own rule.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

__all__ = ["Launch", "set_tuner", "tunable"]


@dataclass(frozen=True)
class Launch:
    """A launch that is about to happen.

    name: of the launcher. arguments: by name, without `config`. table: the configurations to choose
    from. adds_to: the argument that the kernel adds to in place, if it does. function: does it.
    """

    name: str
    arguments: dict[str, Any]
    table: Sequence[Any]
    adds_to: str | None
    function: Callable[..., Any]


Tuner = Callable[[Launch], Any]
Launcher = TypeVar("Launcher", bound=Callable[..., Any])
_tuner: Tuner | None = None


def set_tuner(tuner: Tuner | None) -> None:
    """Whom launchers ask: it returns a configuration of the table, or None for no opinion."""
    global _tuner
    _tuner = tuner


def tunable(table: Sequence[Any], adds_to: str | None = None) -> Callable[[Launcher], Launcher]:
    """Mark a launcher whose last parameter is `config`."""

    def mark(launcher: Launcher) -> Launcher:
        names = list(inspect.signature(launcher).parameters)

        @wraps(launcher)
        def launch(*given: Any, config: Any = None, **named: Any) -> Any:
            if config is None and len(given) < len(names) and _tuner is not None:
                arguments = {**dict(zip(names, given, strict=False)), **named}
                about = Launch(launcher.__name__, arguments, table, adds_to, launcher)
                config = _tuner(about)
            if config is None:
                return launcher(*given, **named)
            return launcher(*given, config=config, **named)

        return cast(Launcher, launch)

    return mark
