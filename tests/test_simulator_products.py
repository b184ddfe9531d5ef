"""Products of tensor cores in the simulator: their numbers, and what asynchronous ones ask for."""

from __future__ import annotations

import numpy as np
import pytest

from .simulator.machine import SimulationError
from .simulator.small import launch, needs_a_compiler

pytestmark = needs_a_compiler


def few(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Whole numbers whose products are exact in every type."""
    return generator.integers(-8, 9, shape).astype(np.float32)


def swizzled(rows: np.ndarray) -> np.ndarray:
    """Rows of 128 bytes: of each eight, row n has its pieces of 16 bytes at their places ^ n."""
    pieces = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), 8, 16)
    order = np.arange(8) ^ (np.arange(len(rows)) % 8)[:, None]
    return np.take_along_axis(pieces, order[:, :, None], 1).reshape(-1)


@pytest.mark.parametrize(
    ("kind", "by_columns"), [("f16", False), ("f16", True), ("tf32", False)]
)  # fmt: skip
def test_an_asynchronous_product(kind: str, by_columns: bool) -> None:
    """(64, 64) in float32 of two slices of terms, 32 bytes each, out of rows of 128 bytes."""
    generator = np.random.default_rng(0)
    dtype, terms = {"f16": (np.float16, 64), "tf32": (np.float32, 32)}[kind]
    left, right = few(generator, 64, terms), few(generator, terms, 64)
    laid = [left.astype(dtype), (right if by_columns else right.T).astype(dtype)]
    source = np.concatenate([swizzled(matrix) for matrix in laid])
    out = np.zeros((128, 32), np.float32)
    sums = ", ".join(f"%f{n}" for n in range(32))
    size = terms // 4  # of a slice

    def descriptor(place: int) -> int:  # eight rows after 1,024 bytes; swizzled by 128
        return place >> 4 | 1024 >> 4 << 32 | 1 << 62

    steps = []
    for add, part in enumerate((1, 3)):
        at = 8192 + part * (size * 128 if by_columns else 32)
        columns = f", 0, {int(by_columns)}" * (kind == "f16")
        steps.append(
            f"""mov.b64 %d1, {descriptor(part * 32)};
            mov.b64 %d2, {descriptor(at)};
            mov.pred %p1, {add};
            wgmma.mma_async.sync.aligned.m64n64k{size}.f32.{kind}.{kind}
                {{{sums}}}, %d1, %d2, %p1, 1, 1{columns};"""
        )
    body = f"""
        shl.b32 %r1, %t, 7;
        mad.wide.u32 %d0, %t, 128, %a0;
        {"".join(copy_16_bytes(16 * n) for n in range(8))}
        fence.proxy.async.shared::cta;
        bar.sync 0;
        wgmma.fence.sync.aligned;
        {"".join(steps)}
        wgmma.commit_group.sync.aligned;
        wgmma.wait_group.sync.aligned 0;
        mad.wide.u32 %d3, %t, 128, %a1;
        {"".join(f"st.global.b32 [%d3+{4 * n}], %f{n};" for n in range(32))}
    """
    launch(body, source, out, threads=128)
    expected = sum(
        left[:, part * size : (part + 1) * size] @ right[part * size : (part + 1) * size]
        for part in (1, 3)
    )
    np.testing.assert_array_equal(rows_of(out), expected)


def copy_16_bytes(offset: int) -> str:
    return f"""ld.global.v4.b32 {{%r2, %r3, %r4, %r5}}, [%d0+{offset}];
        st.shared.v4.b32 [%r1+{offset}], {{%r2, %r3, %r4, %r5}};"""


def rows_of(held: np.ndarray) -> np.ndarray:
    """(rows, columns) of what threads hold: two neighbours, and two 8 rows on, of 8 columns."""
    warps = held.reshape(-1, 8, 4, held.shape[1] // 4, 2, 2)  # row, pair; eighth, row + 8, which
    return warps.transpose(0, 4, 1, 3, 2, 5).reshape(len(held) // 2, -1)


@pytest.mark.parametrize("kind", ["f16", "bf16", "tf32"])
def test_a_product_in_registers(kind: str) -> None:
    generator = np.random.default_rng(1)
    terms = 8 if kind == "tf32" else 16
    left, right, sums = few(generator, 16, terms), few(generator, terms, 8), few(generator, 16, 8)

    def bits(matrix: np.ndarray) -> np.ndarray:
        if kind == "f16":
            return matrix.astype(np.float16).view(np.uint16)
        return (matrix.view(np.uint32) >> 16).astype(np.uint16) if kind == "bf16" else matrix

    def held(matrix: np.ndarray) -> np.ndarray:
        """Thread t has row t / 4, and columns of 4 bytes: t % 4, and 4 more."""
        rows = np.ascontiguousarray(bits(matrix)).view(np.uint32)
        return rows.reshape(-1, 8, 2, 4).transpose(1, 3, 2, 0).reshape(32, -1)

    given = np.concatenate(
        [held(left), held(right.T.copy()), sums.reshape(2, 8, 4, 2).transpose(1, 2, 0, 3)
         .reshape(32, 4).view(np.uint32)], axis=1,
    )  # fmt: skip
    assert given.shape == (32, 10)
    out = np.zeros((32, 4), np.float32)
    body = f"""
        mad.wide.u32 %d0, %t, 40, %a0;
        {"".join(f"ld.global.b32 %r{n}, [%d0+{4 * n}];" for n in range(10))}
        mma.sync.aligned.m16n8k{terms}.row.col.f32.{kind}.{kind}.f32
            {{%r9, %r8, %r7, %r6}}, {{%r0, %r1, %r2, %r3}}, {{%r4, %r5}}, {{%r6, %r7, %r8, %r9}};
        mad.wide.u32 %d1, %t, 16, %a1;
        st.global.v4.b32 [%d1], {{%r9, %r8, %r7, %r6}};
    """
    launch(body, np.ascontiguousarray(given), out)
    np.testing.assert_array_equal(rows_of(out), left @ right + sums)


_WAIT = "wgmma.wait_group.sync.aligned 0; bar.sync 0;"
_FENCE = "fence.proxy.async.shared::cta;"
_FENCED = f"{_FENCE} bar.sync 0;"


def product(
    before: str, after: str, *, fence: str = "", descriptor: int = 0, left: str = ""
) -> str:
    """64 rows, 8 columns, 16 terms; both matrices in shared memory, without swizzle."""
    left, columns = (left, "0") if left else ("%d1", "0, 0")
    return f"""
        shl.b32 %r1, %t, 4;
        mov.b32 %r2, memory;
        add.s32 %r1, %r2, %r1;
        mov.b32 %r3, 0x3f803f80;
        mov.b32 %r4, %r3; mov.b32 %r5, %r3; mov.b32 %r6, %r3;
        mov.b32 %f9, 0f00000000;
        st.shared.v4.b32 [%r1], {{%r3, %r3, %r3, %r3}};
        {before}
        mov.b64 %d1, {8 << 16 | 16 << 32 | descriptor};
        mov.pred %p1, 0;
        {fence or "wgmma.fence.sync.aligned;"}
        wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16
            {{%f0, %f1, %f2, %f3}}, {left}, %d1, %p1, 1, 1, {columns};
        {after}
        st.shared.b32 [%r1], %t;
        mad.wide.u32 %d0, %t, 4, %a0;
        st.global.b32 [%d0], %f3;
    """


_COMMIT = "wgmma.commit_group.sync.aligned;"
_END = _COMMIT + _WAIT
_LEFT = "{%r3, %r4, %r5, %r6}"


@pytest.mark.parametrize("left", ["", _LEFT])
@pytest.mark.parametrize(
    "before",
    [_FENCED, f"bar.sync 0; {_FENCE}", "fence.proxy.async; bar.sync 0;"],
)
def test_a_product_behind_a_fence(before: str, left: str) -> None:
    out = np.zeros(128, np.float32)
    launch(product(before, _END, left=left), out, threads=128)
    assert (out == 16).all()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("bar.sync 0;", _END, "no proxy fence"),
        (_FENCE, _END, "a race"),
        (_FENCED, f"{_COMMIT} bar.sync 0;", "an asynchronous product may still read this"),
        (_FENCED, _END.removesuffix("bar.sync 0;"), "a race"),
        (f"{_FENCED} atom.shared.add.u32 %r7, [%r1], 0; bar.sync 0;", _END, "no proxy fence"),
        (_FENCED, "atom.shared.add.u32 %r7, [%r1], 0;", "an asynchronous product may still read"),
    ],
)
def test_what_a_product_reads(before: str, after: str, message: str) -> None:
    out = np.zeros(128, np.float32)
    with pytest.raises(SimulationError, match=message):
        launch(product(before, after), out, threads=128)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ("mov.b32 %r7, %f3;", "a sum is read"),
        (f"{_COMMIT} add.f32 %f9, %f9, %f0;", "a sum is read"),
        (f"{_COMMIT} wgmma.wait_group.sync.aligned 1; mov.b32 %r7, %f3;", "a sum is read"),
        ("wgmma.wait_group.sync.aligned 0; mov.b32 %r7, %f3;", "a sum is read"),  # not committed
        ("mov.b32 %f3, 0f00000000;", "a sum is written"),
        ("mov.b32 %r6, 0;", "a left operand is written"),
    ],
)
def test_registers_of_a_product_under_way(after: str, message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        launch(product(_FENCED, after, left=_LEFT), np.zeros(128, np.float32), threads=128)


def test_products_add_to_the_same_sums() -> None:
    more = """mov.pred %p2, 1;
        wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f0, %f1, %f2, %f3},
            {%r3, %r4, %r5, %r6}, %d1, %p2, 1, 1, 0;"""
    out = np.zeros(128, np.float32)
    launch(product(_FENCED, f"{more} {_END}", left=_LEFT), out, threads=128)
    assert (out == 32).all()
    launch(product(_FENCED, f"{_COMMIT} {more} {_END}", left=_LEFT), out, threads=128)
    first_is_over = f"{_COMMIT} {more} {_COMMIT} wgmma.wait_group.sync.aligned 1;"
    reads = product(_FENCED, f"{first_is_over} mov.b32 %r7, %f3;", left=_LEFT)
    with pytest.raises(SimulationError, match="a sum is read"):
        launch(reads, out, threads=128)


def test_a_sum_under_way_is_no_left_operand() -> None:
    more = """wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f10, %f11, %f12, %f13},
            {%f0, %f1, %f2, %f3}, %d1, %p1, 1, 1, 0;"""
    with pytest.raises(SimulationError, match="a left operand is still a sum"):
        launch(product(_FENCED, more), np.zeros(128, np.float32), threads=128)


@pytest.mark.parametrize("fence", ["bar.sync 0;", "wgmma.fence.sync.aligned; mov.b32 %r5, %r3;",
                                   "wgmma.fence.sync.aligned; mov.b32 %f3, %f9;"])  # fmt: skip
def test_a_missing_fence_for_products(fence: str) -> None:
    body = product(_FENCED, _END, fence=fence, left=_LEFT)
    with pytest.raises(SimulationError, match="no fence for products"):
        launch(body, np.zeros(128, np.float32), threads=128)


@pytest.mark.parametrize("bit", [14, 31, 46, 49, 52, 61])
def test_bits_of_a_descriptor_that_are_not_known(bit: int) -> None:
    body = product(_FENCED, _END, descriptor=1 << bit)
    with pytest.raises(SimulationError, match="bits that are not known"):
        launch(body, np.zeros(128, np.float32), threads=128)
