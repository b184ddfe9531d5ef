"""Choosing, for each layer, whether to project or to sample first.

It knows back ends by their protocol alone (:class:`pixelnet_triton.call.Backend`).
"""

from .choose import chosen_plan, forget_plans, may_keep, plan_for, profile_of
from .cost import CostModel

__all__ = [
    "CostModel",
    "chosen_plan",
    "forget_plans",
    "may_keep",
    "plan_for",
    "profile_of",
]
