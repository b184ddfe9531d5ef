"""One side of bench.compare: a process that times calls of the library in a given checkout.

It takes nothing from the library but its public functions, so that two versions of it are measured
by the same code. Nothing that is imported here imports the library: a new process puts its checkout
first on the path before it does.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .inputs import Inputs, make_inputs, rotated
from .timing import host_seconds, time_calls
from .workloads import Workload

SECONDS = 300.0  # after these a process that has not answered counts as failed
Sums = list[tuple[float, float]]


class Failed(Exception):
    """A case that a process could not do; the message says why."""


class Ended(Failed):
    """... and the process is no more."""


@dataclass(frozen=True)
class Comparison:
    """What is timed on both sides.

    Args:
        name: unique. kind: what it is summed up under.
        training: with the backward pass.
        form: "layer", "columns" (without weight), "plan" (of the planner alone, nothing computed).
        host: seconds until a call returns count, on a GPU too.
    """

    name: str
    kind: str
    workload: Workload
    training: bool
    form: str = "layer"
    host: bool = False


class Process(contextlib.ExitStack):
    """A side, seen from outside, to be used in a `with` statement.

    Args:
        role: "base", "control" or "here", for messages. library: the checkout that it measures.

    Raises:
        Failed: it does not start, or not with that library.
    """

    def __init__(self, role: str, library: Path, device: torch.device, threads: int) -> None:
        super().__init__()
        context = multiprocessing.get_context("spawn")
        self._role = role
        self._connection, theirs = context.Pipe()
        # A cache of its own: profiles and tuned tiles of another version shall not decide.
        cache = self.enter_context(tempfile.TemporaryDirectory())
        arguments = (theirs, str(library), device, threads, cache)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        self.callback(self._process.join)
        self.callback(self._process.kill)
        theirs.close()
        try:
            imported = self.ask("library")
            if imported != library.resolve():
                raise Failed(f"{role}: imported {imported} instead of {library}")
        except BaseException:
            self.close()
            raise

    def ask(self, request: str, *arguments: Any) -> Any:
        """The answer of a method of the side.

        Raises:
            Failed: it raised, has ended, or takes longer than SECONDS.
        """
        problem = "no answer"
        try:
            self._connection.send((request, arguments))
            if self._connection.poll(SECONDS):
                answer, error = self._connection.recv()
                if not error:
                    return answer
                print(error, file=sys.stderr)
                raise Failed(f"{self._role}: {error.splitlines()[-1]}")
        except (EOFError, OSError):
            problem = "the process ended"
        self._process.kill()
        raise Ended(f"{self._role}: {problem}")


def _serve(connection: Connection, library: str, device: Any, threads: int, cache: str) -> None:
    """Answer requests until there are no more, in a new process."""
    for name in [name for name in os.environ if name.startswith("PIXELNET_TRITON_")]:
        del os.environ[name]
    os.environ["PIXELNET_TRITON_CACHE"] = cache
    sys.path.insert(0, library)
    torch.set_num_threads(threads)
    side = Side(device)
    with contextlib.suppress(EOFError):
        while True:
            request, arguments = connection.recv()
            try:
                connection.send((getattr(side, request)(*arguments), ""))
            except Exception:
                connection.send((None, traceback.format_exc()))


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
        copies = rotated(make_inputs(case.workload, self.device))
        self.calls = [
            _call(case, copy.requires_grad_(case.training))
            for copy in (copies[:1] if case.host else copies)
        ]
        results = self.calls[0]()
        self.until_return = case.host
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
