"""Memory: the peak of a call, what it keeps for the backward pass, and a process' high-water mark.

A call's peak is what torch's allocator handed out at once, beyond what was there before. It leaves
out buffers that matrix libraries take from the system behind torch's back. A process' high-water
mark has these too, and the allocator's slack, but needs a process of its own for each figure: it is
used for whole networks (table4.py). docs/benchmarks.md says more; a test compares the two.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

# The profiler reports each start and stop on standard error otherwise.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most that torch's allocator held during the call, less what it held before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # The profiler reports every block handed out and taken back, those inside operators included.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        recorded.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    blocks = [event["args"] for event in events if event["name"] == "[memory]"]
    blocks.sort(key=lambda block: block["Ev Idx"])
    totals = accumulate(block["Bytes"] for block in blocks)
    return max(0, *totals)


@contextlib.contextmanager
def saved_storages(inputs: Iterable[Tensor]) -> Iterator[dict[int, int]]:
    """Within the block, collect what autograd keeps for the backward pass, inputs not counted.

    Storages by address, with their bytes: once, however many views of them are kept, and in
    full, because a view keeps all of its storage alive. All of them live until the backward pass
    begins, so no address stands for two.
    """
    given = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def high_water_mark() -> int:
    """Bytes: the most resident memory this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
