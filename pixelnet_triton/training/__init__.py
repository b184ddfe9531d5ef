"""The training recipe of the paper for Lightning: the extra `train`.

>>> from pixelnet_triton.training import PixelNetModule, Segmentation, StepLoader, fit
"""

from .edge_metrics import PixelEdgeMetrics
from .feature_batches import collate_features, predict_features
from .features import CachedFeatures
from .fit import Terminated, fit
from .loader import StepLoader, Transform, derived_seed
from .module import PixelNetModule
from .recipe import EDGE_RECIPE, Recipe, parameter_groups, rate_factor, step_decay
from .tasks import Depth, Edges, Normals, Sampler, Segmentation, Task

__all__ = [
    "EDGE_RECIPE",
    "CachedFeatures",
    "Depth",
    "Edges",
    "Normals",
    "PixelEdgeMetrics",
    "PixelNetModule",
    "Recipe",
    "Sampler",
    "Segmentation",
    "StepLoader",
    "Task",
    "Terminated",
    "Transform",
    "collate_features",
    "derived_seed",
    "fit",
    "parameter_groups",
    "predict_features",
    "rate_factor",
    "step_decay",
]
