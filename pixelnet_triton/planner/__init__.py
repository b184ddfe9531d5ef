"""Choosing, for each layer, whether to project or to sample first."""

from .calibration import calibrate
from .choose import PLAN_NAMES, circumstances, forward_only, resolve_plan
from .hypercolumn import plan_hypercolumn
from .plan import Plan
from .profiles import DeviceProfile

__all__ = [
    "PLAN_NAMES",
    "DeviceProfile",
    "Plan",
    "calibrate",
    "circumstances",
    "forward_only",
    "plan_hypercolumn",
    "resolve_plan",
]
