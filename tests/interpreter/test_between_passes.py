"""What may change between the passes of a call: autocast, hooks, layouts, switches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor

from pixelnet_triton import Plan, sparse_hypercolumn
from pixelnet_triton.call import Route

IMAGE, OUTPUTS, CHANNELS = (16, 24), 12, (8, 16)
WRITES = [("scatter", "scatter"), ("collect", "collect"), ("scatter", "collect")]


def _tokens(channels: int, rows: int, columns: int) -> Tensor:
    """As a vision transformer has them, behind a class token."""
    tokens = torch.randn(2, 1 + rows * columns, channels)
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (rows, columns))


def _last(channels: int, rows: int, columns: int) -> Tensor:
    maps = torch.randn(2, channels, rows, columns)
    return maps.contiguous(memory_format=torch.channels_last)


LAYOUTS: dict[str, Callable[[int, int, int], Tensor]] = {
    "NCHW": lambda *size: torch.randn(2, *size),
    "NHWC": _last,
    "tokens": _tokens,
    "crop": lambda channels, rows, columns: _last(channels, rows + 2, columns + 1)[:, :, 1:-1, 1:],
    "turned": lambda channels, rows, columns: _last(channels, columns, rows).transpose(2, 3),
    "channels": lambda channels, rows, columns: _last(channels + 3, rows, columns)[:, 3:],
}


def leaves(layout: str, seed: int = 0) -> list[Tensor]:
    """Two maps, weight and bias."""
    torch.manual_seed(seed)
    make = LAYOUTS[layout]
    maps = [make(c, 8 >> i, 12 >> i).detach() for i, c in enumerate(CHANNELS)]
    return [*maps, torch.randn(OUTPUTS, sum(CHANNELS)), torch.randn(OUTPUTS)]


def gradients(
    given: list[Tensor],
    write: tuple[str, str],
    forward: Callable[[], AbstractContextManager[object]],
    backward: Callable[[], AbstractContextManager[object]],
) -> list[Tensor]:
    """Of the sum of squares, each pass inside a context."""
    first, second, weight, bias = [t.requires_grad_() for t in given]
    route = Route("", "", ("gather", "project_rows"), write)
    plan = Plan(("gather", "project"), "two_step", route)
    points = torch.rand(2, 9, 2, generator=torch.Generator().manual_seed(5)) * 20
    with forward():
        value = sparse_hypercolumn(
            [first, second], points, IMAGE, weight=weight, bias=bias, activation="relu", plan=plan
        )
    with backward():
        return list(torch.autograd.grad(value, given, value.detach()))


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def moved() -> torch.autograd.graph.saved_tensors_hooks:
    """As `save_on_cpu(pin_memory=True)` does it, which forgets strides."""
    return torch.autograd.graph.saved_tensors_hooks(
        lambda t: torch.empty(t.size(), dtype=t.dtype).copy_(t), lambda t: t
    )


@pytest.mark.parametrize("write", WRITES, ids="-".join)
def test_a_backward_pass_inside_autocast(write: tuple[str, str]) -> None:
    """Where the forward pass was not: its dtypes hold, for calls settled before and after."""
    expected = gradients(leaves("NHWC"), write, nullcontext, nullcontext)
    for backward in (autocast, nullcontext, autocast):
        for ours, theirs in zip(
            gradients(leaves("NHWC"), write, nullcontext, backward), expected, strict=True
        ):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("write", WRITES, ids="-".join)
def test_saved_maps_may_come_back_with_other_strides(write: tuple[str, str], layout: str) -> None:
    expected = gradients(leaves(layout), write, nullcontext, nullcontext)
    for hooks in (moved, nullcontext, moved):
        for ours, theirs in zip(
            gradients(leaves(layout), write, hooks, nullcontext), expected, strict=True
        ):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("write", WRITES, ids="-".join)
def test_gradients_have_the_strides_that_tracing_expects(
    write: tuple[str, str], layout: str
) -> None:
    given = leaves(layout)
    for leaf, gradient in zip(
        given, gradients(given, write, nullcontext, nullcontext), strict=True
    ):
        assert gradient.stride() == torch.empty_like(leaf).stride()


SWITCHES = """
import torch
from pixelnet_triton.kernels.launch import precision
torch.backends.{switch} = "tf32"
print(precision(torch.float32))
"""


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch has no such switch"
)
@pytest.mark.parametrize("switch", ["fp32_precision", "cuda.matmul.fp32_precision"])
def test_the_new_switch_of_tf32(switch: str) -> None:
    """After which torch raises where the old ones are read: in a process of its own."""
    code = SWITCHES.format(switch=switch)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tf32"]
