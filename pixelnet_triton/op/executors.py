"""Executors for calls that come without one: traced ones, and those of torch.func."""

from __future__ import annotations

import torch
from torch import Tensor

from ..call import Executor, Plan, Sampling
from ..call.shape import bucket
from .known import Memory
from .prepare import prepare_executor

__all__ = ["executor_for"]

_KNOWN: Memory[Executor] = Memory()


def executor_for(
    s: Sampling, weight: Tensor | None, plan: str, training: bool, moving_points: bool
) -> Executor:
    """What computes calls that are laid out so, at about as many points; `plan` is encoded, or a
    name."""
    layouts = [(f.shape, f.stride(), f.dtype, f.device) for f in s.features]
    index = None if s.batch_index is None else s.batch_index.dtype
    points = (bucket(s.total), s.points.dtype, index)
    head = None if weight is None else (weight.shape, weight.dtype)
    settings = (torch._C._get_deterministic_algorithms(), torch.get_num_threads())
    key = (*layouts, *points, head, s.geometry, plan, training, moving_points, settings)
    known = _KNOWN.get(key)
    if known is not None:
        return known
    asked = Plan.decode(plan) if ":" in plan else plan
    flags = {"training": training, "moving_points": moving_points}
    return _KNOWN.keep(key, prepare_executor(asked, s, weight, **flags)[1])
