"""A GPU that is not there: `torch.cuda` recorded, and its tensors on the CPU.

    python -m pytest -p tests.fake_cuda ...
    python -m tests.fake_cuda FILE             # which lines that speak to a GPU were not reached?

It serves dry runs of code that is for a GPU alone, so that no typo in it waits for one. It is as
strict as a real GPU where that has mattered: a device without an index cannot be made the current
one. Loaded as a plugin it also makes the workloads of the benchmarks small. The lines that called
`torch.cuda` are noted in the file that FAKE_CUDA_REACHED names.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from triton.runtime.driver import driver

from .compile_gate.targets import _Driver

__all__ = ["FakeCuda", "unreached"]

ROOT = Path(__file__).resolve().parent.parent
FOR_A_GPU = (*sorted((ROOT / "bench").glob("*.py")), ROOT / "pixelnet_triton" / "selfcheck.py")


def _noting(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; whoever calls it is noted."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1)
        if path := os.environ.get("FAKE_CUDA_REACHED"):
            with open(path, "a") as file:
                file.write(f"{caller.f_code.co_filename}:{caller.f_lineno}\n")
        return function(*args, **kwargs)

    return called


def unreached(reached: Path) -> list[str]:
    """The lines of FOR_A_GPU that call `torch.cuda`, but for those noted in a file."""
    noted = set(reached.read_text().splitlines())
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in FOR_A_GPU
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"torch\.cuda\.\w+\(", line) and f"{path}:{number}" not in noted
    ]


class OnCpu(TorchFunctionMode):
    """Tensors that are asked for on a GPU are made on the CPU."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.device:
            return function(*args, **kwargs)
        if str(kwargs.get("device", "")).startswith("cuda"):
            kwargs["device"] = "cpu"
        args = tuple("cpu" if isinstance(a, torch.device) and a.type == "cuda" else a for a in args)
        return function(*args, **kwargs)


class Event:
    """The wall's time, if it was asked for."""

    def __init__(self, enable_timing: bool = False) -> None:
        self._timing, self._time = enable_timing, -1.0

    def record(self, stream: object = None) -> None:
        self._time = time.perf_counter()

    def synchronize(self) -> None:
        assert self._time > 0, "never recorded"

    def elapsed_time(self, end: Event) -> float:
        assert self._timing, "an event without timing"
        assert end._time >= self._time > 0
        return 1e3 * (end._time - self._time) or 1e-6


class Graph:
    """Replays nothing, but only after it was captured."""

    captured = False

    def replay(self) -> None:
        assert self.captured


class Generator(torch.Generator):
    """Of the CPU, whatever is asked for; a type, because torch's own files name it as one."""

    def __new__(cls, device: object = "cpu") -> Generator:
        return super().__new__(cls, "cpu")


class Stream:
    def __init__(self, device: object = None) -> None:
        self.device = device

    def wait_stream(self, other: Stream) -> None:
        assert isinstance(other, Stream)


class FakeCuda:
    """What stands in for functions of `torch.cuda`; `calls` counts them."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.allocated = self.peak = 1 << 20
        self.functions = {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "set_device": self._set_device,
            "synchronize": self._with_index("synchronize"),
            "empty_cache": self._count("empty_cache"),
            "reset_peak_memory_stats": self._reset_peak,
            "memory_allocated": lambda device=None: self.allocated,
            "max_memory_allocated": lambda device=None: self.peak,
            "get_device_name": lambda device=None: "A GPU that is not there",
            "get_device_capability": lambda device=None: (9, 0),
            "get_device_properties": lambda device=None: SimpleNamespace(
                name="A GPU that is not there",
                major=9,
                minor=0,
                total_memory=80 << 30,
                multi_processor_count=132,
                L2_cache_size=50 << 20,
                clock_rate=1_700_000,
                memory_clock_rate=2_600_000,
                memory_bus_width=5120,
            ),
            "Event": Event,
            "Stream": Stream,
            "CUDAGraph": Graph,
            "graph": self._graph,
            "stream": lambda stream: contextlib.nullcontext(),
            "current_stream": lambda device=None: Stream(),
        }

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name, function in self.functions.items():
            patch.setattr(torch.cuda, name, _noting(function))
        patch.setattr("bench.timing.BUSY_BYTES", 1 << 10)  # clearing them is slow here
        patch.setattr("bench.timing.BUSY_SECONDS", 1e-9)
        patch.setattr("bench.timing.ROUNDS", 2)
        patch.setattr("bench.timing.CALLS", {"cuda": 4})
        patch.setattr(torch, "Generator", Generator)
        patch.setattr(torch, "compile", lambda function, **options: function)

    def _count(self, name: str) -> Any:
        def counted(*arguments: object) -> None:
            self.calls[name] += 1

        return counted

    def _with_index(self, name: str) -> Any:
        def counted(device: torch.device | None = None) -> None:
            assert device is None or torch.device(device).type == "cuda"
            self.calls[name] += 1

        return counted

    def _reset_peak(self, device: torch.device) -> None:
        """As if something took 4 KiB after it."""
        self._with_index("reset_peak_memory_stats")(device)
        self.peak = self.allocated + 4096

    def _set_device(self, device: torch.device) -> None:
        if torch.device(device).index is None:
            raise ValueError(f"Expected a torch.device with a specified index, got {device}")
        self.calls["set_device"] += 1

    @contextlib.contextmanager
    def _graph(self, graph: Graph) -> Iterator[None]:
        self.calls["graph"] += 1
        yield
        graph.captured = True


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """As a plugin, for a whole session: before anything of it is imported."""
    FakeCuda().install(pytest.MonkeyPatch())
    OnCpu().__enter__()
    driver.set_active(_Driver("sm_90"))  # kernels are compiled for it (compile_only.py)
    import bench.table4
    from bench import machine, workloads

    small = {"layers": ((3, 8, 8), (5, 4, 4)), "image_size": (16, 16), "images": 2, "points": 7}
    workloads.WORKLOADS = tuple(
        replace(w, **small, out_features=11)  # type: ignore[arg-type]
        for w in workloads.WORKLOADS
    )
    sizes = bench.table4.Sizes(side=64, samples_per_image=10, hidden=8, width=1 / 16)
    bench.table4.SIZES["cuda"] = sizes
    machine.SIZES["cuda"] = (64, 1)
    assert str(machine.DEVICE) == "cuda:0"


if __name__ == "__main__":
    missing = unreached(Path(sys.argv[1]))
    print("\n".join(missing) or "every line that calls torch.cuda was reached")
    sys.exit(bool(missing))
