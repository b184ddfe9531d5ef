"""The metrics of the four tasks; each is imported when it is first asked for.

A metric that needs torchmetrics, SciPy or scikit-image says so only then.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .boundaries import BoundaryMetrics
    from .boundary_counting import BoundaryCounts, boundary_counts
    from .boundary_evaluation import evaluate_boundaries
    from .depth import DepthMetrics
    from .nms import edge_nms
    from .normals import NormalMetrics
    from .segmentation import SegmentationMetrics

__all__ = [
    "BoundaryCounts",
    "BoundaryMetrics",
    "DepthMetrics",
    "NormalMetrics",
    "SegmentationMetrics",
    "boundary_counts",
    "edge_nms",
    "evaluate_boundaries",
]

_MODULES = {
    "BoundaryCounts": "boundary_counting",
    "BoundaryMetrics": "boundaries",
    "DepthMetrics": "depth",
    "NormalMetrics": "normals",
    "SegmentationMetrics": "segmentation",
    "boundary_counts": "boundary_counting",
    "edge_nms": "nms",
    "evaluate_boundaries": "boundary_evaluation",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
