"""Compile, instead of launch, whatever a launcher launches: for any target, on any machine.

Triton asks the active driver for which GPU to compile. A stand-in answers that question, and
every launch inside :func:`compiling_for` stops after the compilation. So the kernels are compiled
by the library's own launchers, called with CPU tensors: same arguments, specialised in the same
way, same options.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

__all__ = ["PRODUCTS", "TARGETS", "Launch", "Target", "compiling_for"]


@dataclass(frozen=True)
class Target:
    """A GPU as Triton names it, and the shared memory (bytes) one block may use there."""

    gpu: GPUTarget
    shared: int


TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), shared=163 * 1024),
    "sm_86": Target(GPUTarget("cuda", 86, 32), shared=99 * 1024),
    "sm_90": Target(GPUTarget("cuda", 90, 32), shared=227 * 1024),
    "sm_100": Target(GPUTarget("cuda", 100, 32), shared=227 * 1024),
    "sm_120": Target(GPUTarget("cuda", 120, 32), shared=99 * 1024),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), shared=64 * 1024),
}
#: The instruction that multiplies matrices.
PRODUCTS = {
    **dict.fromkeys(("sm_80", "sm_86", "sm_120"), "HMMA"),
    "sm_90": "HGMMA",
    "sm_100": "UTCHMMA",
    "gfx942": "MFMA",
}


class _Driver:
    """As much of a Triton driver as compiling takes. There is no device behind it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_current_device(self) -> str:
        # A kernel keeps its compiled code per device: with the target as the device, what was
        # compiled for one target is never mistaken for another's.
        return self.name

    def set_current_device(self, device: str) -> None:
        pass

    def get_current_stream(self, device: str | None = None) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return TARGETS[self.name].gpu

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


@dataclass(frozen=True)
class Launch:
    """One launch that was compiled: which kernel, with which tile and options, and the result."""

    kernel: str
    target: str
    grid: tuple[int, ...]
    compiled: CompiledKernel = field(repr=False)
    #: What the launch tells a profiler: its name, FLOPs and bytes.
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def config(self) -> str:
        """Tile sizes (the constexpr arguments BLOCK_*), warps, stages, register limit."""
        options = self.compiled.metadata
        limit = getattr(options, "maxnreg", None)
        return " ".join(
            [
                "x".join(str(size) for size in self._tile().values()),
                f"w{options.num_warps}",
                f"s{options.num_stages}",
                *([f"r{limit}"] if limit else []),
            ]
        )

    def _tile(self) -> dict[str, Any]:
        source = self.compiled.src
        constants = {
            source.fn.arg_names[path[0]]: value
            for path, value in source.constants.items()
            if len(path) == 1
        }
        # In the order of the signature, which is the order in which a kernel names its tile.
        return {n: constants[n] for n in source.fn.arg_names if n.startswith("BLOCK_")}


@contextmanager
def compiling_for(name: str) -> Iterator[list[Launch]]:
    """Within the block launches only compile for ``TARGETS[name]``; the list collects them.

    The stand-in stays the active driver afterwards: a machine without a GPU has no other to go
    back to. A process that compiles ahead of time should therefore launch nothing.

    >>> with compiling_for("sm_90") as launches:
    ...     gather(Sampling(maps, points, None, geometry))  # CPU tensors; nothing is computed
    >>> launches[0].compiled.asm["ptx"]
    """
    launches: list[Launch] = []
    launch_or_compile = JITFunction.run

    def compile_only(
        kernel: JITFunction[Any], *args: Any, grid: Any, warmup: bool = True, **options: Any
    ) -> CompiledKernel:
        compiled = launch_or_compile(kernel, *args, grid=grid, warmup=True, **options)
        metadata = {}
        if kernel.launch_metadata is not None:
            named = {key: value for key, value in options.items() if key in kernel.arg_names}
            arguments = inspect.signature(kernel.fn).bind(*args, **named).arguments
            metadata = kernel.launch_metadata(grid, compiled.metadata, arguments)
        launches.append(Launch(kernel.__name__, name, tuple(grid), compiled, metadata))
        return compiled

    driver.set_active(_Driver(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JITFunction, "run", compile_only)
        yield launches
