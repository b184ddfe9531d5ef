"""Whether the values of a tensor may be looked at, for checks that go beyond its metadata."""

from __future__ import annotations

import torch
from torch import Tensor

from .settings import switched_on

__all__ = ["values_at_hand"]


def values_at_hand(tensor: Tensor) -> bool:
    """Whether a check may read values: on the CPU always, elsewhere where the user asked for it.

    Reading from a GPU waits for the device, which ``PIXELNET_TRITON_STRICT=1`` accepts. Tensors
    that only stand for others (FakeTensor, tensors of a graph that is being traced, or within a
    transform of torch.func, such as vmap's or linearize's) have none.
    """
    # In a traced graph, of jit.trace too, a check would become a constant.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if torch._C._are_functorch_transforms_active() or _is_proxied():
        return False
    if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.device.type == "meta":
        return False
    return tensor.device.type == "cpu" or switched_on("PIXELNET_TRITON_STRICT")


def _is_proxied() -> bool:
    """Within `make_fx`, which `torch.func.linearize` is made of?"""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
