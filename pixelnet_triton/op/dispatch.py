"""Which back end computes a call, and why the others were passed over."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

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


def backend_named(name: str) -> Backend:
    """The back end "cpu" or "gpu".

    Raises:
        RuntimeError: Triton, which "gpu" needs, is not installed.
    """
    backend, reason = _loaded(name)
    if backend is None:
        raise RuntimeError(reason)
    return backend


@cache
def _loaded(name: str) -> tuple[Backend | None, str]:
    """The back end, or why it cannot be had."""
    if name == "cpu":
        from .. import cpu

        return cpu.BACKEND, ""
    try:
        from .. import gpu
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "triton":
            raise
        return None, "needs Triton, and Triton is not installed. Install it (pip install triton)"
    return gpu.BACKEND, ""


def _wanted(name: str, device: torch.device) -> list[str]:
    """Why that back end is not asked for on a device; nothing if it is.

    ``PIXELNET_TRITON_BACKEND=triton`` sends CPU tensors to the kernels too, which is of use with
    Triton's interpreter (``TRITON_INTERPRET=1``) alone; ``torch`` or ``auto`` leave them on the
    CPU. It is read when a kind of call is met for the first time.
    """
    choice = os.environ.get("PIXELNET_TRITON_BACKEND", "auto")
    if choice not in ("auto", "torch", "triton"):
        raise ValueError(f"PIXELNET_TRITON_BACKEND={choice!r}; use auto, torch or triton")
    if device.type == "cpu" and name == "gpu" and choice != "triton":
        return ["the tensors are on the CPU, and PIXELNET_TRITON_BACKEND is not triton"]
    if device.type == "cpu" and name == "cpu" and choice == "triton":
        return ["PIXELNET_TRITON_BACKEND=triton sends CPU tensors to the kernels"]
    if device.type != "cpu" and name == "cpu":
        return [f"it computes on the CPU, and the tensors are on {device}"]
    if device.type not in ("cpu", "cuda"):
        return [f"it serves cuda devices, and the tensors are on {device}"]
    return []


def resolve(shape: CallShape, device: torch.device) -> Resolution:
    """The first back end that serves the call.

    Raises:
        ValueError: none serves tensors of that device; the message says why.
        RuntimeError: the one for that device cannot be had.
    """
    passed_over: dict[str, list[str]] = {}
    for name in NAMES:
        reasons = _wanted(name, device)
        if not reasons:
            backend, missing = _loaded(name)
            if backend is None:
                raise RuntimeError(
                    f"the features are on {device}, which {missing}, or move the tensors to the CPU"
                )
            reasons = backend.unserved(shape)
            if not reasons:
                others = {other: _wanted(other, device) for other in NAMES if other != name}
                return Resolution(backend, others | passed_over)
        passed_over[name] = reasons
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"the features are on {device}; supported are cpu and cuda devices")
    why = "; ".join(f"{name}: {', '.join(reasons)}" for name, reasons in passed_over.items())
    raise ValueError(f"no back end serves this call ({shape}): {why}")


def backend_for(shape: CallShape, device: torch.device) -> Backend:
    """The back end that serves the call; see :func:`resolve`."""
    return resolve(shape, device).backend
