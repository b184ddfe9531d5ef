"""Small functions of the kernels, alone: on a GPU or in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from .conftest import needs_kernels

pytestmark = needs_kernels
triton = pytest.importorskip("triton")
tl = triton.language

from pixelnet_triton.kernels.blocks import all_finite  # noqa: E402
from pixelnet_triton.kernels.entries import _divided  # noqa: E402

BLOCK = 4096


@triton.jit
def _divide_kernel(out, n, first, BLOCK: tl.constexpr):
    k = first + tl.arange(0, BLOCK)
    quotient, rest = _divided(k.to(tl.float32), n)
    tl.store(out + tl.arange(0, BLOCK), quotient.to(tl.int32))
    tl.store(out + BLOCK + tl.arange(0, BLOCK), rest.to(tl.int32))


@pytest.mark.parametrize("first", [0, (1 << 21) - BLOCK])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 14, 28, 49, 224, 1000, 4095, 4096])
def test_whole_numbers_divide_in_float32(device: torch.device, n: int, first: int) -> None:
    """Those that a band counts to: at most 4,096 cells, and as many rows before them."""
    out = torch.empty(2, BLOCK, dtype=torch.int32, device=device)
    _divide_kernel[(1,)](out, float(n), first, BLOCK)
    k = torch.arange(first, first + BLOCK, dtype=torch.int32, device=device)
    assert torch.equal(out[0], k // n)
    assert torch.equal(out[1], k % n)


@triton.jit
def _finite_kernel(out, x, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    tl.store(out, all_finite(tl.load(x + at)).to(tl.int32))


@pytest.mark.parametrize(
    ("value", "finite"),
    [
        (torch.finfo(torch.float32).max, True),
        (torch.finfo(torch.float32).min, True),
        (1e-45, True),
        (torch.inf, False),
        (-torch.inf, False),
        (torch.nan, False),
        (-torch.nan, False),
    ],
)
def test_one_number_of_a_tile_is_not_finite(
    device: torch.device, value: float, finite: bool
) -> None:
    x = torch.randn(32, 32, device=device)
    x[5, 7] = value
    out = torch.full((1,), -1, dtype=torch.int32, device=device)
    _finite_kernel[(1,)](out, x, 32)
    assert bool(out.item()) is finite
    assert out.item() in (0, 1)
