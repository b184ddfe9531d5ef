"""The public function over the kernels: values and all gradients, every kind of call and plan."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pixelnet_triton import Plan

from ..cases import CASES, DTYPE_CASES, Case, case_id
from ..check import check_case


def _mixed(*strategies: str, mode: str) -> Callable[[int], Plan]:
    return lambda layers: Plan(tuple(strategies[i % len(strategies)] for i in range(layers)), mode)


PLANS: dict[str, Callable[[int], str | Plan]] = {
    "one_pass": lambda layers: "one_pass",
    "two_step": lambda layers: "two_step",
    "project": lambda layers: "project",
    "mixed": _mixed("gather", "project", mode="one_pass"),
    "mixed_two_step": _mixed("project", "gather", mode="two_step"),
}
KERNEL_CASES = [case for case in CASES + DTYPE_CASES if case.dtype != torch.float64]


def _combinations() -> list[tuple[Case, str]]:
    """Each case with two of the plans in turn; without a weight there is nothing to plan."""
    names = list(PLANS)
    combinations = []
    for k, case in enumerate(KERNEL_CASES):
        if case.out_features is None:
            combinations.append((case, "one_pass"))
            continue
        combinations += [(case, names[k % len(names)]), (case, names[(k + 3) % len(names)])]
    return combinations


@pytest.mark.parametrize(
    ("case", "plan"),
    [pytest.param(case, plan, id=f"{case_id(case)}-{plan}") for case, plan in _combinations()],
)
def test_values_and_gradients(case: Case, plan: str) -> None:
    check_case(case, plan=PLANS[plan](len(case.layers)))
