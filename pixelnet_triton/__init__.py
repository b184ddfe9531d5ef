"""Sparse hypercolumns for per-pixel prediction: fused sampling and first layer.

>>> from pixelnet_triton import sparse_hypercolumn, HypercolumnLinear
"""

from .calibration import calibrate
from .call import DeviceProfile, Plan
from .functional import sparse_hypercolumn
from .modules import HypercolumnLinear
from .planning import plan_hypercolumn

__all__ = [
    "DeviceProfile",
    "HypercolumnLinear",
    "Plan",
    "calibrate",
    "plan_hypercolumn",
    "sparse_hypercolumn",
]
__version__ = "0.1.0"
