"""A stand-in for compiled kernels, and launches with any one argument changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
import triton
from torch import Tensor
from triton.runtime.driver import driver

from .targets import Target

__all__ = [
    "Call",
    "Compiled",
    "Driver",
    "Ran",
    "leaves",
    "misaligned",
    "takes_direct_launches",
    "variants",
]

# By its number: a later version that direct launches do not know is to be noticed.
takes_direct_launches = pytest.mark.skipif(
    tuple(map(int, triton.__version__.split(".")[:2])) < (3, 6),
    reason="this version of Triton launches everything itself",
)


class Call(NamedTuple):
    """A launch as the library asks for it."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    named: dict[str, Any]


class Ran(NamedTuple):
    """A compiled kernel that was run: all that its launcher was given."""

    compiled: Any
    grid: tuple[int, ...]
    stream: int
    loaded: tuple[Any, ...]
    arguments: tuple[Any, ...]

    def same(self, other: Ran) -> bool:
        """The very same tensors, and equal numbers."""
        mine, theirs = leaves(self.arguments), leaves(other.arguments)
        if self[:4] != other[:4] or len(mine) != len(theirs):
            return False
        pairs = zip(mine, theirs, strict=True)
        return all(a is b or (type(a) is type(b) and a == b) for a, b in pairs)


class Compiled:
    """As much of Triton's `CompiledKernel` as a launch takes."""

    def __init__(self, source: Any, **options: Any) -> None:
        self.module, self.function, self.packed_metadata = object(), object(), object()

    def launch_metadata(self, *arguments: Any) -> None:
        return None

    def run(self, x: int, y: int, z: int, stream: int, *rest: Any) -> None:
        active = driver.active
        active.ran.append(Ran(self, (x, y, z), stream, rest[:2], rest[5:]))
        active.hooked += rest[2:5] != (None, None, None)


class Driver:
    """A GPU that is not there, and what was run on it."""

    def __init__(self, target: Target) -> None:
        self.target, self.device, self.stream = target.gpu, 0, 7
        self.ran: list[Ran] = []
        self.hooked = 0

    def get_current_device(self) -> object:
        # Not to be mistaken for a device of another test, for which kernels keep what they compiled
        return (id(self), self.device)

    def get_current_stream(self, device: object) -> int:
        return self.stream

    def get_current_target(self) -> Any:
        return self.target

    def take(self) -> Ran:
        (only,) = self.ran
        self.ran.clear()
        return only


def leaves(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return [leaf for inner in value for leaf in leaves(inner)]
    return [value]


def misaligned(tensor: Tensor) -> Tensor:
    """One of the same shape and strides, two or more bytes past an aligned address."""
    shape, strides = tensor.shape, tensor.stride()
    last = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    return torch.empty(last + 2, dtype=tensor.dtype)[1:].as_strided(shape, strides)


def changes(value: Any) -> Iterator[Any]:
    """The value with one leaf changed: whatever a kernel may be compiled for, and much else."""
    if isinstance(value, tuple):
        for i, inner in enumerate(value):
            for other in changes(inner):
                changed = (*value[:i], other, *value[i + 1 :])
                yield type(value)(*changed) if hasattr(value, "_fields") else changed
    elif isinstance(value, Tensor):
        yield misaligned(value)
        yield torch.empty_like(value)
        yield value.to(torch.float16)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (1, 3, 16, 48, 5, 2**31, 2**31 + 16)
    elif isinstance(value, float):
        yield from (1.0, 16.0, 0.5)
    elif value is None or isinstance(value, str):
        yield "another"


def variants(call: Call) -> Iterator[Call]:
    """The call, and the call with any one argument or option changed."""
    yield call
    for i, value in enumerate(call.arguments):
        for other in changes(value):
            rest = (*call.arguments[:i], other, *call.arguments[i + 1 :])
            yield call._replace(arguments=rest)
    for name, value in call.named.items():
        for other in changes(value):
            if name != "num_warps" or other in (1, 16):  # Triton takes powers of two
                yield call._replace(named=call.named | {name: other})
