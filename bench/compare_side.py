"""One side of bench.compare: a process that times calls of the library in a given checkout.

    python -m bench.compare_side FOLDER DEVICE THREADS

It reads one JSON object a line from standard input and answers each by one. It takes nothing from
the library but its public functions, so that two versions of it are measured by the same code.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# All that this needs of the folder, before another checkout comes first on the path.
from .inputs import Inputs, make_inputs, rotated
from .timing import host_seconds, time_calls
from .workloads import Workload


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is timed on both sides.

    Args:
        name: unique. kind: what it is summed up under.
        workload: sizes, as a dictionary of its fields.
        training: with the backward pass.
        form: "layer", "columns" (without weight), "plan" (of the planner alone, nothing computed).
        host: seconds until a call returns count, on a GPU too.
    """

    name: str
    kind: str
    workload: dict[str, Any]
    training: bool
    form: str = "layer"
    host: bool = False


class Side:
    """The calls of one case at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        self.calls: list[Callable[[], Any]] = []
        self.host, self.until_return = 0.0, False

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        """Make inputs, call twice; answer seconds of the second call, and the sums of the first."""
        self.calls = []  # frees the last case first
        comparison = Comparison(**case)
        workload = Workload(**comparison.workload)
        size: Any = tuple(workload.image_size)  # JSON made it a list
        workload = dataclasses.replace(workload, image_size=size)
        copies = rotated(make_inputs(workload, self.device))
        self.calls = [
            _call(comparison, workload, copy.requires_grad_(comparison.training))
            for copy in (copies[:1] if comparison.host else copies)
        ]
        results = self.calls[0]()
        self.until_return = comparison.host
        self.host = host_seconds(self.calls[0], self.device)
        return {"seconds": min(self.time(2)), "sums": _sums(results)}

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


def _call(comparison: Comparison, workload: Workload, at: Inputs) -> Callable[[], Any]:
    """What is timed: it returns the value, and in training the gradients."""
    from pixelnet_triton import plan_hypercolumn, sparse_hypercolumn

    if comparison.form == "plan":
        return partial(plan_hypercolumn, at.maps, workload.points, workload.out_features)
    options: dict[str, Any] = {"weight": at.weight, "bias": at.bias, "activation": "relu"}
    leaves = list(at.leaves().values())
    if comparison.form == "columns":
        options, leaves = {}, at.maps
    if at.batch_index is not None:
        options["batch_index"] = at.batch_index

    def forward() -> list[Tensor]:
        return [sparse_hypercolumn(at.maps, at.points, at.image_size, **options)]

    def training() -> list[Tensor]:
        (value,) = forward()
        return [value, *torch.autograd.grad(value, leaves, value.detach())]

    return training if comparison.training else forward


def _sums(results: Any) -> list[list[float]]:
    """For each result its norm, and a sum in which every entry has another weight."""
    sums = []
    for tensor in results if isinstance(results, list) else []:
        flat = tensor.detach().double().flatten()
        weights = torch.linspace(0, 100 * math.pi, len(flat), device=flat.device).double().cos()
        sums.append([flat.norm().item(), (flat @ weights).item()])
    return sums


def main() -> None:
    """Answer requests until there are no more: first of all which library this is."""
    folder, device, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed shall not stand among the answers
    sys.path.insert(0, folder)
    import pixelnet_triton

    torch.set_num_threads(int(threads))
    side = Side(torch.device(device))
    answer: Any = str(Path(pixelnet_triton.__file__).resolve().parent.parent)
    while True:
        print(json.dumps(answer), file=answers, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        try:
            name, *arguments = json.loads(line)
            answer = getattr(side, name)(*arguments)
        except Exception:
            answer = {"error": traceback.format_exc()}


if __name__ == "__main__":
    main()
