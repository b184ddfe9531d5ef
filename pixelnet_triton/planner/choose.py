"""From the name of a plan and the shapes of a call to the plan itself."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .plan import Plan

__all__ = ["PLAN_NAMES", "resolve_plan"]

PLAN_NAMES = ("auto", "gather", "project", "one_pass", "two_step")


def resolve_plan(name: str, features: Sequence[Tensor], points: int, out_features: int) -> Plan:
    """The plan that `name` (or an encoded plan) stands for at these shapes."""
    if ":" in name:
        return Plan.decode(name)
    layers = len(features)
    if name == "project":
        return Plan(("project_gather",) * layers, "one_pass")
    return Plan(("gather",) * layers, "one_pass" if name == "one_pass" else "two_step")
