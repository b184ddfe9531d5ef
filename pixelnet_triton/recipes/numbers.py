"""What options take as numbers and folders: anything else is refused, by the option's name."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["COUNT", "COUNT_FROM_0", "FACTOR", "FRACTION", "RATE", "SEED", "folder"]


def _number(
    kind: Callable[[str], Any], fits: Callable[[Any], bool], expected: str
) -> Callable[[str], Any]:
    """The type of an option of argparse. NaN fits nothing, as each comparison with it fails."""

    def read(text: str) -> Any:
        value = kind(text)
        if not fits(value):
            raise argparse.ArgumentTypeError(f"{text}; expected {expected}")
        return value

    read.__name__ = str(getattr(kind, "__name__", kind))  # what argparse calls a word that is none
    return read


COUNT = _number(int, lambda n: n >= 1, "an integer of at least 1")
COUNT_FROM_0 = _number(int, lambda n: n >= 0, "an integer of at least 0")
FACTOR = _number(float, lambda x: 0 < x < math.inf, "a positive, finite number")
SEED = _number(int, lambda n: 0 <= n < 2**63, "an integer of at least 0 and below 2**63")
RATE = _number(float, lambda x: 0 <= x < math.inf, "a finite number of at least 0")
FRACTION = _number(float, lambda x: 0 <= x <= 1, "a number in [0, 1]")


def folder(text: str) -> Path:
    """A folder, or the place for one."""
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file; expected a folder, or a new name")
    return Path(text)
