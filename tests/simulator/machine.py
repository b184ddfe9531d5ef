"""The machine itself: core/ compiled by the C++ compiler that is there, and run."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from .program import Program

__all__ = ["SimulationError", "compiler", "run"]

_CORE = Path(__file__).parent / "core"
# Registers lie as bytes and are read as what they hold.
_OPTIONS = ("-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-fno-strict-aliasing")


class SimulationError(RuntimeError):
    """A kernel did what a GPU does not promise to do as it was meant."""


def compiler() -> str | None:
    """What compiles C++ on this machine."""
    return shutil.which(os.environ.get("CXX") or "c++")


def built_for(command: str, options: Sequence[str]) -> bytes:
    """What a library depends on but for its sources: the compiler, and what it takes this CPU for.

    -march=native is another CPU elsewhere, and a folder of caches may be shared or copied. The
    macros that a compiler defines beforehand name its version and every kind of instruction.
    """
    macros = [command, *options, "-dM", "-E", "-x", "c++", os.devnull]
    return subprocess.run(macros, check=True, stdout=subprocess.PIPE).stdout


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    """Built once for these sources, this compiler and this CPU, beside what Triton compiles."""
    command = compiler()
    if command is None:
        raise SimulationError("no C++ compiler was found: install one, or name it in CXX")
    parts = [path.read_bytes() for path in sorted(_CORE.iterdir())]
    parts += [" ".join((command, *_OPTIONS)).encode(), built_for(command, _OPTIONS)]
    digest = hashlib.sha256(b"".join(parts)).hexdigest()[:16]
    cache = Path(os.environ.get("TRITON_CACHE_DIR", Path.home() / ".triton" / "cache"))
    built = cache / f"simulator-{digest}.so"
    if not built.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            output = Path(folder) / "simulator.so"
            source = str(_CORE / "simulator.cpp")
            build = [command, *_OPTIONS, "-Wall", "-Wextra", "-shared", "-fPIC", "-o", str(output)]
            subprocess.run([*build, source], check=True)
            output.replace(built)
    return ctypes.CDLL(str(built))


def run(
    program: Program,
    grid: Sequence[int],
    parameters: bytes,
    shared: int,
    regions: Sequence[tuple[int, int]],
    seed: int = 0,
) -> None:
    """Run a grid of blocks on this machine's memory.

    Args:
        parameters: as `program.layout` says. shared: bytes of shared memory.
        regions: (begin, end) of the memory that the kernel may touch, in any order.
        seed: of the order of blocks and warps; 0 takes them by their numbers.

    Raises:
        SimulationError: for the first thing that a GPU might do otherwise.
    """
    ctypes.memmove(program.parameters_at, parameters, len(parameters))
    x, y, z = (*grid, 1, 1)[:3]
    message = ctypes.create_string_buffer(1000)
    known = np.array(_joined(regions), np.uint64)
    failed = _library().run_grid(
        _pointer(program.code),
        len(program.code),
        _pointer(program.operands),
        ctypes.c_void_p(program.parameters_at),
        program.register_bytes,
        program.warps,
        (ctypes.c_uint32 * 3)(x, y, z),
        ctypes.c_uint32(shared),
        _pointer(known),
        len(known),
        ctypes.c_uint32(seed),
        message,
        len(message),
    )
    if failed:
        raise SimulationError(message.value.decode())


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _joined(regions: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """In order, those that overlap as one."""
    joined: list[tuple[int, int]] = [(0, 0)]
    for begin, end in sorted(regions):
        if begin < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined
