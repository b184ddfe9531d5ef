"""The simulator's arithmetic, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from .simulator.small import each_thread, launch, needs_a_compiler

pytestmark = needs_a_compiler


def float32(values: list[float]) -> np.ndarray:
    return np.resize(np.array(values, np.float32), 32)


SPECIAL = float32([0.0, -0.0, 1.5, -2.5, 0.5, np.inf, -np.inf, np.nan, 3e9, -3e9, 1e-8, 65520.0])
DOUBLES = SPECIAL.astype(np.float64) * 1e200
FINITE = float32([0.0, -0.0, 1.5, -2.5, 3e9, 1e-8, 65520.0])
SMALL = float32([1e-40, -1e-40, 1.5, -2.5, 2e-38, -2e-38, 0.0])  # the first are subnormal
FLUSHED = np.where(np.abs(SMALL) < 1e-39, np.copysign(np.float32(0), SMALL), SMALL)
INTEGERS = np.resize(np.array([0, 1, -1, 7, -8, 2**31 - 1, -(2**31), 12345], np.int32), 32)
COUNTS = np.resize(np.array([0, 1, 5, 31, 32, 200], np.int32), 32)
BYTES = np.resize(np.array([0x80C0FF7F, 0x01234567, 0x89ABCDEF], np.uint32).view(np.int32), 32)
LANES = np.arange(32)


def bytes_of(values: np.ndarray) -> np.ndarray:
    return values.view(np.uint8).reshape(-1, 4)


@pytest.mark.parametrize(
    ("line", "inputs", "expected"),
    [
        ("add.f32 %r8, %r0, %r1;", (FINITE, FINITE[::-1].copy()), FINITE + FINITE[::-1]),
        ("mul.f32 %r8, %r0, %r1;", (FINITE, FINITE[::-1].copy()), FINITE * FINITE[::-1]),
        ("max.f32 %r8, %r0, 0f3F000000;", (SPECIAL,), np.fmax(SPECIAL, np.float32(0.5))),
        ("max.NaN.f32 %r8, %r0, 0f3F000000;", (SPECIAL,), np.maximum(SPECIAL, np.float32(0.5))),
        ("neg.f32 %r8, %r0;", (SPECIAL,), -SPECIAL),
        ("abs.f64 %d8, %d0;", (DOUBLES,), np.abs(DOUBLES)),
        ("max.f64 %d8, %d0, 0d3FE0000000000000;", (DOUBLES,), np.fmax(DOUBLES, 0.5)),
        ("min.f64 %d8, %d0, 0d3FE0000000000000;", (DOUBLES,), np.fmin(DOUBLES, 0.5)),
        ("cvt.rmi.f32.f32 %r8, %r0;", (SPECIAL,), np.floor(SPECIAL)),
        (
            "cvt.rzi.s32.f32 %r8, %r0;",
            (SPECIAL,),
            np.nan_to_num(np.trunc(SPECIAL.astype(np.float64)), posinf=2**31, neginf=-(2**31))
            .clip(-(2**31), 2**31 - 1)
            .astype(np.int32),
        ),
        ("cvt.rn.f32.s32 %r8, %r0;", (INTEGERS,), INTEGERS.astype(np.float32)),
        ("shr.s32 %r8, %r0, %r1;", (INTEGERS, COUNTS), INTEGERS >> np.minimum(COUNTS, 31)),
        ("mul.hi.s32 %r8, %r0, %r0;", (INTEGERS,), (INTEGERS.astype(np.int64) ** 2 >> 32)),
        ("min.s32 %r8, %r0, -3;", (INTEGERS,), np.minimum(INTEGERS, -3)),
        ("min.relu.s32 %r8, %r0, 9;", (INTEGERS,), np.minimum(INTEGERS, 9).clip(0)),
        ("bfe.s32 %r8, %r0, 2, 3;", (INTEGERS,), (INTEGERS >> 2 & 7 ^ 4) - 4),
        ("bfe.u32 %r8, %r0, 3, 4;", (INTEGERS,), INTEGERS >> 3 & 15),
        ("popc.b32 %r8, %r0;", (INTEGERS,), [f"{int(n) % 2**32:b}".count("1") for n in INTEGERS]),
        (
            "setp.lo.u32 %p1, %r0, 8; selp.b32 %r8, 1, 0, %p1;",
            (INTEGERS,),
            INTEGERS.view(np.uint32) < 8,
        ),
        (
            "shf.l.wrap.b32 %r8, %r0, %r1, 9;",
            (BYTES, INTEGERS),
            INTEGERS << 9 | BYTES.view(np.uint32).astype(np.int64) >> 23,
        ),
        # Too small for an exponent: .ftz takes it for zero and makes none, others keep it.
        ("add.f32 %r8, %r0, 0f80000000;", (SMALL,), SMALL),
        ("add.ftz.f32 %r8, %r0, 0f80000000;", (SMALL,), FLUSHED),
        ("mul.ftz.f32 %r8, %r0, 0f38000000;", (SMALL,), FLUSHED * 2.0**-15 * (np.abs(SMALL) > 1)),
        ("fma.rn.ftz.f32 %r8, %r0, 0f3F800000, 0f80000000;", (SMALL,), FLUSHED),
        ("abs.ftz.f32 %r8, %r0;", (SMALL,), np.abs(FLUSHED)),
        ("cvt.rmi.ftz.f32.f32 %r8, %r0;", (SMALL,), np.floor(FLUSHED)),
        ("cvt.rmi.f32.f32 %r8, %r0;", (SMALL,), np.floor(SMALL)),
        ("ex2.approx.ftz.f32 %r8, 0fC3010000;", (SMALL,), np.zeros(32, np.float32)),
        ("setp.gt.ftz.f32 %p1, %r0, 0f00000000; selp.b32 %r8, 1, 0, %p1;", (SMALL,), FLUSHED > 0),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_arithmetic(line: str, inputs: tuple[np.ndarray, ...], expected: np.ndarray) -> None:
    expected = np.asarray(expected)
    kind = np.float32 if expected.dtype.kind == "f" else np.int32
    if "%d8" in line:
        kind = np.float64
    actual = each_thread(line, *inputs, output=kind)
    # Bit for bit where it is finite: -0 is not 0.
    np.testing.assert_array_equal(actual, expected.astype(kind))
    if kind == np.float32 and line.startswith(("add", "abs", "fma", "ex2")):
        np.testing.assert_array_equal(np.signbit(actual), np.signbit(expected))


def test_bytes_are_picked() -> None:
    """0-3 are those of the first register, 4-7 of the second; 8 more: their sign, in every bit."""
    actual = each_thread("prmt.b32 %r8, %r0, %r1, 0x8F52;", BYTES, INTEGERS, output=np.int32)
    low, high = bytes_of(BYTES), bytes_of(INTEGERS)
    signs = [np.where(part & 0x80, 255, 0) for part in (high[:, 3], low[:, 0])]
    expected = np.stack([low[:, 2], high[:, 1], *signs], 1).astype(np.uint8)
    np.testing.assert_array_equal(bytes_of(actual), expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("shfl.sync.bfly.b32 %r8, %r0, 5, 31, -1;", LANES ^ 5),
        ("shfl.sync.up.b32 %r8, %r0, 3, 0, -1;", np.where(LANES < 3, LANES, LANES - 3)),
        ("shfl.sync.down.b32 %r8, %r0, 3, 31, -1;", np.where(LANES > 28, LANES, LANES + 3)),
        ("shfl.sync.idx.b32 %r8, %r0, 7, 31, -1;", np.full(32, 7)),
        # In segments of eight threads: those of 0x18 stay.
        ("shfl.sync.idx.b32 %r8, %r0, 7, 0x181f, -1;", LANES | 7),
        ("shfl.sync.up.b32 %r8, %r0, 1, 0x1800, -1;", np.where(LANES % 8, LANES - 1, LANES)),
    ],
)
def test_shuffles(line: str, expected: np.ndarray) -> None:
    values = LANES.astype(np.int32) * 17
    actual = each_thread(line, values, output=np.int32)
    np.testing.assert_array_equal(actual, values[expected])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("redux.sync.max.s32 %r8, %r0, -1;", int(INTEGERS.max())),
        ("redux.sync.min.u32 %r8, %r0, -1;", 0),
        ("redux.sync.add.s32 %r8, %r0, -1;", int(INTEGERS.sum()) % 2**32),
        ("redux.sync.or.b32 %r8, %r0, -1;", -1),
        (
            "setp.gt.s32 %p1, %r0, 0; vote.sync.ballot.b32 %r8, %p1, -1;",
            sum(1 << n for n in range(32) if INTEGERS[n] > 0) - 2**32,
        ),
    ],
)
def test_what_a_warp_has_in_common(line: str, expected: int) -> None:
    actual = each_thread(line, INTEGERS, output=np.int32)
    assert (actual == np.array(expected % 2**32, np.uint32).view(np.int32)).all()


def test_one_thread_is_elected() -> None:
    line = "elect.sync %r1|%p1, -1; selp.b32 %r8, 100, %r1, %p1;"
    assert each_thread(line, INTEGERS, output=np.int32).tolist() == [100] + [0] * 31


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_half_precision(kind: str) -> None:
    """Every number of 16 bits goes to float32 and back; float32 is rounded to nearest, even."""
    torch = pytest.importorskip("torch")
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}[kind]
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    for start in range(0, 2**16, 1024):
        some = every[start : start + 1024]
        wide = each_thread(f"cvt.f32.{kind} %r8, %h0;", some.numpy(), output=np.float32)
        expected = some.view(dtype).float().numpy()
        np.testing.assert_array_equal(wide, expected)
    random = np.random.default_rng(0).integers(2**32, size=1024, dtype=np.uint32)
    count = torch.arange(1, 1025).float()
    ties = (count * 2.0**-25, 1 + count * 2.0**-11, 1 + count * 2.0**-8)  # for small ones also
    for values in (torch.from_numpy(random.view(np.float32).copy()), *ties):
        narrow = each_thread(f"cvt.rn.{kind}.f32 %h8, %r0;", values.numpy(), output=np.int16)
        actual = torch.from_numpy(narrow).view(dtype).float()
        np.testing.assert_array_equal(actual, values.to(dtype).float())


def halves(*values: float) -> np.ndarray:
    return np.resize(np.array(values, np.float16), 32)


def test_two_halves_in_a_register() -> None:
    """The second goes below; .relu takes what is negative for zero."""
    inputs = float32([1.5, -2.0]), float32([-3.0, 4.0])
    plain = each_thread("cvt.rn.f16x2.f32 %r8, %r0, %r1;", *inputs, output=np.int32)
    assert plain.view(np.float16)[:4].tolist() == [-3.0, 1.5, 4.0, -2.0]
    relu = each_thread("cvt.rn.relu.f16x2.f32 %r8, %r0, %r1;", *inputs, output=np.int32)
    assert relu.view(np.float16)[:4].tolist() == [0.0, 1.5, 4.0, 0.0]
    line = "max.f16x2 %r8, %r0, %r1;"
    larger = each_thread(line, plain, relu[::-1].copy(), output=np.int32).view(np.float16)
    assert larger[:4].tolist() == [4.0, 1.5, 4.0, 1.5]
    line = "setp.lt.f16x2 %p1|%p2, %r0, 0; selp.b32 %r8, 1, 0, %p1; @%p2 add.s32 %r8, %r8, 2;"
    assert each_thread(line, plain, output=np.int32)[:2].tolist() == [1, 2]


def test_a_fused_product_of_halves_is_rounded_once() -> None:
    """The second is just below the middle between two numbers, and in float32 on it."""
    inputs = halves(1.5, 1 + 2**-10), halves(2.5, 2**-11 - 2**-21), halves(1, 1 + 2**-10)
    actual = each_thread("fma.rn.f16 %h8, %h0, %h1, %h2;", *inputs, output=np.int16)
    assert actual.view(np.float16)[:2].tolist() == [4.75, 1 + 2**-10]


@pytest.mark.parametrize(
    ("line", "value", "expected"),
    [
        ("cvt.rzi.s64.f32 %d8, %r0;", np.nan, -(2**63)),
        ("cvt.rzi.u64.f32 %d8, %r0;", np.nan, -(2**63)),
        ("cvt.rzi.s32.f32 %r1, %r0; cvt.s64.s32 %d8, %r1;", np.nan, 0),
        ("cvt.rzi.s16.f32 %r1, %r0; cvt.s64.s32 %d8, %r1;", -7.9, -7),
        ("cvt.rzi.s8.f32 %r1, %r0; cvt.s64.s32 %d8, %r1;", -1e9, -128),
        ("mov.b32 %r1, 255; cvt.s8.s32 %r1, %r1; cvt.s64.s32 %d8, %r1;", 0, -1),
        ("mov.b64 %d1, 0x8000000000000000; div.s64 %d8, %d1, -1;", 0, -(2**63)),
        ("mov.b64 %d1, 0x8000000000000000; rem.s64 %d8, %d1, -1;", 0, 0),
        ("mov.b64 %d1, 0x8000000000000000; abs.s64 %d8, %d1;", 0, -(2**63)),
        ("mov.b64 %d1, {7, -2}; mov.b64 {%r1, %r2}, %d1; cvt.s64.s32 %d8, %r2;", 0, -2),
    ],
)
def test_whole_numbers_at_their_ends(line: str, value: float, expected: int) -> None:
    actual = each_thread(line, float32([value]), output=np.int64)
    assert (actual == expected).all()


@pytest.mark.parametrize("kind", ["s8", "s16", "s32", "u8", "u16", "u32"])
def test_a_loaded_number_fills_its_register(kind: str) -> None:
    """By its sign, in whatever memory it lies: globally, shared, or among the parameters."""
    dtype = np.dtype(f"{'int' if kind[0] == 's' else 'uint'}{kind[1:]}")
    out = np.full(3, 77, np.int64)
    source = np.full(1, -5, np.int64)
    launch(
        f"""
        ld.global.{kind} %d1, [%a0];
        st.shared.b64 [memory], -5;
        ld.shared.{kind} %d2, [memory];
        ld.param.{kind} %d3, [p_0];
        st.global.b64 [%a1], %d1;
        st.global.b64 [%a1+8], %d2;
        st.global.b64 [%a1+16], %d3;
        """,
        source,
        out,
    )
    address = np.array([source.ctypes.data])
    expected = [source.view(dtype)[0], source.view(dtype)[0], address.view(dtype)[0]]
    np.testing.assert_array_equal(out, expected)
