"""The nouns of a call, which everything above passes on: torch is all they need."""

from .backend import Backend, DenseLayer, Executor
from .geometry import Geometry, LayerAffine, Stride, layer_geometry
from .linear import Gradients, Linear, Wanted
from .options import ImageSize, Options
from .plan import MODES, PLAN_NAMES, STRATEGIES, Plan
from .profile import DeviceProfile
from .route import Route
from .sampling import Sampling
from .shape import CallShape, LayerShape
from .work import PlanWork, Work

__all__ = [
    "MODES",
    "PLAN_NAMES",
    "STRATEGIES",
    "Backend",
    "CallShape",
    "DenseLayer",
    "DeviceProfile",
    "Executor",
    "Geometry",
    "Gradients",
    "ImageSize",
    "LayerAffine",
    "LayerShape",
    "Linear",
    "Options",
    "Plan",
    "PlanWork",
    "Route",
    "Sampling",
    "Stride",
    "Wanted",
    "Work",
    "layer_geometry",
]
