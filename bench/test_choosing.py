"""What choosing a plan costs: for a shape seen before, and for a new one.

pytest bench/test_choosing.py --benchmark-only
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.planning import forget_plans, resolve_plan

MAPS = [torch.randn(1, 8, side, side) for side in (32, 16, 8, 4, 2)]


@pytest.mark.parametrize("kernels", [False, True], ids=["cpu", "gpu"])
def test_seen_before(benchmark: Any, kernels: bool) -> None:
    """Paid by every forward and every backward pass: five layers, key included."""
    benchmark(resolve_plan, "auto", MAPS, 2000, 256, kernels=kernels)


@pytest.mark.parametrize("kernels", [False, True], ids=["cpu", "gpu"])
def test_new_shape(benchmark: Any, kernels: bool) -> None:
    """Paid once per shape; the profile is read again as well."""
    benchmark.pedantic(
        lambda: resolve_plan("auto", MAPS, 2000, 256, kernels=kernels),
        setup=forget_plans,
        rounds=50,
    )
