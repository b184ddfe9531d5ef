"""Choosing, for each layer, whether to project or to sample first."""

from ..call.plan import Plan
from ..call.profile import DeviceProfile
from .calibration import calibrate
from .choose import PLAN_NAMES, forward_only, must_be_alike, resolve_plan
from .hypercolumn import plan_hypercolumn

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
