"""What planning costs, which is paid once for each kind of call: the profile is read again, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.planning import forget_calls, plan_hypercolumn

MAPS = [torch.randn(1, 8, side, side) for side in (32, 16, 8, 4, 2)]


@pytest.mark.parametrize("profile", [None, "H200"], ids=["cpu", "gpu"])
def test_new_shape(benchmark: Any, profile: str | None) -> None:
    """Five layers."""
    benchmark.pedantic(
        lambda: plan_hypercolumn(MAPS, 2000, 256, profile=profile),
        setup=forget_calls,
        rounds=50,
    )
