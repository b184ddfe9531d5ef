"""Images that share one memory, as `expand` makes them, are one image with the points of all.

    S_b X = S_b X_1 for each image b        dX_1 = sum over b of  S_b^T G_b,  summed as it is made

Otherwise the map would be read as B maps, and its gradient be B maps, which `expand` adds up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..call.checks import check_values

__all__ = ["as_one_image"]


def as_one_image(
    features: Sequence[Tensor], points: Tensor, batch_index: Tensor | None
) -> tuple[list[Tensor], Tensor] | None:
    """One image (1, C_i, H_i, W_i) of each map and points (1, P, 2); None if images differ.

    The call has passed the checks, and each map repeats one image (`Prepared.repeated`).
    """
    images = []
    for feature in features:
        image = _image(feature) if type(feature) is Tensor else None
        if image is None:
            return None
        images.append(image)
    if batch_index is None:
        return images, points.flatten(0, 1)[None]
    if not points.is_cpu:  # indices out of range cannot be seen
        return None
    check_values(points, batch_index, features[0].shape[0])
    return images, points[None]


def _image(feature: Tensor) -> Tensor | None:
    """What a map (B, C, H, W) repeats, (1, C, H, W); None if its images get gradients of their own.

    The slice `feature[:1]` would send a gradient of B images back. What the map is a view of gets
    that of one, where it is just that image, and `expand` alone lies between: no hook, nor a
    function that returns its argument, such as one that turns gradients about.
    """
    if not (feature.requires_grad and torch.is_grad_enabled()):
        return feature[:1]
    image, step = feature._base, feature.grad_fn
    if image is None or step is None or step.name() != "ExpandBackward0":
        return None
    before = step.next_functions[0][0]
    is_leaf = image.grad_fn is None
    if not (getattr(before, "variable", None) is image if is_leaf else before is image.grad_fn):
        return None
    if not image.requires_grad or feature.retains_grad or feature._backward_hooks:
        return None
    if image.dim() == 3:
        image = image[None]
    return image if image.shape == (1, *feature.shape[1:]) else None
