"""A launch as Triton's own launcher would make it: which bytes a kernel gets as its parameters."""

from __future__ import annotations

import inspect
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from triton.compiler import CompiledKernel
from triton.tools.tensor_descriptor import TensorDescriptor

from . import machine
from .program import Parameter, Program

__all__ = ["run"]

_FORMATS = {
    "i1": "i", "i8": "b", "i16": "h", "i32": "i", "i64": "q",
    "u1": "I", "u8": "B", "u16": "H", "u32": "I", "u64": "Q", "fp32": "f", "fp64": "d",
}  # fmt: skip
_PROGRAMS: dict[str, Program] = {}


def run(
    compiled: CompiledKernel,
    kernel: Any,
    grid: Sequence[int],
    arguments: Sequence[Any],
    named: Mapping[str, Any],
    seed: int,
) -> None:
    """Run `kernel[grid](*arguments, **named)`, which was compiled for an NVIDIA GPU.

    The kernel may touch what the tensors among the arguments own, and nothing else.
    """
    ptx = compiled.asm["ptx"]
    if ptx not in _PROGRAMS:
        _PROGRAMS[ptx] = Program(ptx)
    program = _PROGRAMS[ptx]
    own = {name: value for name, value in named.items() if name in kernel.arg_names}
    bound = inspect.signature(kernel.fn).bind(*arguments, **own)
    bound.apply_defaults()
    maps = iter(getattr(compiled.metadata, "tensordesc_meta", None) or ())
    parameters = bytearray(program.parameter_bytes)
    tensors: list[Tensor] = []
    places = iter(program.layout)
    signature = compiled.src.signature
    for name, value in bound.arguments.items():
        for kind, leaf in _leaves(signature[name], value):
            if isinstance(leaf, TensorDescriptor):
                tensors.append(leaf.base)
                _put_map(parameters, places, leaf, next(maps))
                continue
            place = next(places)
            if isinstance(leaf, Tensor):
                tensors.append(leaf)
                kind, leaf = "u64", leaf.data_ptr()
            struct.pack_into(_FORMATS[kind], parameters, place.offset, leaf)
            assert struct.calcsize(_FORMATS[kind]) == place.size, (name, kind, place)
    assert len(list(places)) <= 2, f"{kernel.__name__} has more parameters than a launch gives"
    regions = [_owned(tensor) for tensor in tensors]
    machine.run(program, grid, bytes(parameters), compiled.metadata.shared, regions, seed)


def _leaves(kind: Any, value: Any) -> Iterator[tuple[str, Any]]:
    """What of an argument is left at run time, by its type."""
    if isinstance(kind, (tuple, list)):
        for inner_kind, inner in zip(kind, value, strict=True):
            yield from _leaves(inner_kind, inner)
    elif kind != "constexpr":
        yield kind, value


def _owned(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.data_ptr() + storage.nbytes()


def _put_map(
    parameters: bytearray,
    places: Iterator[Parameter],
    tiles: TensorDescriptor,
    compiled_for: Mapping[str, Any],
) -> None:
    """What TMA is told (TileMap in core/program.hpp), then sizes and strides as numbers."""
    matrix, itemsize = tiles.base, tiles.base.itemsize
    (rows, columns), (stride, one) = tiles.shape, tiles.strides
    assert one == 1
    assert stride * itemsize % 16 == 0, "TMA takes rows that begin at multiples of 16 bytes"
    assert matrix.data_ptr() % 16 == 0
    height, width = compiled_for["block_size"]
    struct.pack_into(
        "<QIIIIQII", parameters, next(places).offset, matrix.data_ptr(), columns, rows,
        width, height, stride * itemsize, itemsize, compiled_for["swizzle"],
    )  # fmt: skip
    for number in (rows, columns):
        struct.pack_into("<i", parameters, next(places).offset, number)
    for number in (stride, one):
        struct.pack_into("<q", parameters, next(places).offset, number)
