"""How many boundary pixels of one image are found, at each threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from . import thinning
from .boundary_matching import correspond_pixels, pixel_tree

__all__ = [
    "BoundaryCounts",
    "as_annotations",
    "as_distance",
    "as_prediction",
    "as_thresholds",
    "boundary_counts",
]

Map = Tensor | NDArray[Any]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Bilinear interpolation with a low-pass filter goes beyond [0, 1] by a few float32 roundings.
ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class BoundaryCounts:
    """Pixels at each of K thresholds, int64 ``(K,)``; recall and precision are their ratios.

    Attributes:
        thresholds: float64 ``(K,)``.
        found: true pixels with a partner, summed over the annotators.
        true: all true pixels, summed over the annotators; the same at every threshold.
        right: predicted pixels that are the partner of at least one annotator's.
        predicted: all predicted pixels.
    """

    thresholds: Floats
    found: Integers
    true: Integers
    right: Integers
    predicted: Integers


def boundary_counts(
    prediction: Map,
    annotations: Sequence[Map] | Map,
    thresholds: int | ArrayLike = 99,
    max_distance: float = 0.0075,
    thin: bool = True,
) -> BoundaryCounts:
    """The counts from which the BSDS500 benchmark computes precision and recall of one image.

    At each threshold t, the map ``prediction >= t`` is thinned to lines one pixel wide and matched
    one to one with the boundaries of each annotator in turn (:mod:`.boundary_matching`). It is
    compared in the prediction's dtype, as torch does; bfloat16 as float32. Recall counts the true
    pixels of all annotators; a predicted pixel is right if any annotator has a partner for it
    (Arbelaez, Maire, Fowlkes, Malik, TPAMI 2011, section 3.1).

    Args:
        prediction: float ``(H, W)`` in [0, 1], or beyond by 1e-5, as interpolation rounds; or bool:
            how likely each pixel is a boundary.
        annotations: bool (or 0 and 1, or uint8 0 and 255 as an image file holds it) ``(H, W)``,
            one for each annotator, one pixel wide.
        thresholds: a number K, for k / (K + 1) with k = 1 ... K, or increasing values in (0, 1].
        max_distance: between matched pixels, as a fraction of the image's diagonal.
        thin: whether to thin. A map that is already thin at every threshold does not need it.

    Returns:
        the counts, at each threshold.

    Raises:
        TypeError: `prediction` is neither floating nor bool, or `annotations` are not maps.
        ValueError: shapes differ, values outside their range or NaN, no annotation.

    Example:
        >>> import torch
        >>> from pixelnet_triton.metrics import boundary_counts
        >>> truth = torch.zeros(100, 100, dtype=torch.bool)
        >>> truth[50] = True
        >>> counts = boundary_counts(0.7 * truth.roll(1, 0).float(), [truth], thresholds=[0.5, 0.9])
        >>> counts.found, counts.true, counts.predicted
        (array([100,   0]), array([100, 100]), array([100,   0]))
    """
    soft = as_prediction(prediction)
    drawn = as_annotations(annotations, soft.shape)
    values = as_thresholds(thresholds)
    reach = as_distance(max_distance) * math.hypot(*soft.shape)
    truth = [pixel_tree(annotation) for annotation in drawn]
    counts = np.zeros((3, len(values)), dtype=np.int64)
    size = 0
    for k, threshold in enumerate(values.astype(soft.dtype)):  # float64 0.7 is above float32 0.7
        boundary = soft >= threshold
        before, size = size, int(boundary.sum())
        if size == 0:
            break  # all higher thresholds have none either
        if size == before:  # a subset of the last map and as large: the same
            counts[:, k] = counts[:, k - 1]
        else:
            counts[:, k] = _count(thinning.thin(boundary) if thin else boundary, truth, reach)
    true = np.full(len(values), sum(tree.n for tree in truth), dtype=np.int64)
    return BoundaryCounts(values, counts[0], true, counts[1], counts[2])


def _count(boundary: Mask, truth: list[Any], reach: float) -> tuple[int, int, int]:
    """How many are found, right and predicted at one threshold."""
    predicted = pixel_tree(boundary)
    right = np.zeros(predicted.n, dtype=bool)
    matched = 0
    for annotator in truth:
        i, j = correspond_pixels(predicted, annotator, reach)
        right[i] = True
        matched += len(j)
    return matched, int(right.sum()), predicted.n


def as_thresholds(thresholds: int | ArrayLike) -> Floats:
    """K or values to values, float64 ``(K,)``."""
    if isinstance(thresholds, Integral) and not isinstance(thresholds, bool):
        count = int(thresholds)
        if count < 1:
            raise ValueError(f"thresholds={thresholds}; expected at least 1, or values in (0, 1]")
        return np.linspace(1 / (count + 1), 1 - 1 / (count + 1), count)
    values = np.asarray(thresholds, dtype=np.float64)
    usable = values.ndim == 1 and len(values) > 0 and values[0] > 0 and values[-1] <= 1
    if not usable or not (np.diff(values) > 0).all():
        raise ValueError(
            f"thresholds={thresholds!r}; expected a number of thresholds, such as 99, or "
            "increasing values in (0, 1]"
        )
    return values


def as_distance(max_distance: float) -> float:
    """Checked."""
    if not (isinstance(max_distance, Real) and 0 < max_distance < math.inf):
        raise ValueError(
            f"max_distance={max_distance!r}; expected a positive fraction of the image's diagonal, "
            "such as 0.0075"
        )
    return float(max_distance)


def as_prediction(prediction: Map) -> NDArray[np.floating[Any]]:
    """Checked, as ``(H, W)`` of its own dtype; float64 for bool, float32 for bfloat16."""
    soft = _as_array(prediction, "prediction")
    if soft.ndim != 2 or soft.size == 0:
        raise ValueError(
            f"prediction has shape {soft.shape}; expected the map of one image, (H, W). Pass the "
            "images of a batch one by one, and prediction[0] for one channel"
        )
    if soft.dtype != bool and not np.issubdtype(soft.dtype, np.floating):
        raise TypeError(
            f"prediction is {soft.dtype}; expected float in [0, 1], or bool. Divide an 8-bit map "
            "by 255.0"
        )
    low, high = float(soft.min()), float(soft.max())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # this form refuses NaN too
        raise ValueError(
            f"prediction ranges over [{low:.6g}, {high:.6g}]; expected [0, 1] without NaN. Apply "
            "the sigmoid to scores, or divide by the maximum over the whole data set"
        )
    return soft.astype(np.float64) if soft.dtype == bool else soft


def as_annotations(annotations: Sequence[Map] | Map, shape: tuple[int, ...]) -> list[Mask]:
    """Checked, as bool ``(H, W)`` each."""
    try:
        count = len(annotations)
    except TypeError:  # None, or what can be read only once
        raise TypeError(
            f"annotations is a {type(annotations).__name__}; expected a list of boundaries (H, W), "
            "one for each annotator. Make one with list(...), or [annotation]"
        ) from None
    if count == 0:
        raise ValueError(
            "annotations is empty; expected the boundaries of at least one annotator, (H, W) each"
        )
    checked = []
    for index, annotation in enumerate(annotations):
        array = _as_array(annotation, f"annotations[{index}]")
        if array.shape != shape:
            raise ValueError(
                f"annotations[{index}] has shape {array.shape} but prediction {shape}; expected "
                "the same. Resize the prediction, not the annotations, and pass a single "
                "annotation as [annotation]"
            )
        mask = array.astype(bool)
        drawn = 255 if array.dtype == np.uint8 and array.max() == 255 else 1
        if array.dtype != bool and not (array == drawn * mask.astype(array.dtype)).all():
            raise ValueError(
                f"annotations[{index}] is {array.dtype} with values other than 0 and 1: "
                f"{np.unique(array)[:10].tolist()}; boundaries are either there or not. Pass what "
                "each annotator drew, not a consensus with ignored pixels; where 255 is an edge, "
                "as in an image file, pass uint8, or annotation == 255"
            )
        checked.append(mask)
    return checked


def _as_array(values: Map, name: str) -> NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if isinstance(values, np.ndarray):
        return values
    raise TypeError(
        f"{name} is a {type(values).__name__}; expected a torch.Tensor or numpy.ndarray (H, W)"
    )
