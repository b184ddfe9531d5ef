"""What `patch` puts under which names, with the signatures that functions have in each package.

Each replacement asks whether the library serves a call as the original does (`_serves`), and hands
everything else on to the original.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from .point_sample import point_features, point_sample, point_sample_fine_grained_features

__all__ = ["PACKAGES", "Function", "Target"]

Function = Callable[..., Any]


@dataclass(frozen=True)
class Target:
    """A function that is replaced: `name` in `module`, a method if the name has a dot.

    parameters: their names, which its signature must have. replace: the replacement, made from the
    original. trial: a small call of either; None if that takes objects of the package.
    """

    module: str
    name: str
    parameters: tuple[str, ...]
    replace: Callable[[Function], Function]
    trial: Callable[[Function], Tensor] | None

    def owner(self) -> Any:
        """The module or class that holds it."""
        module = importlib.import_module(self.module)
        holder, dot, _ = self.name.rpartition(".")
        return getattr(module, holder) if dot else module

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    @property
    def attribute(self) -> str:
        return self.name.rpartition(".")[2]


def _of_detectron2(original: Function) -> Function:
    @wraps(original)
    def replacement(input: Tensor, point_coords: Tensor, **kwargs: Any) -> Any:
        if not _serves([input], point_coords, **kwargs):
            return original(input, point_coords, **kwargs)
        return point_sample(input, point_coords, **kwargs).contiguous()

    return replacement


def _of_mmcv(original: Function) -> Function:
    @wraps(original)
    def replacement(
        input: Tensor, points: Tensor, align_corners: bool = False, **kwargs: Any
    ) -> Any:
        if not _serves([input], points, **kwargs):
            return original(input, points, align_corners, **kwargs)
        return point_sample(input, points, align_corners, **kwargs).contiguous()

    return replacement


def _of_transformers(original: Function) -> Function:
    @wraps(original)
    def replacement(
        input_features: Tensor, point_coordinates: Tensor, add_dim: bool = False, **kwargs: Any
    ) -> Any:
        if add_dim or not _serves([input_features], point_coordinates, **kwargs):
            return original(input_features, point_coordinates, add_dim, **kwargs)
        return point_sample(input_features, point_coordinates, **kwargs).contiguous()

    return replacement


def _of_mmseg(original: Function) -> Function:
    @wraps(original)
    def replacement(self: Any, x: Sequence[Tensor], points: Tensor) -> Any:
        if not _serves(x, points):
            return original(self, x, points)
        return point_features(x, points, self.align_corners).contiguous()

    return replacement


def _fine_grained(original: Function) -> Function:
    @wraps(original)
    def replacement(
        features_list: Sequence[Tensor], feature_scales: Any, boxes: Any, point_coords: Tensor
    ) -> Any:
        if not _serves(features_list, point_coords, of_images=False):
            return original(features_list, feature_scales, boxes, point_coords)
        sampled, in_image = point_sample_fine_grained_features(
            features_list, feature_scales, boxes, point_coords
        )
        return sampled.contiguous(), in_image

    return replacement


def _serves(
    features: Sequence[Any],
    points: Any,
    *,
    of_images: bool = True,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
    **unknown: Any,
) -> bool:
    """Does the library do what the original does? `of_images`: each has its points, as (N, ...)."""
    if unknown or mode != "bilinear" or padding_mode not in ("zeros", "border"):
        return False
    # torch 2.6 has no is_exporting, and bool() is False
    if torch.jit.is_tracing() or getattr(torch.compiler, "is_exporting", bool)():
        return False
    if not features or any(type(t) not in (Tensor, nn.Parameter) for t in (*features, points)):
        return False
    if points.dtype not in (torch.float32, torch.float64) or points.device.type not in _DEVICES:
        return False
    return all(
        feature.dim() == 4
        and 0 not in feature.shape[1:]
        and feature.device == points.device
        and (feature.shape[0] == points.shape[0] or not of_images)
        and feature.is_floating_point()
        and (feature.dtype != torch.float64 or feature.is_cpu)
        for feature in features
    )


_DEVICES = ("cpu", "cuda")


def _try_one_map(function: Function) -> Tensor:
    feature, points = _trial_tensors()
    return function(feature, points, align_corners=False)


def _try_head(method: Function) -> Tensor:
    feature, points = _trial_tensors()
    return method(SimpleNamespace(align_corners=False), [feature, feature[..., :1]], points)


def _trial_tensors() -> tuple[Tensor, Tensor]:
    """A map (1, 1, 2, 3) and points (1, 3, 2) in it, near its edge and outside."""
    feature = torch.arange(6, dtype=torch.float32, device="cpu").reshape(1, 1, 2, 3)
    points = [[[0.3, 0.6], [0.95, 0.1], [1.4, 0.5]]]
    return feature, torch.tensor(points, dtype=torch.float32, device="cpu")


_POINT_FEATURES = "detectron2.projects.point_rend.point_features"
_MMCV = (
    Target(
        "mmcv.ops.point_sample",
        "point_sample",
        ("input", "points", "align_corners", "**kwargs"),
        _of_mmcv,
        _try_one_map,
    ),
)
PACKAGES: dict[str, tuple[Target, ...]] = {
    "detectron2": (
        Target(
            _POINT_FEATURES,
            "point_sample",
            ("input", "point_coords", "**kwargs"),
            _of_detectron2,
            _try_one_map,
        ),
        Target(
            _POINT_FEATURES,
            "point_sample_fine_grained_features",
            ("features_list", "feature_scales", "boxes", "point_coords"),
            _fine_grained,
            None,
        ),
    ),
    "mmcv": _MMCV,
    "mmseg": (
        *_MMCV,
        Target(
            "mmseg.models.decode_heads.point_head",
            "PointHead._get_fine_grained_point_feats",
            ("self", "x", "points"),
            _of_mmseg,
            _try_head,
        ),
    ),
    "transformers": tuple(
        Target(
            f"transformers.{module}",
            "sample_point",
            ("input_features", "point_coordinates", "add_dim", "**kwargs"),
            _of_transformers,
            _try_one_map,
        )
        for module in (
            "models.mask2former.modeling_mask2former",
            "models.oneformer.modeling_oneformer",
            "models.eomt.modeling_eomt",
            "models.eomt_dinov3.modeling_eomt_dinov3",
            "models.videomt.modeling_videomt",
            "loss.loss_rf_detr",
        )
    ),
}
