"""The machine: its name and versions, for every line of results, and its measured roofs."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .planning import cpu_name, environment, source_commit
from .timing import quantile, time_calls


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


@dataclass(frozen=True)
class Roofs:
    """What this machine reaches at its best, measured in the run: FLOP/s and bytes/s."""

    flops: float
    bytes: float


def identity(device: torch.device) -> dict[str, str | int | None]:
    """The key of a run: device, versions, commit, date."""
    on_cpu = device.type == "cpu"
    versions = environment()["versions"]
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "date": now.isoformat(timespec="seconds"),
        "device": cpu_label() if on_cpu else torch.cuda.get_device_name(device),
        "kind": device.type,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": versions["triton"],
        "library": versions["pixelnet-triton"],
        "commit": source_commit(),
    }


def cpu_label() -> str:
    """The processor, its threads in use and the instructions that torch uses."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{cpu_name()}, {torch.get_num_threads()} threads, {capability}"


def measured_roofs(device: torch.device, dtype: torch.dtype) -> Roofs:
    """A large matrix product, 2 n^3 FLOPs, and a large copy, 2 bytes moved for each copied."""
    n, megabytes = SIZES[device.type]
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(a)
    source = torch.ones(megabytes << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def seconds(call: Callable[[], object]) -> float:
        call()
        return quantile(time_calls([call] * 7, device, 20e-6), 0.2)

    return Roofs(
        2 * n**3 / seconds(lambda: torch.matmul(a, b, out=product)),
        2 * source.nbytes / seconds(lambda: target.copy_(source)),
    )
