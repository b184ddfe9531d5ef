"""The simulator of compiled kernels: its arithmetic against NumPy, and the faults that it finds."""

from __future__ import annotations

import re

import numpy as np
import pytest

from .simulator.machine import SimulationError, compiler, run
from .simulator.mnemonics import Unknown
from .simulator.program import Program

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")

_SHARED = 1 << 14


def launch(
    body: str, *arrays: np.ndarray, threads: int = 32, owned: int | None = None, seed: int = 0
) -> None:
    """Run PTX on arrays, whose addresses are in %a0, %a1, ...; %t is the thread.

    `owned` bytes of the first array belong to the launch; all of them if it is not given.
    """
    names = range(len(arrays))
    parameters = ", ".join(f".param .u64 p_{n}" for n in names)
    loads = "\n".join(f"ld.param.b64 %a{n}, [p_{n}];" for n in names)
    ptx = f"""
.extern .shared .align 16 .b8 memory[];
.visible .entry kernel({parameters})
.reqntid {threads}
{{
    .reg .pred %p<9>;
    .reg .b16 %h<9>;
    .reg .b32 %r<99>;
    .reg .b64 %d<9>;
    .reg .b64 %a<9>;
    .reg .b32 %t;
    .reg .b32 %f<99>;
    {loads}
    mov.u32 %t, %tid.x;
    {body}
    ret;
}}"""
    regions = [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays]
    if owned is not None:
        regions[0] = (regions[0][0], regions[0][0] + owned)
    addresses = np.array([a.ctypes.data for a in arrays], np.uint64)
    run(Program(ptx), (1,), addresses.tobytes(), _SHARED, regions, seed)


def each_thread(line: str, *inputs: np.ndarray, output: type) -> np.ndarray:
    """What the instruction makes of %r0, %r1, ... in %r9, or of %h in %h8 if they have 2 bytes."""
    result = np.zeros(len(inputs[0]), output)
    body = []
    for n, values in enumerate((*inputs, result)):
        register = f"%{'h' if values.itemsize == 2 else 'r'}"
        size = values.itemsize
        body.append(f"mad.wide.u32 %d{n}, %t, {size}, %a{n};")
        if values is not result:
            body.append(f"ld.global.b{8 * size} {register}{n}, [%d{n}];")
        else:
            body.append(line)
            body.append(f"st.global.b{8 * size} [%d{n}], {register}8;")
    launch("\n".join(body), *inputs, result, threads=len(result))
    return result


def float32(values: list[float]) -> np.ndarray:
    return np.resize(np.array(values, np.float32), 32)


SPECIAL = float32([0.0, -0.0, 1.5, -2.5, 0.5, np.inf, -np.inf, np.nan, 3e9, -3e9, 1e-8, 65520.0])
FINITE = float32([0.0, -0.0, 1.5, -2.5, 3e9, 1e-8, 65520.0])
INTEGERS = np.resize(np.array([0, 1, -1, 7, -8, 2**31 - 1, -(2**31), 12345], np.int32), 32)
COUNTS = np.resize(np.array([0, 1, 5, 31, 32, 200], np.int32), 32)


@pytest.mark.parametrize(
    ("line", "inputs", "expected"),
    [
        ("add.f32 %r8, %r0, %r1;", (FINITE, FINITE[::-1].copy()), FINITE + FINITE[::-1]),
        ("mul.f32 %r8, %r0, %r1;", (FINITE, FINITE[::-1].copy()), FINITE * FINITE[::-1]),
        ("max.f32 %r8, %r0, 0f3F000000;", (SPECIAL,), np.fmax(SPECIAL, np.float32(0.5))),
        ("max.NaN.f32 %r8, %r0, 0f3F000000;", (SPECIAL,), np.maximum(SPECIAL, np.float32(0.5))),
        ("neg.f32 %r8, %r0;", (SPECIAL,), -SPECIAL),
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
        ("prmt.b32 %r8, %r0, 0, 0x3210;", (INTEGERS,), INTEGERS),
        ("popc.b32 %r8, %r0;", (INTEGERS,), [f"{int(n) % 2**32:b}".count("1") for n in INTEGERS]),
        ("redux.sync.max.s32 %r8, %r0, -1;", (INTEGERS,), np.full(32, INTEGERS.max())),
        ("shfl.sync.bfly.b32 %r8, %r0, 1, 31, -1;", (INTEGERS,), INTEGERS[np.arange(32) ^ 1]),
        (
            "setp.gt.s32 %p1, %r0, 0; vote.sync.ballot.b32 %r8, %p1, -1;",
            (INTEGERS,),
            np.full(32, sum(1 << n for n in range(32) if INTEGERS[n] > 0) - 2**32),
        ),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_arithmetic(line: str, inputs: tuple[np.ndarray, ...], expected: np.ndarray) -> None:
    expected = np.asarray(expected)
    kind = np.float32 if expected.dtype.kind == "f" else np.int32
    actual = each_thread(line, *inputs, output=kind)
    np.testing.assert_array_equal(actual, expected.astype(kind))


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


# Each thread writes its number and reads the one of thread ^ 32: of another warp.
_EXCHANGE = """
    shl.b32 %r1, %t, 2;
    mov.b32 %r2, memory;
    add.s32 %r3, %r2, %r1;
    xor.b32 %r4, %r1, 128;
    add.s32 %r4, %r2, %r4;
    st.shared.b32 [%r3], %t;
    {between}
    ld.shared.b32 %r5, [%r4];
    mad.wide.u32 %d0, %t, 4, %a0;
    st.global.b32 [%d0], %r5;
"""


@pytest.mark.parametrize("seed", range(4))
def test_warps_meet_at_barriers(seed: int) -> None:
    out = np.zeros(64, np.int32)
    launch(_EXCHANGE.format(between="bar.sync 0;"), out, threads=64, seed=seed)
    np.testing.assert_array_equal(out, np.arange(64) ^ 32)


@pytest.mark.parametrize("seed", range(4))
def test_a_missing_barrier_is_a_race(seed: int) -> None:
    with pytest.raises(SimulationError, match=r"a race.*since the last barrier"):
        launch(_EXCHANGE.format(between=""), np.zeros(64, np.int32), threads=64, seed=seed)


@pytest.mark.parametrize("seed", range(4))
def test_a_place_that_others_read_is_not_written(seed: int) -> None:
    body = """
        shl.b32 %r1, %t, 2;
        and.b32 %r1, %r1, 127;
        mov.b32 %r2, memory;
        add.s32 %r1, %r2, %r1;
        setp.lt.u32 %p1, %t, 32;
        @%p1 ld.shared.b32 %r3, [%r1];
        @!%p1 st.shared.b32 [%r1], %t;
    """
    with pytest.raises(SimulationError, match=r"a race: another warp (read|wrote) this"):
        launch(body, threads=64, seed=seed)


def test_all_warps_may_write_the_same() -> None:
    body = """
        and.b32 %r1, %t, 31;
        shl.b32 %r2, %r1, 2;
        mov.b32 %r3, memory;
        add.s32 %r3, %r3, %r2;
        st.shared.b32 [%r3], {value};
    """
    launch(body.format(value="%r1"), threads=64)
    with pytest.raises(SimulationError, match="a race"):
        launch(body.format(value="%t"), threads=64)


# The first half of a warp goes another way, whose code comes later, and they shuffle after it.
_PARTED = """
    setp.lt.u32 %p1, %t, 16;
    @%p1 bra $L_first;
    add.s32 %r1, %t, 100;
$L_both:
    {meeting}
    bar.sync 0;
    mad.wide.u32 %d0, %t, 4, %a0;
    st.global.b32 [%d0], %r2;
    ret;
$L_first:
    add.s32 %r1, %t, 1000;
    bra $L_both;
"""


def test_threads_of_a_warp_part_and_meet() -> None:
    out = np.zeros(32, np.int32)
    launch(_PARTED.format(meeting="shfl.sync.bfly.b32 %r2, %r1, 16, 31, -1;"), out)
    np.testing.assert_array_equal(out, np.arange(32) + np.repeat([116, 984], 16))


def test_threads_that_wait_at_different_places() -> None:
    body = """
        setp.lt.u32 %p1, %t, 16;
        @%p1 bra $L_first;
        bar.sync 0;
        ret;
    $L_first:
        shfl.sync.bfly.b32 %r2, %t, 16, 31, -1;
    """
    with pytest.raises(SimulationError, match="wait for each other at different places"):
        launch(body)


def test_only_tensors_of_the_launch_are_touched() -> None:
    body = "mad.wide.u32 %d0, %t, 4, %a0; st.global.b32 [%d0], %t;"
    out = np.zeros(32, np.int32)
    launch(body, out, owned=128)
    with pytest.raises(SimulationError, match=r"line \d+ of the PTX: .*outside of every tensor"):
        launch(body, out, owned=124)
    with pytest.raises(SimulationError, match="they do not divide"):
        launch("add.s64 %d0, %a0, 2; st.global.b32 [%d0], %t;", out)
    with pytest.raises(SimulationError, match="outside of shared memory"):
        launch(f"st.shared.b32 [{_SHARED + 16}], %t;")


_COPY = """
    mov.b32 %r1, memory;
    mad.lo.s32 %r1, %t, 16, %r1;
    mad.wide.u32 %d0, %t, 16, %a0;
    cp.async.cg.shared.global [%r1], [%d0], 0x10;
    cp.async.commit_group;
    {wait}
    ld.shared.b32 %r2, [%r1];
    mad.wide.u32 %d1, %t, 4, %a1;
    st.global.b32 [%d1], %r2;
"""


def test_copies_land_when_they_are_waited_for() -> None:
    source, out = np.arange(128, dtype=np.int32), np.zeros(32, np.int32)
    launch(_COPY.format(wait="cp.async.wait_group 0;"), source, out)
    np.testing.assert_array_equal(out, source[::4])
    launch(_COPY.format(wait="cp.async.wait_group 1;"), source, out)
    assert (out == -1).all(), "read before they had to be there"


def test_nobody_ends_the_wait() -> None:
    body = """
        mov.b32 %r1, memory;
        setp.eq.b32 %p1, %t, 0;
        @%p1 mbarrier.init.shared::cta.b64 [%r1], 1;
        bar.sync 0;
        {
            .reg .pred complete;
            waitLoop:
            mbarrier.try_wait.parity.shared.b64 complete, [%r1], 0;
            @!complete bra.uni waitLoop;
        }
    """
    with pytest.raises(SimulationError, match="nobody will end the wait"):
        launch(body)


def product(before: str, after: str) -> str:
    """64 rows, 8 columns, 16 terms; both matrices in shared memory, without swizzle."""
    return f"""
        shl.b32 %r1, %t, 4;
        mov.b32 %r2, memory;
        add.s32 %r1, %r2, %r1;
        mov.b32 %r3, 0x3f803f80;
        st.shared.v4.b32 [%r1], {{%r3, %r3, %r3, %r3}};
        {before}
        mov.b64 %d1, {8 << 16 | 16 << 32};
        mov.pred %p1, 0;
        wgmma.fence.sync.aligned;
        wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {{%f0, %f1, %f2, %f3}}, %d1, %d1, %p1,
            1, 1, 0, 0;
        wgmma.commit_group.sync.aligned;
        {after}
        st.shared.b32 [%r1], %t;
        mad.wide.u32 %d0, %t, 4, %a0;
        st.global.b32 [%d0], %f3;
    """


_WAIT = "wgmma.wait_group.sync.aligned 0; bar.sync 0;"
_FENCE = "fence.proxy.async.shared::cta;"


@pytest.mark.parametrize("before", [f"{_FENCE} bar.sync 0;", f"bar.sync 0; {_FENCE}"])
def test_a_product_behind_a_fence(before: str) -> None:
    out = np.zeros(128, np.float32)
    launch(product(before, _WAIT), out, threads=128)
    assert (out == 16).all()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("bar.sync 0;", _WAIT, "no proxy fence"),
        (_FENCE, _WAIT, "a race"),
        (f"{_FENCE} bar.sync 0;", "bar.sync 0;", "an asynchronous product may still read this"),
        (f"{_FENCE} bar.sync 0;", _WAIT.split("bar")[0], "a race"),
    ],
)
def test_what_a_product_reads(before: str, after: str, message: str) -> None:
    out = np.zeros(128, np.float32)
    with pytest.raises(SimulationError, match=message):
        launch(product(before, after), out, threads=128)


@pytest.mark.parametrize(
    "line",
    ["tcgen05.wait::ld.sync.aligned;", "add.sat.s32 %r1, %r1, 1;", "bar.sync 1, 64;", "trap;"],
)
def test_what_is_not_known_is_named(line: str) -> None:
    with pytest.raises(Unknown, match=re.escape(line.split()[0].split(".")[0].rstrip(";"))):
        launch(line)
