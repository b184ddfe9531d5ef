"""Uninitialised memory that shows: `torch.empty` and its kin return NaN instead of leftovers.

A kernel that leaves part of its output unwritten often passes on memory that happens to hold
zeros, or the right numbers of the run before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

__all__ = ["poisoned_memory"]


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Within, freshly allocated tensors hold NaN (integers: a number far outside any index)."""
    with (
        mock.patch.object(torch, "empty", _poisoning(torch.empty)),
        mock.patch.object(torch, "empty_like", _poisoning(torch.empty_like)),
        mock.patch.object(torch, "empty_strided", _poisoning(torch.empty_strided)),
        mock.patch.object(Tensor, "new_empty", _poisoning(Tensor.new_empty)),
        mock.patch.object(Tensor, "new_empty_strided", _poisoning(Tensor.new_empty_strided)),
    ):
        yield


def _poisoning(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def allocate_poisoned(*args: Any, **kwargs: Any) -> Tensor:
        tensor = allocate(*args, **kwargs)
        with torch.no_grad():
            if tensor.dtype.is_floating_point:
                return tensor.fill_(float("nan"))
            if tensor.dtype == torch.bool:
                return tensor
            return tensor.fill_(torch.iinfo(tensor.dtype).max // 3)

    return allocate_poisoned
