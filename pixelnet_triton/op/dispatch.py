"""Which back end computes a call, and why the others were passed over."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

import torch

from ..call import Backend, CallShape

__all__ = ["Resolution", "backend_for", "backend_named", "resolve"]

#: In the order in which they are asked.
NAMES = ("gpu", "cpu")


@dataclass(frozen=True)
class Resolution:
    """The back end that serves a call, and why each of the others does not."""

    backend: Backend
    passed_over: dict[str, list[str]]


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
    if name == "cpu":
        if device.type != "cpu":
            return [f"computes on the CPU, and the tensors are on {device}"]
        return ["is overruled by PIXELNET_TRITON_BACKEND=triton"] if choice == "triton" else []
    if device.type == "cpu" and choice != "triton":
        return ["computes on a GPU; the tensors are on the CPU"]
    if device.type not in ("cpu", "cuda"):
        return [f"computes on cuda devices, and the tensors are on {device}"]
    return []


def resolve(shape: CallShape, device: torch.device) -> Resolution:
    """The first back end that serves the call.

    Raises:
        ValueError: none computes on that device.
        RuntimeError: the one that does cannot serve the call; the message says why.
    """
    passed_over = {name: _wanted(name, device) for name in NAMES}
    names = [name for name in NAMES if not passed_over[name]]
    if not names:
        raise ValueError(f"the features are on {device}; supported are cpu and cuda devices")
    for name in names:
        backend = backend_named(name)
        passed_over[name] = backend.unserved(shape)
        if not passed_over[name]:
            del passed_over[name]
            return Resolution(backend, passed_over)
    reasons = "; it ".join(passed_over[names[-1]])
    raise RuntimeError(
        f"the features are on {device}, which {reasons}, or move the tensors to the CPU"
    )


def backend_for(shape: CallShape, device: torch.device) -> Backend:
    """The back end that serves the call; see :func:`resolve`."""
    return resolve(shape, device).backend
