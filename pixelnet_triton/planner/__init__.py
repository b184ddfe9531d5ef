"""Choosing, for each layer, whether to project or to sample first."""

from .choose import PLAN_NAMES, resolve_plan
from .plan import Plan

__all__ = ["PLAN_NAMES", "Plan", "resolve_plan"]
