"""Kernels are compiled into Triton's cache and loaded, not launched: -p tests.compile_only.

It goes through the tests that would launch them. What they then compare has not been computed, so
that it is wrong is no failure here; that a kernel does not compile, or does not fit the device, is.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import Tensor
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from . import poison

_run = JITFunction.run


def _compile(kernel: Any, *args: Any, grid: Any, warmup: bool = True, **options: Any) -> Any:
    compiled = _run(kernel, *args, grid=grid, warmup=True, **options)
    if not _stands_in():
        _ = compiled.run  # what runs it, and the binary on the device
    return compiled


def _stands_in() -> bool:
    """For a GPU that is not there: nothing can be loaded into it, and its tensors are a CPU's."""
    return not hasattr(driver.active, "launcher_cls")


def _empty(*size: Any, memory_format: torch.memory_format | None = None, **options: Any) -> Tensor:
    tensor = torch.zeros(*size, **options)
    return tensor if memory_format is None else tensor.contiguous(memory_format=memory_format)


def _zeroed(allocate: Any) -> Any:
    return lambda *args, **options: allocate(*args, **options).zero_()


def pytest_configure() -> None:
    JITFunction.run = _compile
    # What no kernel has written may be an index into other tensors.
    torch.empty = _empty
    Tensor.new_empty = _zeroed(Tensor.new_empty)  # type: ignore[method-assign]
    poison._poisoning = _zeroed
    if _stands_in():
        os.environ["PIXELNET_TRITON_BACKEND"] = "triton"


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    try:
        return (yield)
    except AssertionError:
        return True
