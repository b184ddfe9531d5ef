"""What can be wrong with a sampler, a draw, or a target, said before anything is drawn.

Metadata only, so that nothing waits for a GPU; class ids are looked at on the CPU.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..tools.values import values_at_hand

__all__ = [
    "check_classes",
    "check_draw",
    "check_score",
    "check_settings",
    "check_take",
    "indexable",
    "valid_pixels",
]

ORDERS = (None, "rows", "morton")
# torch stores these, but neither gathers nor compares them in order.
STORED_ONLY = (torch.uint16, torch.uint32, torch.uint64)


def check_settings(sampler: Any) -> None:
    """Raise unless every setting of a sampler can be served."""
    for name in ("n", "per_cell", "num_classes"):
        value = getattr(sampler, name, 1)
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name}={value!r} is a {type(value).__name__}; expected an int")
        if value < 1:
            raise ValueError(f"{name}={value} draws nothing; expected at least 1")
    for name in ("positive_fraction", "important"):
        value = getattr(sampler, name, 0.0)
        if not 0 <= _number(value) <= 1:
            raise ValueError(f"{name}={value!r} is no fraction; expected a number in [0, 1]")
    oversample = getattr(sampler, "oversample", 1)
    if not 1 <= _number(oversample) < math.inf:
        raise ValueError(
            f"oversample={oversample!r} is no number of candidates for each pixel; expected a "
            "finite number of at least 1"
        )
    if sampler.order not in ORDERS:
        raise ValueError(f"order={sampler.order!r} is unknown; use one of {ORDERS}")


def _number(value: Any) -> float:
    """NaN for what is no number, which is in no range."""
    return float(value) if isinstance(value, Real) else math.nan


def check_draw(
    labels: Tensor | None, valid: Tensor | None, generator: torch.Generator | None
) -> None:
    """Raise unless labels or mask say which pixels may be drawn, and the generator fits."""
    given = [(name, t) for name, t in (("labels", labels), ("valid", valid)) if t is not None]
    if not given:
        raise TypeError("neither labels nor valid was given; pass labels (B, H, W), or valid=mask")
    for name, tensor in given:
        _check_tensor(name, tensor)
        if tensor.dim() != 3 or 0 in tensor.shape[1:]:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}; expected (B, H, W) with at least one "
                "pixel. For targets (B, K, H, W) pass their mask alone, as valid=mask"
            )
    if valid is not None and valid.dtype != torch.bool:
        raise TypeError(f"valid is {valid.dtype}; expected bool. Compare it, such as depth > 0")
    if labels is not None and valid is not None and labels.shape != valid.shape:
        raise ValueError(
            f"valid has shape {tuple(valid.shape)} but labels {tuple(labels.shape)}; expected the "
            "same pixels"
        )
    if labels is not None and valid is None and labels.is_floating_point():
        raise TypeError(
            f"labels is {labels.dtype}, which has no ignore_index; say which pixels may be drawn "
            "with valid=mask, or convert labels with .long()"
        )
    device = given[0][1].device
    if any(tensor.device != device for _, tensor in given):
        raise ValueError("labels and valid are on different devices; move one with .to(...)")
    if generator is not None and generator.device.type != device.type:
        raise ValueError(
            f"generator is on {generator.device} but the labels are on {device}; make it with "
            f"torch.Generator(device={str(device)!r})"
        )


def valid_pixels(labels: Tensor | None, valid: Tensor | None, ignore_index: int | None) -> Tensor:
    """``(B, H, W)`` bool: pixels in the mask whose label is not `ignore_index`."""
    if labels is None:
        assert valid is not None  # check_draw
        return valid
    if (
        labels.dtype == torch.bool  # both of its values are labels
        or labels.is_floating_point()
        or ignore_index is None
        or not _representable(ignore_index, labels.dtype)
    ):
        return torch.ones_like(labels, dtype=torch.bool) if valid is None else valid
    known = labels.ne(ignore_index)
    return known if valid is None else known & valid


def _representable(value: float, dtype: torch.dtype) -> bool:
    """Whether bool or an integer dtype has a value: uint8 != -100 would compare with 156."""
    if not float(value).is_integer():
        return False
    if dtype == torch.bool:
        return value in (0, 1)
    return torch.iinfo(dtype).min <= value <= torch.iinfo(dtype).max


def _check_tensor(name: str, values: Any) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(
            f"{name} is a {type(values).__name__}; expected a tensor. Convert it with "
            f"torch.as_tensor({name})"
        )


def check_classes(
    sampler: Any, labels: Tensor | None, valid: Tensor | None = None, num_classes: int = 0
) -> Tensor:
    """The labels of a sampler that goes by them; raise where they are no class ids.

    With `num_classes`, ids at valid pixels are compared with it on the CPU. On a GPU that would
    wait for the device; there, indexing by an id out of range fails an assertion of PyTorch's,
    unless ``PIXELNET_TRITON_STRICT=1`` asks for the comparison.
    """
    name = type(sampler).__name__
    if labels is None or labels.is_floating_point():
        came = "None" if labels is None else str(labels.dtype)
        raise TypeError(
            f"labels is {came}; {name} draws by class and expects integer labels (B, H, W)"
        )
    labels = indexable(labels)
    positive = getattr(sampler, "positive", 0)
    if not _representable(positive, labels.dtype):
        raise ValueError(
            f"labels is {labels.dtype}, which cannot hold positive={positive!r}: no pixel would be "
            "positive, or those of another label. Pass the label of positives, or convert labels "
            "with .long()"
        )
    if num_classes and valid is not None and values_at_hand(labels):
        wrong = valid & ((labels < 0) | (labels >= num_classes))
        if bool(wrong.any()):
            at = int(labels[wrong][0])
            raise ValueError(
                f"labels has the class {at}; expected ids in [0, num_classes={num_classes}) or "
                f"ignore_index={sampler.ignore_index}. Raise num_classes, or map the labels"
            )
    return labels


def indexable(target: Tensor) -> Tensor:
    """A target as it is, or as int64 where torch only stores its dtype."""
    return target.long() if target.dtype in STORED_ONLY else target


def check_take(
    target: Tensor,
    points: Tensor,
    image_size: tuple[int, int] | None,
    fill: float | None,
    ignore_index: int | None,
) -> float:
    """The value for points that are not valid; raise unless the target has the points' pixels."""
    if target.dim() not in (3, 4) or target.shape[0] != points.shape[0]:
        raise ValueError(
            f"target has shape {tuple(target.shape)}; expected (B, H, W) or (B, K, H, W) with the "
            f"B = {points.shape[0]} images that were sampled"
        )
    if image_size is not None and tuple(target.shape[-2:]) != image_size:
        raise ValueError(
            f"target is {tuple(target.shape[-2:])} pixels but the points were drawn from images "
            f"of {image_size}; resize the target first, or sample at its size"
        )
    if fill is None:
        if target.dtype == torch.bool:
            raise TypeError(
                "target is bool, which cannot mark points as ignored; pass fill=..., or convert "
                "the target with .long()"
            )
        if target.is_floating_point():
            return 0
        fill = 255 if ignore_index is None else ignore_index
        if not _representable(fill, target.dtype):
            raise TypeError(
                f"target is {target.dtype}, which cannot hold the ignored label {fill}; convert it "
                "with .long(), or pass fill=..."
            )
    elif not target.is_floating_point() and not _representable(fill, target.dtype):
        raise TypeError(
            f"target is {target.dtype}, which cannot hold fill={fill!r}; pass a whole number in "
            "its range, or convert the target with .long() or .float()"
        )
    return fill


def check_score(score: Tensor, expected: tuple[int, ...], usable: Tensor) -> None:
    """Raise unless there is a score for each pixel, or each candidate; a number where usable."""
    _check_tensor("score", score)
    if tuple(score.shape) != expected:
        raise ValueError(
            f"score has shape {tuple(score.shape)}; expected {expected}, one for each pixel, or "
            "for each point that the function is called with"
        )
    if values_at_hand(score) and bool((score.isnan() & usable).any()):
        raise ValueError(
            f"score is NaN at {int((score.isnan() & usable).sum())} points that may be drawn; "
            "expected numbers, higher where the model is less sure. Look for NaN in what the "
            "model gives, or leave such pixels out with valid=..."
        )
