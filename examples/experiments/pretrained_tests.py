"""How runs on a pretrained backbone are tested: at points, on some images or all, in scales."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pixelnet_triton.data import BSDS500, CamVid
from pixelnet_triton.metrics import SegmentationMetrics, edge_nms, evaluate_boundaries
from pixelnet_triton.models import PixelNet
from pixelnet_triton.recipes.ranks import Samples
from pixelnet_triton.sampling import UniformSampler

__all__ = ["evaluate_edges", "evaluate_segmentation"]

POINTS = 600  # of each test image
EVERY_EDGE, EVERY_LABEL = 8, 10  # of the test images, where some of them suffice
THRESHOLDS = {"some": 15, "scales": 15, "all": 99}
ODDS = 10  # by which the odds of an edge are divided, to show what that does to AP
#: What `predict` averages over: the names of the metrics begin with these.
VIEWS: dict[str, dict[str, Any]] = {
    "": {},
    "flip_": {"flip": True},
    "half_": {"scales": (0.5, 1.0)},
    "larger_": {"scales": (1.0, 1.5)},
}


def evaluate_segmentation(
    model: PixelNet, images: Samples, test: str, maps: Samples | None = None
) -> dict[str, Any]:
    """AC, IU and pixel accuracy, and the IU of each class.

    Args:
        model: with eleven classes.
        images: of the test.
        test: as in :class:`examples.experiments.pretrained.Pretrained`.
        maps: their features, where they are kept; for ``"points"``.
    """
    if test == "points":
        return _scores(_at_points(model.eval(), images, maps))
    some = range(0, len(images), 1 if test == "all" else EVERY_LABEL)
    result: dict[str, Any] = {}
    for name, options in _views(test):
        metric = SegmentationMetrics(len(CamVid.CLASSES), class_names=CamVid.CLASSES)
        for index in some:
            sample = images[index]
            prediction = model.predict(sample["image"][None], **options)
            metric.update(prediction, sample["target"][None])
        result |= {name + key: value for key, value in _scores(metric).items()}
        if test == "all":
            result["confusion"] = metric.confusion.tolist()
    return result | {"test_images": len(some)}


def evaluate_edges(model: PixelNet, images: BSDS500, test: str) -> dict[str, Any]:
    """ODS, OIS and AP; of all images the curve too, of those in scales with other odds too."""
    some = range(0, len(images), 1 if test == "all" else EVERY_EDGE)
    annotations = [images.annotations(index) for index in some]
    count = partial(evaluate_boundaries, thresholds=THRESHOLDS[test], workers=1, progress=False)
    result: dict[str, Any] = {"test_images": len(some), "test_thresholds": THRESHOLDS[test]}
    for name, options in _views(test):
        maps = [model.predict(images[index]["image"][None], **options)[0, 0] for index in some]
        start = time.perf_counter()
        scores = count([edge_nms(edges) for edges in maps], annotations)
        result |= {name + key: _rounded(scores[key]) for key in ("ods", "ois", "ap")}
        if test == "all":
            curve = ("thresholds", "precision", "recall")
            result |= {key: [_rounded(v) for v in scores[key]] for key in curve}
            result["counting_seconds"] = round(time.perf_counter() - start)
        if test == "scales" and name == "":
            # Half of the sampled pixels were edges, so that most outputs at edges are nearly 1.
            rarer = [edges / (edges + ODDS * (1 - edges)) for edges in maps]
            scores = count([edge_nms(edges) for edges in rarer], annotations)
            result |= {"odds_" + key: _rounded(scores[key]) for key in ("ods", "ois", "ap")}
    return result


def _views(test: str) -> Sequence[tuple[str, dict[str, Any]]]:
    return list(VIEWS.items()) if test == "scales" else [("", {})]


@torch.no_grad()
def _at_points(model: PixelNet, images: Samples, maps: Samples | None) -> SegmentationMetrics:
    """The metrics of the same pixels in every run."""
    metric = SegmentationMetrics(len(CamVid.CLASSES), class_names=CamVid.CLASSES)
    sampler = UniformSampler(POINTS)
    for index in range(len(images)):
        sample = images[index]
        target = sample["target"][None]
        pixels = sampler(target, generator=torch.Generator().manual_seed(index))
        size = (target.shape[1], target.shape[2])
        if maps is None:
            scores = model(sample["image"][None], pixels.points)
        else:
            kept: Iterable[Tensor] = maps[index]["features"]
            scores = model.head([m[None].float() for m in kept], pixels.points, size)
        # As an image of one row: (1, K, 1, N)
        metric.update(scores.softmax(-1).mT[:, :, None], pixels.take(target, fill=255)[:, None])
    return metric


def _scores(metric: SegmentationMetrics) -> dict[str, Any]:
    return {name: _rounded(value) for name, value in metric.compute().items()}


def _rounded(value: Tensor) -> float:
    return round(float(value), 5)
