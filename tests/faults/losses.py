"""Faults of the losses."""

from .fault import Fault

_LOSSES = "pixelnet_triton/losses.py"
_SEEN = ("tests/test_losses.py",)
_IGNORE = ("tests/test_ignore_index.py",)

FAULTS = (
    Fault(
        "unknown-normals-in-gradients",
        _LOSSES,
        "return normals.masked_fill(~known.unsqueeze(-1), 0), known",
        "return normals, known",
        _SEEN,
    ),
    Fault(
        "mean-over-all-points",
        _LOSSES,
        "total / (labels != ignore_index).sum().clamp(min=1)",
        "total / max(1, labels.numel())",
        _SEEN,
    ),
    Fault(
        "label-range-not-checked",
        _LOSSES,
        "    _check_classes(labels, classes, ignore_index)\n",
        "",
        _IGNORE,
    ),
    Fault("label-K-let-through", _LOSSES, "labels >= classes", "labels > classes", _IGNORE),
    Fault(
        "negatives-weigh-as-positives",
        _LOSSES,
        "(pull / positives.clamp(min=1) + push / negatives.clamp(min=1)) / 2",
        "(pull + push) / (positives + negatives).clamp(min=1)",
        _SEEN,
    ),
    Fault(
        "hed-weights-exchanged",
        _LOSSES,
        "negatives * pull + positives * push",
        "positives * pull + negatives * push",
        _SEEN,
    ),
    Fault(
        "outputs-not-normalised",
        _LOSSES,
        "errors = (directions - normals).square()",
        "errors = (_wide(outputs) - normals).square()",
        _SEEN,
    ),
    Fault(
        "euclidean-loss-without-half", _LOSSES, ".square().sum(-1) / 2", ".square().sum(-1)", _SEEN
    ),
    Fault(
        "invariance-default", _LOSSES, "invariance: float = 0.5", "invariance: float = 1.0", _SEEN
    ),
    Fault(
        "depth-mean-over-all-images",
        _LOSSES,
        "mean.square(), known.any(1))",
        "mean.square(), known.any(1) | True)",
        _SEEN,
    ),
    Fault(
        "gradients-of-outputs-of-length-0",
        _LOSSES,
        "torch.where(short, directions.detach(), directions)",
        "directions",
        _SEEN,
    ),
    Fault(
        "edges-may-be-ignored",
        _LOSSES,
        "    if ignore_index in (0, 1):\n",
        "    if False:\n",
        _SEEN,
    ),
    Fault(
        "infinite-depths-counted-in-the-loss",
        _LOSSES,
        "known = (depth > 0) & depth.isfinite()",
        "known = depth > 0",
        _SEEN,
    ),
    Fault(
        "half-precision-not-widened",
        _LOSSES,
        "return tensor if tensor.dtype == torch.float64 else tensor.float()",
        "return tensor",
        _SEEN,
    ),
)
