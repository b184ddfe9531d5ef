"""Small programs in PTX, run on arrays: what the tests of the simulator are made of."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from .machine import compiler, run
from .program import Program

__all__ = ["SHARED", "each_thread", "launch", "needs_a_compiler", "tile_of"]

needs_a_compiler = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")

#: Bytes of shared memory, at `memory`.
SHARED = 1 << 15


def launch(
    body: str,
    *arrays: np.ndarray,
    threads: int = 32,
    owned: int | None = None,
    seed: int = 0,
    tile: tuple[np.ndarray, int, int, int] | None = None,
) -> None:
    """Run PTX on arrays, whose addresses are in %a0, %a1, ...; %t is the thread.

    `owned` bytes of the first array belong to the launch; all of them if it is not given. `tile`
    is a matrix, its tile's height and width, and the mode of swizzling: a map of it is at %map.
    """
    names = range(len(arrays))
    parameters = [".param .align 64 .b8 map[128]", *(f".param .u64 p_{n}" for n in names)]
    loads = "\n".join(f"ld.param.b64 %a{n}, [p_{n}];" for n in names)
    ptx = f"""
.extern .shared .align 16 .b8 memory[];
.visible .entry kernel({", ".join(parameters)})
.reqntid {threads}
{{
    .reg .pred %p<9>;
    .reg .b16 %h<9>;
    .reg .b32 %r<99>;
    .reg .b64 %d<9>;
    .reg .b64 %a<9>;
    .reg .b64 %map;
    .reg .b32 %t;
    .reg .b32 %f<199>;
    {loads}
    mov.b64 %map, map;
    mov.u32 %t, %tid.x;
    {body}
    ret;
}}"""
    regions = [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays]
    if owned is not None:
        regions[0] = (regions[0][0], regions[0][0] + owned)
    values = struct.pack(f"128s{len(arrays)}Q", b"", *(a.ctypes.data for a in arrays))
    if tile is not None:
        values = tile_of(*tile) + values[48:]
        regions.append((tile[0].ctypes.data, tile[0].ctypes.data + tile[0].nbytes))
    run(Program(ptx), (1,), values, SHARED, regions, seed)


def tile_of(matrix: np.ndarray, height: int, width: int, swizzle: int) -> bytes:
    """What TMA is told: TileMap in core/program.hpp."""
    rows, columns = matrix.shape
    return struct.pack(
        "<QIIIIQIIxxxxxxxx", matrix.ctypes.data, columns, rows, width, height,
        matrix.strides[0], matrix.itemsize, swizzle,
    )  # fmt: skip


def each_thread(line: str, *inputs: np.ndarray, output: Any) -> np.ndarray:
    """What an instruction makes of each thread's numbers.

    They are in %r0, %r1, ..., or in %h0, ... and %d0, ... if they have 2 or 8 bytes; the result is
    taken from %r8, %h8 or %d8.
    """
    result = np.zeros(len(inputs[0]), output)
    letter = {2: "h", 4: "r", 8: "d"}
    body = []
    for n, values in enumerate((*inputs, result)):
        size = values.itemsize
        body.append(f"mad.wide.u32 %a{n}, %t, {size}, %a{n};")
        if values is not result:
            body.append(f"ld.global.b{8 * size} %{letter[size]}{n}, [%a{n}];")
        else:
            body.append(line)
            body.append(f"st.global.b{8 * size} [%a{n}], %{letter[size]}8;")
    launch("\n".join(body), *inputs, result, threads=len(result))
    return result
