"""The boundary benchmark of BSDS500 for a trained network: predict, thin, match, score."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from pixelnet_triton.data import BSDS500
from pixelnet_triton.metrics import edge_nms, evaluate_boundaries
from pixelnet_triton.models import PixelNet

__all__ = ["boundary_scores"]


def boundary_scores(
    model: PixelNet,
    folder: Path,
    *,
    scale: float = 1.0,
    images: int | None = None,
    thresholds: int = 99,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """ODS, OIS and AP on the test images, after non-maximum suppression.

    Args:
        model: with ``output="sigmoid"``, on any device.
        folder: of BSDS500.
        scale: at which images are predicted. The maps are resized to the images' full size,
            where the annotations are, before they are suppressed and matched.
        images: the first so many of the 200; None takes all.
        thresholds, workers: as in :func:`pixelnet_triton.metrics.evaluate_boundaries`.
        progress: show bars.
    """
    test = BSDS500(folder, "test")
    indices = range(len(test) if images is None else min(images, len(test)))
    bar = tqdm(indices, "prediction", unit="image", leave=False, disable=not progress)
    maps = [_edge_map(model, test[index]["image"], scale) for index in bar]
    scores = evaluate_boundaries(
        maps,
        [test.annotations(index) for index in indices],
        thresholds=thresholds,
        workers=workers,
        progress=progress,
    )
    return {name: float(scores[name]) for name in ("ods", "ois", "ap")}


def _edge_map(model: PixelNet, image: Tensor, scale: float) -> Tensor:
    """(H, W) in [0, 1], thin."""
    size = (image.shape[1], image.shape[2])
    small = (round(size[0] * scale), round(size[1] * scale))
    device = next(model.parameters()).device
    resized = F.interpolate(
        image[None].to(device), small, mode="bilinear", align_corners=False, antialias=scale < 1
    )
    edges = F.interpolate(model.predict(resized), size, mode="bilinear", align_corners=False)
    return edge_nms(edges[0, 0].cpu())
