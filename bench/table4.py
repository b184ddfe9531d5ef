"""Table 4 of the paper: memory, model size and updates per second of training, sparse and dense.

VGG-16 on one 224 x 224 image, an MLP of fc-1 to fc-3 on conv-{1_2, 3_3, 5_3}, 2,000 sampled
pixels or all 50,176. An update is a forward and a backward pass, as the paper counts. Memory is
all that training needs, model and gradients included: on a GPU the peak of torch's allocator, on
a CPU the high-water mark of a process of its own beyond that of the idle process.

The paper gives 1,056 features for these layers; their channels are 64 + 256 + 512 = 832.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Generator
from dataclasses import asdict
from typing import NamedTuple

import torch

from .memory import high_water_mark, in_own_process
from .networks import Network, Sizes, build, check_mode, step
from .results import Line, append
from .timing import Samples, time_calls

ITERATIONS, LEAST = 10, 3  # updates; the paper's figures are averages over ten
#: By kind of device: among other benchmarks a CPU takes a quarter of everything.
SIZES = {"cuda": Sizes(), "cpu": Sizes(side=112, samples_per_image=500, hidden=1024)}


class Paper(NamedTuple):
    """A row of the paper's table: measured on a Titan X, with Caffe."""

    memory_mb: int
    size_mb: int
    updates_per_second: float


_TABLE = (
    ("dense fc-1", Network("dense", 1), Paper(2267, 1150, 6.5)),
    ("dense fc-2", Network("dense", 2), Paper(3066, 1165, 4.2)),
    ("dense fc-3", Network("dense", 3), Paper(3914, 1232, 1.4)),
    ("masked fc-1", Network("masked", 1), Paper(2092, 1150, 5.5)),
    ("masked fc-2", Network("masked", 2), Paper(2138, 1165, 5.4)),
    ("masked fc-3", Network("masked", 3), Paper(2234, 1232, 5.1)),
    ("sparse fc-1", Network("sparse", 1), Paper(322, 60, 43.3)),
    ("sparse fc-2", Network("sparse", 2), Paper(368, 74, 38.7)),
    ("sparse fc-3", Network("sparse", 3), Paper(465, 144, 24.5)),
    ("sparse conv-7 fc-3", Network("sparse", 3, conv7=True), Paper(1024, 686, 8.8)),
)
PAPER = {name: paper for name, _, paper in _TABLE}
ROWS = {name: network for name, network, _ in _TABLE} | {"backbone": Network("backbone", 1)}


def measure_row(
    name: str,
    sizes: Sizes,
    device: torch.device,
    run: Line,
    seconds: float,
    repeat: Callable[[Callable[[], object], int], object],
) -> Line:
    """One row, checked, measured and appended to the results.

    After one update to warm up there are ITERATIONS, or as many as fit into so many `seconds`,
    LEAST at least.

    Args:
        repeat: calls the update so many times.

    Raises:
        MemoryError: there is not memory enough, and the system ended the process.
    """
    of_row = (ROWS[name], sizes, device)
    updates = in_own_process(_updates, *of_row) if device.type == "cpu" else _updates(*of_row)
    first = next(updates)
    others: list[Line] = []
    count = max(LEAST, min(ITERATIONS, int(seconds / first["seconds"])))
    repeat(lambda: others.append(next(updates)), count)
    updates.close()  # and its process or its memory with it
    took = [update.pop("seconds") for update in others]
    figures = {**others[-1], **Samples(took).summary()}
    figures["updates_per_second"] = len(took) / math.fsum(took)
    figures["spread"] = [1 / max(took), 1 / min(took)]
    row = {"row": name, **asdict(ROWS[name]), **asdict(sizes), "scaled": sizes != Sizes()}
    return append("table4", run, {**row, **figures})


def _updates(network: Network, sizes: Sizes, device: torch.device) -> Generator[Line, None, None]:
    """Seconds of one update after another, and all else that is known of the row."""
    error = check_mode(network, device)
    if not error < 1e-4:
        raise AssertionError(f"{network} differs from the sparse network by {error:.2g}")
    on_cpu = device.type == "cpu"
    if not on_cpu:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    before = high_water_mark() if on_cpu else torch.cuda.memory_allocated(device)
    model = build(network, sizes, device)
    once = step(network, model, sizes, device)
    parts = model.backbone if network.mode == "backbone" else model
    while True:
        # On a GPU an update takes far longer than the host needs to issue it.
        (seconds,) = time_calls([once], device, 0.01)
        peak = high_water_mark() if on_cpu else torch.cuda.max_memory_allocated(device)
        yield {
            "error": error,
            "features": sum(model.head.in_channels),
            "parameters": sum(p.numel() for p in parts.parameters()),
            "memory_bytes": peak - before,
            "seconds": seconds,
        }
