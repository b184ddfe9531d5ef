"""How long the fuzz tests look: some hundred examples in CI, thousands when exploring.

    HYPOTHESIS_PROFILE=explore python -m pytest tests/fuzz --timeout 0

draws new examples with every run, without the ten minutes that other tests have. Hypothesis shrinks
what fails, prints it, and keeps it in `.hypothesis/`, where the next run finds it first. Write it
down as an `@example(...)` of the test, so that it stays with the repository.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

__all__ = ["EXPLORING", "examples"]

EXPLORING = os.environ.get("HYPOTHESIS_PROFILE") == "explore"


def examples(quick: int, thorough: int) -> Any:
    """A decorator: so many examples in CI, and so many when exploring."""
    return settings(max_examples=thorough if EXPLORING else quick)
