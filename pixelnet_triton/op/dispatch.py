"""Which back end computes a call, and why the others were passed over."""

from __future__ import annotations

import os
from functools import lru_cache

import torch

from ..call import Backend, CallShape
from ..tools.settings import triton_interprets

__all__ = ["backend_for", "backend_named", "passed_over", "require"]

#: In the order in which they are asked.
NAMES = ("gpu", "cpu")


@lru_cache(maxsize=2)
def backend_named(name: str) -> Backend:
    """The back end "cpu" or "gpu"; planning with the latter takes neither Triton nor a GPU."""
    if name == "cpu":
        from .. import cpu

        return cpu.BACKEND
    from .. import gpu

    return gpu.BACKEND


def _wanted(name: str, device: torch.device) -> list[str]:
    """Why that back end is not asked for on a device; nothing if it is.

    ``PIXELNET_TRITON_BACKEND=triton`` sends CPU tensors to the kernels too, which is of use with
    Triton's interpreter (``TRITON_INTERPRET=1``) alone; ``torch`` or ``auto`` leave them on the
    CPU. It is read when a kind of call is met for the first time.
    """
    choice = os.environ.get("PIXELNET_TRITON_BACKEND", "auto")
    if choice not in ("auto", "torch", "triton"):
        raise ValueError(f"PIXELNET_TRITON_BACKEND={choice!r}; use auto, torch or triton")
    if (
        choice == "triton"
        and device.type == "cpu"
        and not (triton_interprets() or torch.cuda.is_available())
    ):
        raise ValueError(
            "PIXELNET_TRITON_BACKEND='triton' sends tensors on the CPU to Triton's kernels, which "
            "without a GPU run in its interpreter alone: set TRITON_INTERPRET=1 before Python "
            "starts, or unset PIXELNET_TRITON_BACKEND"
        )
    if name == "cpu":
        if device.type != "cpu":
            return [f"computes on the CPU, and the tensors are on {device}"]
        return ["is overruled by PIXELNET_TRITON_BACKEND=triton"] if choice == "triton" else []
    if device.type == "cpu" and choice != "triton":
        return ["computes on a GPU; the tensors are on the CPU"]
    if device.type not in ("cpu", "cuda"):
        return [f"computes on cuda devices, and the tensors are on {device}"]
    return []


def backend_for(device: torch.device) -> Backend:
    """The back end that computes on a device.

    Raises:
        ValueError: there is none.
    """
    for name in NAMES:
        if not _wanted(name, device):
            return backend_named(name)
    raise ValueError(f"the features are on {device}; supported are cpu and cuda devices")


def require(backend: Backend, shape: CallShape, device: torch.device) -> None:
    """Raise `RuntimeError`, with the reasons, where a back end cannot serve a call."""
    reasons = backend.unserved(shape)
    if reasons:
        raise RuntimeError(
            f"the features are on {device}, which {'; it '.join(reasons)}, "
            "or move the tensors to the CPU"
        )


def passed_over(backend: Backend, device: torch.device) -> dict[str, list[str]]:
    """Why each of the other back ends does not compute a call on that device."""
    return {name: _wanted(name, device) for name in NAMES if name != backend.name}
