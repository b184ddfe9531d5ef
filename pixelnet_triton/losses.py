r"""Losses of the four tasks, on raw outputs at sampled points.

Each takes outputs ``(B, N, K)`` or ``(P, K)`` and the targets that `SampledPixels.take` gives,
leaves out ignored points, and returns a scalar: the mean over the others, or 0 with zero gradients
where there are none. Half precision is computed in float32, and the loss is then float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .tools.values import values_at_hand

__all__ = [
    "balanced_sigmoid_cross_entropy",
    "cosine_normal_loss",
    "cross_entropy",
    "normal_loss",
    "scale_invariant_log_loss",
]

# The gradient of a direction grows as 1 / length. At length 0, where there is no direction, it is
# 1e12, as F.normalize divides by 1e-12 there, and one such point would end a training.
SHORTEST = 1e-6


def cross_entropy(outputs: Tensor, targets: Tensor, *, ignore_index: int = 255) -> Tensor:
    r"""Softmax cross-entropy of semantic segmentation, over the points that have a label.

    .. math:: L = -\frac{1}{|V|} \sum_{p \in V} \log \mathrm{softmax}(s_p)_{t_p}

    Args:
        outputs: ``(B, N, K)`` or ``(P, K)`` raw scores s.
        targets: ``(B, N)`` or ``(P,)`` integer class ids t in [0, K), or `ignore_index`.
        ignore_index: the target of points that do not count, outside of [0, K).

    Returns:
        Scalar, float32 (float64 for float64).

    Raises:
        TypeError, ValueError: shapes or dtypes do not fit, or (on the CPU) an id is out of range.
            On a GPU, where looking at targets would wait for the device, such an id fails an
            assertion of PyTorch's; ``PIXELNET_TRITON_STRICT=1`` asks for the exception.

    Example:
        >>> import torch
        >>> from pixelnet_triton.losses import cross_entropy
        >>> outputs = torch.zeros(2, 100, 21)
        >>> cross_entropy(outputs, torch.full((2, 100), 255))
        tensor(0.)
    """
    _check_shapes(outputs, targets)
    _check_integer(targets)
    classes = outputs.shape[-1]
    if 0 <= ignore_index < classes:
        raise ValueError(
            f"ignore_index={ignore_index} is one of the {classes} classes, which would never be "
            "trained; choose another value, such as -100, and map the labels to it"
        )
    scores, labels = _wide(outputs).flatten(0, -2), targets.flatten().long()
    _check_classes(labels, classes, ignore_index)
    total = F.cross_entropy(scores, labels, ignore_index=ignore_index, reduction="sum")
    return total / (labels != ignore_index).sum().clamp(min=1)


def balanced_sigmoid_cross_entropy(
    outputs: Tensor, targets: Tensor, *, ignore_index: int = 255, reduction: str = "mean"
) -> Tensor:
    r"""Class-balanced sigmoid cross-entropy of edge detection (HED, arXiv 1504.06375, eq. 2).

    .. math::
        S = -\beta \sum_{p \in Y_+} \log \sigma(s_p)
            - (1 - \beta) \sum_{p \in Y_-} \log (1 - \sigma(s_p)),
        \qquad \beta = \frac{|Y_-|}{|Y_+| + |Y_-|}

    over all sampled points of the batch: PixelNet "normalized the gradients for positives and
    negatives in each batch (as in [HED])" (section 4.3). The mean divides S by the sum of its
    weights, as :func:`torch.nn.functional.cross_entropy` does, so that both kinds have the same
    say and the learning rate does not depend on how many points of each were sampled:

    .. math::
        L = -\frac{1}{2 |Y_+|} \sum_{p \in Y_+} \log \sigma(s_p)
            - \frac{1}{2 |Y_-|} \sum_{p \in Y_-} \log (1 - \sigma(s_p)).

    In a batch with one kind only, the other's term is left out of L; S is then 0.

    Args:
        outputs: ``(B, N, 1)``, or ``(P, 1)``, raw scores s.
        targets: ``(B, N)`` or ``(P,)`` integer: 1 positive, 0 negative, or `ignore_index`.
        ignore_index: the target of points that do not count, neither 0 nor 1.
        reduction: ``"mean"`` is L, ``"sum"`` is S, as HED.

    Returns:
        Scalar, float32 (float64 for float64).

    Raises:
        TypeError, ValueError: shapes, dtypes, `ignore_index`, `reduction` or (on the CPU) targets
            do not fit. On a GPU, where looking at targets would wait for the device, strange ones
            give NaN; ``PIXELNET_TRITON_STRICT=1`` asks for the exception.

    Example:
        >>> import torch
        >>> from pixelnet_triton.losses import balanced_sigmoid_cross_entropy
        >>> edges = torch.tensor([[1, 0, 0, 255]])
        >>> round(balanced_sigmoid_cross_entropy(torch.zeros(1, 4, 1), edges).item(), 4)  # log 2
        0.6931
    """
    _check_shapes(outputs, targets, channels=1)
    _check_integer(targets)
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction={reduction!r} is unknown; use 'mean' or 'sum'")
    if ignore_index in (0, 1):
        kind = ("negatives", "positives")[ignore_index]
        raise ValueError(
            f"ignore_index={ignore_index} is the target of {kind}, which would never be trained; "
            "choose another value, such as 255, and map the targets to it"
        )
    scores, targets = _wide(outputs).squeeze(-1), targets.long()
    positive, negative = targets == 1, targets == 0
    strange = ~(positive | negative | (targets == ignore_index)).all()
    if values_at_hand(targets) and bool(strange):
        raise ValueError(
            f"targets has values other than 0, 1 and ignore_index={ignore_index}: "
            f"{targets.unique()[:10].tolist()}. Threshold soft labels first, pass the value of "
            "pixels that do not count as ignore_index"
        )
    # log(1 + exp(-s)) and log(1 + exp(s)): softplus does not overflow.
    pull = F.softplus(-scores).masked_fill(~positive, 0).sum()
    push = F.softplus(scores).masked_fill(~negative, 0).sum()
    positives, negatives = positive.sum(), negative.sum()
    if reduction == "sum":
        loss = (negatives * pull + positives * push) / (positives + negatives).clamp(min=1)
    else:
        loss = (pull / positives.clamp(min=1) + push / negatives.clamp(min=1)) / 2
    return loss.masked_fill(strange, torch.nan)


def normal_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    r"""Euclidean loss of surface normals: outputs are normalised first, targets are as they are.

    .. math:: L = \frac{1}{2 |V|} \sum_{p \in V} \left\| \frac{o_p}{\|o_p\|} - n_p \right\|^2

    Caffe's Euclidean loss, on which the paper trains. For unit targets it equals
    :func:`cosine_normal_loss`.

    Args:
        outputs: ``(B, N, 3)`` or ``(P, 3)`` raw outputs o; those shorter than 1e-6 get no gradient.
        targets: the same shape, normals n; points do not count whose normal is zero or
            not finite.

    Returns:
        Scalar, float32 (float64 for float64).

    Raises:
        TypeError, ValueError: shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from pixelnet_triton.losses import normal_loss
        >>> normal_loss(torch.tensor([[0.0, 0.0, 5.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
        tensor(1.)
    """
    _check_shapes(outputs, targets, channels=3, vectors=True)
    directions, (normals, known) = _directions(_wide(outputs)), _normals(targets)
    errors = (directions - normals).square().sum(-1) / 2
    return _mean(errors, known)


def cosine_normal_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    r"""One minus the cosine of the angle between output and normal, whatever their lengths.

    .. math:: L = \frac{1}{|V|} \sum_{p \in V} 1 - \frac{o_p \cdot n_p}{\|o_p\| \|n_p\|}

    Args:
        outputs: ``(B, N, 3)`` or ``(P, 3)`` raw outputs o; those shorter than 1e-6 get no gradient.
        targets: the same shape, normals n; points do not count whose normal is zero or
            not finite.

    Returns:
        Scalar, float32 (float64 for float64).

    Raises:
        TypeError, ValueError: shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from pixelnet_triton.losses import cosine_normal_loss
        >>> cosine_normal_loss(torch.tensor([[0.0, 0.0, 5.0]]), torch.tensor([[0.0, 0.0, 2.0]]))
        tensor(0.)
    """
    _check_shapes(outputs, targets, channels=3, vectors=True)
    directions, (normals, known) = _directions(_wide(outputs)), _normals(targets)
    errors = 1 - (directions * F.normalize(normals, dim=-1)).sum(-1)
    return _mean(errors, known)


def scale_invariant_log_loss(
    outputs: Tensor, targets: Tensor, *, invariance: float = 0.5
) -> Tensor:
    r"""Scale-invariant error of log depth (Eigen, Puhrsch, Fergus, arXiv 1406.2283, section 3.3).

    .. math::
        L = \frac{1}{n} \sum_p d_p^2 - \frac{\lambda}{n^2} \Big( \sum_p d_p \Big)^2,
        \qquad d_p = o_p - \log z_p

    over the n points of an image that have a depth, then the mean over images that have any.

    Args:
        outputs: ``(B, N, 1)``, or ``(P, 1)`` for points of one image: log depth o.
        targets: ``(B, N)`` or ``(P,)``, depth z in metres; points with z <= 0, or z not finite, do
            not count.
        invariance: lambda in [0, 1]. 0 is the squared error of log depth; at 1 an error of scale
            costs nothing.

    Returns:
        Scalar, float32 (float64 for float64).

    Raises:
        TypeError, ValueError: shapes or dtypes do not fit, or lambda is out of range.

    Example:
        >>> import torch
        >>> from pixelnet_triton.losses import scale_invariant_log_loss
        >>> depth = torch.tensor([[1.0, 2.0, 4.0]])
        >>> twice = (2 * depth).log().unsqueeze(-1)
        >>> round(scale_invariant_log_loss(twice, depth, invariance=1.0).item(), 6)
        0.0
    """
    _check_shapes(outputs, targets, channels=1)
    if not 0 <= invariance <= 1:
        raise ValueError(f"invariance={invariance!r} is out of range; expected lambda in [0, 1]")
    logs, depth = _wide(outputs).squeeze(-1), _wide(targets)
    if logs.dim() == 1:
        logs, depth = logs[None], depth[None]  # one image
    known = (depth > 0) & depth.isfinite()
    d = (logs - torch.where(known, depth, 1).log()).masked_fill(~known, 0)  # (B, N)
    n = known.sum(1).clamp(min=1)
    # The mean of squares as variance + mean^2: with lambda 1 only the variance stays, which the
    # difference of two large numbers would lose.
    mean = d.sum(1) / n
    spread = (d - mean[:, None]).masked_fill(~known, 0).square().sum(1) / n
    return _mean(spread + (1 - invariance) * mean.square(), known.any(1))


def _mean(errors: Tensor, counts: Tensor) -> Tensor:
    """The mean of the errors that count; 0, with zero gradients, if none does."""
    return errors.masked_fill(~counts, 0).sum() / counts.sum().clamp(min=1)


def _directions(outputs: Tensor) -> Tensor:
    """Outputs at length 1. Those below `SHORTEST` get no gradient."""
    directions = F.normalize(outputs, dim=-1)
    short = torch.linalg.vector_norm(outputs.detach(), dim=-1, keepdim=True) < SHORTEST
    return torch.where(short, directions.detach(), directions)


def _normals(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Normals, zero where they are not known, and where they are known.

    Not known is zero, or NaN as some data sets have it: NaN would stay in gradients that are 0.
    """
    normals = _wide(targets)
    known = (normals != 0).any(-1) & normals.isfinite().all(-1)
    return normals.masked_fill(~known.unsqueeze(-1), 0), known


def _wide(tensor: Tensor) -> Tensor:
    """At least float32: sums of thousands of terms, squares and exponentials."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _check_integer(targets: Tensor) -> None:
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise TypeError(
            f"targets is {targets.dtype}; expected integers, which can hold ignore_index. Convert "
            "it with .long()"
        )


def _check_classes(labels: Tensor, classes: int, ignore_index: int) -> None:
    """Raise where a label is neither a class nor ignored, if that can be seen."""
    if not values_at_hand(labels):
        return
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= classes))
    if bool(wrong.any()):
        raise ValueError(
            f"targets has the class {int(labels[wrong][0])}; expected ids in [0, {classes}), as "
            f"outputs has {classes} scores a point, or ignore_index={ignore_index}. Map the "
            "labels, pass the value of pixels that do not count as ignore_index, or give the "
            "network more outputs"
        )


def _check_shapes(
    outputs: Tensor, targets: Tensor, *, channels: int | None = None, vectors: bool = False
) -> None:
    """Raise unless outputs ``(..., K)`` meet targets ``(...)``, or ``(..., K)`` for vectors."""
    last = "K" if channels is None else str(channels)
    if outputs.dim() not in (2, 3) or channels not in (None, outputs.shape[-1]):
        raise ValueError(
            f"outputs has shape {tuple(outputs.shape)}; expected (B, N, {last}) or (P, {last}). "
            "Of dense outputs (B, K, H, W) take the points, or use .flatten(2).transpose(1, 2)"
        )
    if not outputs.is_floating_point():
        raise TypeError(f"outputs is {outputs.dtype}; expected raw floating outputs")
    expected = outputs.shape if vectors else outputs.shape[:-1]
    if targets.shape != expected:
        raise ValueError(
            f"targets has shape {tuple(targets.shape)}; expected {tuple(expected)} for outputs "
            f"{tuple(outputs.shape)}. SampledPixels.take gives targets of that shape"
        )
    if targets.device != outputs.device:
        raise ValueError(
            f"targets is on {targets.device} but outputs on {outputs.device}; move it with .to(...)"
        )
