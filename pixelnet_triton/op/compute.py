"""Both passes of an executor, for values that are known to be good; and calls of no numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from ..call import Executor, Gradients, Linear, Sampling, Wanted
from ..call.checks import check_values

__all__ = ["compute_backward", "compute_forward", "empty_output"]


def compute_forward(executor: Executor, s: Sampling, head: Linear | None) -> Tensor:
    """What the executor computes, once the values of points and indices are known to be good."""
    check_values(s.points, s.batch_index, s.batch)
    if s.total == 0:
        return empty_output(s, head)
    return executor.forward(s, head)


def empty_output(s: Sampling, head: Linear | None) -> Tensor:
    """(P, sum C) or (P, D), uninitialised."""
    columns = sum(s.channels) if head is None else head.out_features
    return s.features[0].new_empty((s.total, columns))


def compute_backward(
    executor: Executor,
    s: Sampling,
    head: Linear | None,
    grad: Tensor,
    output: Tensor | None,
    wanted: Wanted,
) -> Gradients:
    """Gradients for grad (P, D) or (B, N, D); `output` is the ReLU's, whose zeros mask it.

    Autocast may be on here though it was off in the forward pass, whose dtypes hold.
    """
    device = "cuda" if grad.is_cuda else "cpu"
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return compute_backward(executor, s, head, grad, output, wanted)
    if grad.numel() > 0:
        return executor.backward(s, head, grad, output, wanted)
    return Gradients(
        [
            torch.zeros_like(feature) if want else None
            for feature, want in zip(s.features, wanted.features, strict=True)
        ],
        torch.zeros_like(s.points) if wanted.points else None,
        torch.zeros_like(head.weight) if head is not None and wanted.weight else None,
        grad.new_zeros(grad.shape[-1]) if wanted.bias else None,
    )
