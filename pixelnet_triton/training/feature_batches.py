"""Mini-batches in which a frozen backbone's maps take the images' place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..data.resizing import FILL
from ..inference import OUTPUTS, head_at_every_pixel
from ..models import PixelNet
from ..tools.modes import evaluation_mode

__all__ = ["check_frozen", "collate_features", "predict_features"]

Sample = dict[str, Any]


def collate_features(
    samples: Sequence[Sample], strides: Sequence[Any] | None = None
) -> dict[str, Any]:
    """A mini-batch of :class:`~pixelnet_triton.training.CachedFeatures`, of images of any sizes.

    Smaller maps are continued to the right and below by their last cells, so that a point of the
    image sees what it would see beyond the border of the map alone. That takes strides: without,
    points would be placed by the ratio of the padded sizes.

    Args:
        samples: at least one, all of the same kind.
        strides: image pixels per cell of each map, or None.

    Returns:
        ``features``, float32 maps ``(B, C_i, H_i, W_i)``; ``target`` ``(B, H, W)`` or
        ``(B, 3, H, W)``, ignored where it is padded; ``kind`` (one word), and ``name``, a list,
        if the samples have names.

    Raises:
        ValueError: no samples, samples of different kinds, or of different sizes without strides.
    """
    kinds = sorted({sample["kind"] for sample in samples})
    if len(kinds) != 1:
        raise ValueError(f"samples have the kinds {kinds}; expected at least one sample, all alike")
    targets = [sample["target"] for sample in samples]
    sizes = {tuple(target.shape[-2:]) for target in targets}
    if len(sizes) > 1 and strides is None:
        raise ValueError(
            f"samples have the sizes {sorted(sizes)}, and the head has no strides, without which "
            "points cannot be placed on padded maps. Give the backbone a list `strides`, or make "
            "the images of one size"
        )
    batch: dict[str, Any] = {
        "features": [
            _stacked(maps) for maps in zip(*[s["features"] for s in samples], strict=True)
        ],
        "target": _stacked(targets, FILL[kinds[0]]),
        "kind": kinds[0],
    }
    if all("name" in sample for sample in samples):
        batch["name"] = [sample["name"] for sample in samples]
    return batch


def predict_features(
    model: PixelNet,
    features: Sequence[Tensor],
    image_size: tuple[int, int],
    *,
    memory_budget: int = 256 << 20,
) -> Tensor:
    """What ``model.predict(images)`` gives, from the backbone's maps of the images.

    Args:
        model: a PixelNet, whose backbone is not used.
        features: maps ``(B, C_i, H_i, W_i)`` of any floating dtype.
        image_size: (H, W) of the images in pixels.
        memory_budget: as in :meth:`PixelNet.predict`.

    Returns:
        ``(B, K, H, W)``, after the output activation.

    Raises:
        ValueError: maps that do not fit the head.

    Example:
        >>> import torch
        >>> from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
        >>> from pixelnet_triton.training import predict_features
        >>> backbone = VGG16(("conv1_2", "conv3_3"), width=1 / 16)
        >>> head = PixelMLP(backbone.channels, (32,), out_features=3)
        >>> model = PixelNet(backbone, head, output="softmax").eval()
        >>> images = torch.rand(2, 3, 24, 32)
        >>> with torch.no_grad():
        ...     prediction = predict_features(model, model.features(images), (24, 32))
        >>> torch.allclose(prediction, model.predict(images), atol=1e-6)
        True
    """
    weight = model.head.first.weight
    with torch.no_grad(), evaluation_mode(model):
        return torch.stack(
            [
                head_at_every_pixel(
                    model.head,
                    [maps[b : b + 1].to(weight.dtype) for maps in features],
                    image_size,
                    memory_budget=memory_budget,
                    output=None if model.output is None else OUTPUTS[model.output],
                )
                for b in range(features[0].shape[0])
            ]
        )


def check_frozen(model: PixelNet) -> None:
    """Raise unless the features stay what they are while the head is trained."""
    trained = [name for name, p in model.backbone.named_parameters() if p.requires_grad]
    if trained:
        raise ValueError(
            f"model.backbone has {len(trained)} parameters that are trained, the first is "
            f"{trained[0]!r}; features that are kept do not follow them. Call "
            "model.backbone.requires_grad_(False)"
        )


def _stacked(tensors: Sequence[Tensor], fill: int | None = None) -> Tensor:
    """At the upper left of the largest size; beyond it `fill`, or the last row and column."""
    height = max(t.shape[-2] for t in tensors)
    width = max(t.shape[-1] for t in tensors)
    first = tensors[0]
    shape = (len(tensors), *first.shape[:-2], height, width)
    dtype = first.dtype if fill is not None else torch.float32
    if fill is None:
        out = torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)
    else:
        out = torch.full(shape, fill, dtype=dtype)
    for place, tensor in zip(out, tensors, strict=True):
        h, w = tensor.shape[-2:]
        place[..., :h, :w] = tensor
        if fill is None:
            place[..., :h, w:] = place[..., :h, w - 1 : w]
            place[..., h:, :] = place[..., h - 1 : h, :]
    return out
