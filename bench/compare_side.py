"""One side of bench.compare: a process that times calls of the library in a given checkout.

It takes nothing from the library but its public functions, so that two versions of it are measured
by the same code. Nothing that is imported here imports the library: a new process puts its checkout
first on the path before it does.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .inputs import Inputs, make_inputs, rotated
from .timing import host_seconds, time_calls
from .workloads import Workload

SECONDS = 300  # a process that takes longer to answer ends itself
Ask = Callable[..., Any]
Sums = list[tuple[float, float]]


class Failed(Exception):
    """A case that a process could not do; the message says why."""


class Ended(Failed):
    """... and the process is no more."""


@dataclass(frozen=True)
class Comparison:
    """What is timed on both sides.

    Args:
        name: unique. kind: what it is summed up under; of "host" the seconds until a call returns
            count, on a GPU too.
        training: with the backward pass.
        form: "layer", "columns" (without weight), "plan" (of the planner alone, nothing computed).
    """

    name: str
    kind: str
    workload: Workload
    training: bool
    form: str = "layer"


@contextlib.contextmanager
def process(role: str, library: Path, device: torch.device) -> Iterator[Ask]:
    """A new process: within the block, ``ask(method, *arguments)`` has its :class:`Side` answer.

    Args:
        role: "base", "control" or "here", for messages. library: the checkout that it measures.

    Raises:
        Failed: it imported another library; from `ask`: the method raised, or the process ended.
    """
    spawn = multiprocessing.get_context("spawn")
    with (
        # A cache of its own: profiles and tuned tiles of another version shall not decide.
        tempfile.TemporaryDirectory() as cache,
        ProcessPoolExecutor(1, spawn, _begin, (str(library), device, cache)) as pool,
    ):

        def ask(method: str, *arguments: Any) -> Any:
            try:
                return pool.submit(_answer, method, *arguments).result()
            except BrokenProcessPool:
                raise Ended(f"{role}: the process ended") from None
            except Exception as error:
                raise Failed(f"{role}: {type(error).__name__}: {error}") from error

        imported = ask("library")
        if imported != library.resolve():
            raise Failed(f"{role}: imported {imported} instead of {library}")
        yield ask


class Side:
    """A side, seen from inside: the calls of one case at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        self.calls: list[Callable[[], Any]] = []
        self.host, self.until_return = 0.0, False

    def library(self) -> Path:
        """The checkout that is measured."""
        import pixelnet_triton

        return Path(pixelnet_triton.__file__).resolve().parent.parent

    def prepare(self, case: Comparison) -> tuple[float, Sums]:
        """Make inputs, call twice: seconds of the second call, and the sums of the first."""
        self.calls = []  # frees the last case first
        self.until_return = case.kind == "host"
        copies = rotated(make_inputs(case.workload, self.device))
        copies = copies[:1] if self.until_return else copies
        self.calls = [_call(case, copy.requires_grad_(case.training)) for copy in copies]
        results = self.calls[0]()
        self.host = host_seconds(self.calls[0], self.device)
        return min(self.time(2)), _sums(results)

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
        if self.until_return and self.device.type == "cuda":
            return [host_seconds(call, self.device) for call in batch]
        return time_calls(batch, self.device, self.host)


def _begin(library: str, device: torch.device, cache: str) -> None:
    global _side
    for name in [name for name in os.environ if name.startswith("PIXELNET_TRITON_")]:
        del os.environ[name]
    os.environ["PIXELNET_TRITON_CACHE"] = cache
    sys.path.insert(0, library)
    _side = Side(device)


_side: Side  # in that process


def _answer(method: str, *arguments: Any) -> Any:
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        return getattr(_side, method)(*arguments)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _call(case: Comparison, at: Inputs) -> Callable[[], Any]:
    """What is timed: it returns the value, and in training the gradients."""
    from pixelnet_triton import plan_hypercolumn, sparse_hypercolumn

    if case.form == "plan":
        return partial(plan_hypercolumn, at.maps, case.workload.points, case.workload.out_features)
    arguments, leaves = at.sampling(), at.maps
    if case.form == "layer":
        arguments |= {**at.linear(), "activation": "relu"}
        leaves = list(at.leaves().values())

    def forward() -> list[Tensor]:
        return [sparse_hypercolumn(**arguments)]

    def training() -> list[Tensor]:
        (value,) = forward()
        return [value, *torch.autograd.grad(value, leaves, value.detach())]

    return training if case.training else forward


def _sums(results: Any) -> Sums:
    """For each result its norm, and a sum in which every entry has another weight."""
    sums = []
    for tensor in results if isinstance(results, list) else []:
        flat = tensor.detach().double().flatten()
        weights = torch.linspace(0, 100 * math.pi, len(flat), device=flat.device).double().cos()
        sums.append((flat.norm().item(), (flat @ weights).item()))
    return sums
