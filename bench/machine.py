"""The machine: its name and versions, for every line of results, and its measured roofs."""

from __future__ import annotations

import datetime
import os
from typing import Any

import torch

from .planning import environment, source_commit
from .timing import Function, in_turns


def chosen_device() -> torch.device:
    """PIXELNET_TEST_DEVICE, otherwise the GPU if there is one; made the current device."""
    available = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(os.environ.get("PIXELNET_TEST_DEVICE") or available)
    if device.type == "cuda":
        if device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        torch.cuda.set_device(device)  # events and graphs are of the current device
    return device


#: Where everything runs.
DEVICE = chosen_device()


#: Of the matrices and, in megabytes, of the copy that measure the roofs.
SIZES = {"cpu": (2048, 512), "cuda": (8192, 2048)}


def identity(device: torch.device) -> dict[str, Any]:
    """The key of a run: device, versions, commit, date."""
    facts, now = environment(), datetime.datetime.now(datetime.timezone.utc)
    if device.type == "cpu":
        cpu = facts["cpu"]
        name = f"{cpu['name']}, {cpu['threads']} threads, {cpu['vector_instructions']}"
    else:
        name = torch.cuda.get_device_name(device)
    return {
        "date": now.isoformat(timespec="seconds"),
        "device": name,
        "kind": device.type,
        "threads": torch.get_num_threads(),
        "python": facts["python"],
        "torch": torch.__version__,
        "triton": facts["versions"]["triton"],
        "library": facts["versions"]["pixelnet-triton"],
        "commit": source_commit(),
    }


def measured_roofs(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """FLOP/s and bytes/s of a large matrix product, 2 n^3 FLOPs, and of a large copy, 2 bytes moved
    for each copied."""
    n, megabytes = SIZES[device.type]
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(a)
    source = torch.ones(megabytes << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    calls: dict[str, list[Function]] = {
        "flops": [lambda: torch.matmul(a, b, out=product)],
        "bytes": [lambda: target.copy_(source)],
    }
    seconds = {name: figures["p20"] for name, figures in in_turns(calls, device).items()}
    work = {"flops": 2 * n**3, "bytes": 2 * source.nbytes}
    return {name: work[name] / seconds[name] for name in work}
