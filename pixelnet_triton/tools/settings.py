"""What users set by single values: whole numbers as arguments, switches in the environment."""

from __future__ import annotations

import operator
import os
from typing import Any

__all__ = ["switched_on", "triton_interprets", "whole_number"]


def whole_number(name: str, came: Any, least: int = 1) -> int:
    """Python's integer for that of Python, NumPy or torch; `ValueError` for anything else."""
    try:
        number = operator.index(came)
    except TypeError:
        number = None
    if number is None or isinstance(came, bool) or number < least:
        raise ValueError(f"{name}={came!r}; expected an integer of at least {least}")
    return number


def switched_on(variable: str) -> bool:
    """Is an environment variable 1? Unset, empty and 0 are no; `ValueError` for anything else."""
    came = os.environ.get(variable)
    if came in (None, "", "0", "1"):
        return came == "1"
    raise ValueError(f"{variable}={came!r}; use 1 or 0, or unset it")


def triton_interprets() -> bool:
    """Do Triton's kernels run in its interpreter, by the words that Triton itself goes by?"""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")
