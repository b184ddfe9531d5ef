"""Launches go to the simulator: -p tests.fake_cuda -p tests.simulator.plugin."""

from __future__ import annotations

import os
from typing import Any

import torch
from triton import knobs
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from ..compile_gate.targets import _Driver
from . import launches

_SEED = int(os.environ.get("PIXELNET_SIMULATOR_SEED", "0"))
_TARGET = os.environ.get("PIXELNET_SIMULATOR_TARGET", "sm_90")
_run = JITFunction.run


def _simulate(kernel: Any, *args: Any, grid: Any, warmup: bool = False, **named: Any) -> Any:
    compiled = _run(kernel, *args, grid=grid, warmup=True, **named)
    if not warmup and all(grid):
        launches.run(compiled, kernel, grid, args, named, _SEED)
    return compiled


def pytest_configure() -> None:
    JITFunction.run = _simulate
    # ptxas takes half of the time, and its binary is not what runs here. So that nobody else
    # takes these kernels for whole ones, they are kept apart.
    CUDABackend.make_cubin = lambda *_: b""
    # By then a worker of pytest-xdist has the folder of the process that started it.
    if os.path.basename(knobs.cache.dir) != "simulator":
        knobs.cache.dir = os.path.join(knobs.cache.dir, "simulator")
    driver.set_active(_Driver(_TARGET))
    capability = divmod(int(_TARGET.removeprefix("sm_")), 10)
    torch.cuda.get_device_capability = lambda device=None: capability  # type: ignore[assignment]
    os.environ["PIXELNET_TRITON_BACKEND"] = "triton"
