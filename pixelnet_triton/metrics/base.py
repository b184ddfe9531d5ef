"""torchmetrics, or an error that names the extra; and the shapes in which predictions come."""

from __future__ import annotations

from torch import Tensor

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError(
        "the metrics are torchmetrics.Metric classes, and torchmetrics is not installed; get it "
        "with pip install 'pixelnet-triton[metrics]'"
    ) from error

__all__ = ["Metric", "check_same_shape", "check_usable"]


def check_same_shape(prediction: Tensor, target: Tensor) -> None:
    """Raise unless both are tensors of one shape on one device."""
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)} but target {tuple(target.shape)}; "
            "expected the same shape. Predict at the target's size"
        )
    if prediction.device != target.device:
        raise ValueError(
            f"prediction is on {prediction.device} but target on {target.device}; move one with "
            ".to(...)"
        )


def check_usable(usable: Tensor, what: str, remedy: str) -> None:
    """Raise where a prediction at a pixel with ground truth is not usable."""
    if not bool(usable.all()):
        raise ValueError(
            f"prediction is not {what} at {int((~usable).sum())} of {usable.numel()} pixels that "
            f"have ground truth; {remedy}"
        )
