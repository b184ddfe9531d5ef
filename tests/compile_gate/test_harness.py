"""Every check of the gate can fail: small kernels that do what it forbids are found out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from .machine_code import instructions, length, loads_in_flight, resources
from .offsets import narrow_products
from .targets import PRODUCTS, TARGETS, Launch, compiling_for

ROWS, WIDTH = 64, 64


@triton.jit
def _copy_kernel(
    out, x, stride, step, WIDE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr
):
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    if WIDE:
        rows = rows.to(tl.int64)
    offsets = rows[:, None] * stride + tl.arange(0, BLOCK_C)[None, :] * step
    tl.store(out + offsets, tl.load(x + offsets))


@triton.jit
def _copy_two_kernel(out, x, FIRST_ALL: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    first = tl.load(x + i)
    if not FIRST_ALL:
        tl.store(out + i, first)
    second = tl.load(x + BLOCK + i)
    if FIRST_ALL:
        tl.store(out + i, first)
    tl.store(out + BLOCK + i, second)


@triton.jit
def _add_kernel(out, x, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.atomic_add(out + i, tl.load(x + i), sem="relaxed")


@triton.jit
def _product_kernel(out, x, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    a = tl.load(x + at)
    tl.store(out + at, tl.dot(a, a))


def copy(wide: bool = True, step: int = 1, **options: Any) -> torch.Tensor:
    """Launch a copy of (ROWS, WIDTH) half-precision numbers, `step` apart, in one tile."""
    x = torch.ones(ROWS, WIDTH * step, dtype=torch.bfloat16)
    out = torch.zeros_like(x)
    options = {"num_warps": 4, "enable_fp_fusion": True} | options
    _copy_kernel[(1,)](out, x, x.stride(0), step, wide, ROWS, WIDTH, **options)
    return out


def compile_copy(target: str = "sm_90", **options: Any) -> Launch:
    with compiling_for(target) as launches:
        copy(**options)
    return launches[0]


def test_a_launch_is_compiled_and_not_run() -> None:
    with compiling_for("sm_90") as launches:
        out = copy(num_warps=2)
    assert (out == 0).all()
    (launch,) = launches
    assert (launch.kernel, launch.grid) == ("_copy_kernel", (1,))
    assert launch.config.startswith("64x64 w2 ")


@pytest.mark.parametrize("target", TARGETS)
def test_one_process_compiles_for_every_target(target: str) -> None:
    compiled = compile_copy(target).compiled
    assert compiled.metadata.target == TARGETS[target].gpu
    assert resources(compiled).registers > 0
    assert instructions(compiled).loads
    assert instructions(compiled).stores


@pytest.mark.parametrize("first_all", [False, True])
def test_loads_in_flight_are_those_before_a_store(first_all: bool) -> None:
    x = torch.zeros(2048, dtype=torch.bfloat16)
    with compiling_for("sm_90") as launches:
        _copy_two_kernel[(1,)](x.clone(), x, first_all, 1024, num_warps=4, enable_fp_fusion=True)
    assert loads_in_flight(launches[0].compiled) == 1 + first_all
    assert length(launches[0].compiled) > 8


def test_a_spill_is_seen() -> None:
    assert resources(compile_copy(num_warps=1).compiled).spills == 0
    assert resources(compile_copy(num_warps=1, maxnreg=24).compiled).spills > 0


def test_widths_of_loads_are_told_apart() -> None:
    wide = instructions(compile_copy().compiled)
    narrow = instructions(compile_copy(step=3).compiled)
    assert set(wide.loads) == set(wide.stores) == {16}
    assert set(narrow.loads) == set(narrow.stores) == {2}


def test_a_narrow_offset_is_seen() -> None:
    assert narrow_products(compile_copy(wide=True).compiled.asm["ttir"]) == []
    (suspect,) = narrow_products(compile_copy(wide=False).compiled.asm["ttir"])
    assert "arith.muli" in suspect


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ("%1 = arith.muli %program, %c16 : i32 loc(#loc1)", 0),
        ("%1 = arith.divsi %program, %arg : i32\n%2 = arith.muli %1, %c16 : i32", 0),
        ("%1 = arith.muli %arg, %stride {tt.divisibility = dense<8> : tensor<1xi32>} : i64", 0),
        ("%1 = arith.trunci %0 : tensor<16xi32> to tensor<16xi8> loc(#loc1)", 0),
        ("%1 = arith.muli %program, %stride : i32 loc(#loc1)", 1),
        ("%1 = arith.muli %stride, %c16 : i32 loc(#loc1)", 1),
        ("%1 = arith.muli %rows, %c16 : tensor<16xi32> loc(#loc1)", 1),
        ("%1 = arith.trunci %0 : tensor<16xi64> to tensor<16xi32> loc(#loc1)", 1),
        ("%1 = arith.muli %program, %c16 : i32\n%2 = arith.shli %1, %c16 : i32", 1),
        ("scf.for %i = %0 to %1 iter_args(%2 = %0) {\n%3 = arith.muli %2, %c16 : i32", 1),
    ],
)
def test_products_in_the_intermediate_code(lines: str, count: int) -> None:
    given = "%c16 = arith.constant 16 : i32 loc(#loc)\n%program = tt.get_program_id x : i32\n"
    assert len(narrow_products(given + lines)) == count


def test_reductions_are_told_from_compare_and_swap() -> None:
    out = torch.zeros(1024, dtype=torch.bfloat16)
    counts = {}
    for target in ("sm_80", "sm_90"):
        with compiling_for(target) as launches:
            _add_kernel[(1,)](out, torch.ones_like(out), 1024, enable_fp_fusion=True)
        counts[target] = instructions(launches[0].compiled)
    assert not counts["sm_90"].compare_and_swap
    assert set(counts["sm_90"].reductions) == {16}
    assert counts["sm_80"].compare_and_swap
    assert not counts["sm_80"].reductions


def test_products_are_named() -> None:
    x = torch.ones(64, 64, dtype=torch.bfloat16)
    names = {}
    for target in TARGETS:
        with compiling_for(target) as launches:
            _product_kernel[(1,)](torch.zeros_like(x), x, 64, enable_fp_fusion=True)
        counts = instructions(launches[0].compiled)
        (names[target],) = counts.products
        assert (counts.wgmma > 0) == (target == "sm_90")
    assert names == PRODUCTS
