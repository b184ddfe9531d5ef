"""One side of bench.compare: times calls of the library in a given checkout.

It takes nothing from the library but its public functions, so that two versions of it are measured
by the same code. Nothing that is imported here imports the library: a new process puts its checkout
first on the path before it does.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .inputs import Inputs, make_inputs, rotated
from .timing import host_seconds, time_calls
from .workloads import Case

Sums = list[tuple[float, float]]


def side_of(library: Path, device: torch.device, cache: str) -> Side:
    """In a new process: its side, which measures the library of this checkout.

    Args:
        cache: a folder of its own; profiles and tuned tiles of another version shall not decide.

    Raises:
        ImportError: the library came from somewhere else.
    """
    for name in [name for name in os.environ if name.startswith("PIXELNET_TRITON_")]:
        del os.environ[name]
    os.environ["PIXELNET_TRITON_CACHE"] = cache
    sys.path.insert(0, str(library))
    import pixelnet_triton

    imported = Path(pixelnet_triton.__file__).resolve().parent.parent
    if imported != library.resolve():
        raise ImportError(f"imported {imported} instead of {library}")
    return Side(device)


class Side:
    """The calls of one case at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        self.calls: list[Callable[[], list[Tensor]]] = []
        self.host, self.until_return = 0.0, False

    def prepare(self, case: Case) -> tuple[float, Sums]:
        """Make inputs, call twice: seconds of the second call, and the sums of the first."""
        self.calls = []  # frees the last case first
        self.until_return = case.workload.family == "host" and self.device.type == "cuda"
        copies = rotated(make_inputs(case.workload, self.device))
        copies = copies[:1] if self.until_return else copies
        self.calls = [_call(case, copy.requires_grad_(case.training)) for copy in copies]
        results = self.calls[0]()
        self.host = host_seconds(self.calls[0], self.device)
        return min(self.time(2)), [_sums(result) for result in results]

    def time(self, count: int, limit: float = math.inf) -> list[float]:
        """Seconds of each of so many calls, after one that is not counted.

        They are fewer where they take longer than `limit` seconds: an operator that waits for
        threads takes a thousand times as long while another process has the cores.
        """
        start = time.perf_counter()
        self._timed(1)
        seconds: list[float] = []
        while len(seconds) < count and (not seconds or time.perf_counter() - start < limit):
            seconds += self._timed(min(10, count - len(seconds)))
        return seconds

    def _timed(self, count: int) -> list[float]:
        batch = [self.calls[i % len(self.calls)] for i in range(count)]
        if self.until_return:
            return [host_seconds(call, self.device) for call in batch]
        return time_calls(batch, self.device, self.host)


def _call(case: Case, at: Inputs) -> Callable[[], list[Tensor]]:
    """What is timed: it returns the value, and in training the gradients."""
    from pixelnet_triton import sparse_hypercolumn

    arguments, leaves = at.sampling(), at.maps
    if case.workload.out_features:  # otherwise hypercolumns alone
        arguments |= {**at.linear(), "activation": "relu"}
        leaves = list(at.leaves().values())

    def call() -> list[Tensor]:
        value = sparse_hypercolumn(**arguments)
        gradients = torch.autograd.grad(value, leaves, value.detach()) if case.training else ()
        return [value, *gradients]

    return call


def _sums(result: Tensor) -> tuple[float, float]:
    """Its norm, and a sum in which every entry has another weight."""
    flat = result.detach().double().flatten()
    weights = torch.linspace(0, 100 * math.pi, len(flat), device=flat.device).double().cos()
    return flat.norm().item(), (flat @ weights).item()
