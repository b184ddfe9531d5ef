"""The sampling functions of detectron2 and mmcv as they are written there, for comparison."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Boxes", "detectron2_fine_grained", "detectron2_point_sample", "mmcv_point_sample"]


def detectron2_point_sample(input: Tensor, point_coords: Tensor, **kwargs: Any) -> Tensor:
    """projects/PointRend/point_rend/point_features.py, word for word."""
    add_dim = False
    if point_coords.dim() == 3:
        add_dim = True
        point_coords = point_coords.unsqueeze(2)
    output = F.grid_sample(input, 2.0 * point_coords - 1.0, **kwargs)
    return output.squeeze(3) if add_dim else output


class Boxes:
    """What is used of detectron2's class: `.tensor`."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def detectron2_fine_grained(
    features_list: list[Tensor],
    feature_scales: list[float],
    boxes: list[Boxes],
    point_coords: Tensor,
) -> tuple[Tensor, Tensor]:
    """point_sample_fine_grained_features of detectron2, with tensors for its helper classes."""
    corners = torch.cat([b.tensor for b in boxes])
    in_image = point_coords.clone()
    for axis in (0, 1):
        extent = corners[:, None, axis + 2] - corners[:, None, axis]
        in_image[:, :, axis] = in_image[:, :, axis] * extent + corners[:, None, axis]
    image_features = []
    for image, points in enumerate(torch.split(in_image, [len(b.tensor) for b in boxes])):
        of_image = []
        for feature, scale in zip(features_list, feature_scales, strict=True):
            height, width = feature.shape[-2:]
            scaled = points / (torch.tensor([width, height]) / scale)
            sampled = detectron2_point_sample(
                feature[image].unsqueeze(0), scaled.unsqueeze(0), align_corners=False
            )
            of_image.append(sampled.squeeze(0).transpose(1, 0))
        image_features.append(torch.cat(of_image, dim=1))
    return torch.cat(image_features, dim=0), in_image


def mmcv_point_sample(
    input: Tensor, points: Tensor, align_corners: bool = False, **kwargs: Any
) -> Tensor:
    """mmcv/ops/point_sample.py, word for word."""
    add_dim = False
    if points.dim() == 3:
        add_dim = True
        points = points.unsqueeze(2)
    output = F.grid_sample(input, points * 2.0 - 1.0, align_corners=align_corners, **kwargs)
    return output.squeeze(3) if add_dim else output
