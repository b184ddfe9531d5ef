"""Where the time of a pass goes on a GPU: its kernels, by name, as torch's profiler sees them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, supported_activities

from .timing import Function

__all__ = ["Share", "profiled", "shares"]

#: Characters of a name: those of libraries say how they were generated.
LONGEST = 72


class Share(NamedTuple):
    """A kernel's part of a pass: how often it is launched, and its time in all, in microseconds."""

    kernel: str
    launches: float
    us: float


def profiled(calls: Sequence[Function], device: torch.device) -> list[Share]:
    """The kernels of a pass, the mean over `calls`, those that take longest first.

    `calls` are passes of one kind, on copies of the inputs that are not in the caches.
    """
    torch.cuda.synchronize(device)  # what is under way is none of the passes'
    # A stand-in for a GPU (tests/fake_cuda.py) comes with a PyTorch that knows of none.
    seen = {ProfilerActivity.CUDA} & supported_activities() or {ProfilerActivity.CPU}
    with profile(activities=[*seen]) as profiler:
        for call in calls:
            call()
        torch.cuda.synchronize(device)
    return shares(profiler.events() or (), len(calls))


def shares(events: Iterable[Any], passes: int) -> list[Share]:
    """The events of a profiler that took place on the device, by name."""
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.device_type == DeviceType.CUDA:
            times[event.name[:LONGEST]].append(event.time_range.elapsed_us())
    found = [Share(name, len(us) / passes, sum(us) / passes) for name, us in times.items()]
    return sorted(found, key=lambda share: -share.us)
