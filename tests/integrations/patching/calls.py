"""A map with points on it, and what a function makes of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["some_map", "value_and_gradients"]


def some_map(channels: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    feature = torch.randn(2, channels, 6, 8, generator=random)
    return feature, 1.2 * torch.rand(2, 40, 2, generator=random) - 0.1


def value_and_gradients(function: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    value = function(*leaves)
    weights = torch.linspace(-1, 1, value.numel()).reshape(value.shape)
    return [value.detach(), *torch.autograd.grad((value * weights).sum(), leaves)]
