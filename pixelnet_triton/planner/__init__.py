"""Choosing, for each layer, whether to project or to sample first."""

from .calibration import calibrate
from .choose import PLAN_NAMES, forward_only, must_be_alike, resolve_plan
from .hypercolumn import plan_hypercolumn
from .plan import Plan
from .profiles import DeviceProfile

__all__ = [
    "PLAN_NAMES",
    "DeviceProfile",
    "Plan",
    "calibrate",
    "forward_only",
    "must_be_alike",
    "plan_hypercolumn",
    "resolve_plan",
]
