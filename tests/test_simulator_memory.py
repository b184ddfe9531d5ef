"""Memory as the simulator watches it: bounds, races between barriers, and where threads meet."""

from __future__ import annotations

import numpy as np
import pytest

from .simulator.machine import SimulationError
from .simulator.small import SHARED, launch, needs_a_compiler

pytestmark = needs_a_compiler

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


@pytest.mark.parametrize("threads", [0, 32, 33])
def test_a_barrier_that_threads_pass_by(threads: int) -> None:
    """Of a warp all or none: where none is, the others have no barrier behind which to read."""
    between = f"setp.lt.u32 %p1, %t, {threads}; @%p1 bar.sync 0;"
    with pytest.raises(SimulationError, match=r"a race|missing at a barrier"):
        launch(_EXCHANGE.format(between=between), np.zeros(64, np.int32), threads=64)


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


def test_single_bytes() -> None:
    """Two warps may write neighbours, and the same to one byte, but not two things to one."""
    body = """
        shr.u32 %r1, %t, 5;
        and.b32 %r2, %t, 31;
        mad.lo.s32 %r3, %r2, {stride}, {offset};
        st.shared.b8 [%r3], {value};
        bar.sync 0;
        mad.wide.u32 %d0, %t, 1, %a0;
        ld.shared.b8 %r4, [%t];
        st.global.b8 [%d0], %r4;
    """
    out = np.zeros(64, np.uint8)
    launch(body.format(stride=2, offset="%r1", value="%t"), out, threads=64)
    np.testing.assert_array_equal(out, np.arange(64).reshape(2, 32).T.ravel())
    launch(body.format(stride=2, offset=1, value="%r2"), out, threads=64)
    with pytest.raises(SimulationError, match="a race"):
        launch(body.format(stride=2, offset=1, value="%t"), out, threads=64)


_COUNT = """
    mov.b32 %r1, memory;
    setp.eq.b32 %p1, %t, 0;
    @%p1 st.shared.b32 [%r1], 1000;
    {first}
    atom.shared.add.u32 %r2, [%r1], %t;
    {second}
    ld.shared.b32 %r3, [%r1];
    mad.wide.u32 %d0, %t, 4, %a0;
    st.global.b32 [%d0], %r3;
"""


@pytest.mark.parametrize("seed", range(4))
def test_atomics_of_several_warps(seed: int) -> None:
    out = np.zeros(64, np.int32)
    launch(_COUNT.format(first="bar.sync 0;", second="bar.sync 0;"), out, threads=64, seed=seed)
    assert (out == 1000 + np.arange(64).sum()).all()
    for first, second in (("", "bar.sync 0;"), ("bar.sync 0;", "")):
        with pytest.raises(SimulationError, match="a race"):
            launch(_COUNT.format(first=first, second=second), out, threads=64, seed=seed)


def test_atomics_return_what_was_there() -> None:
    out = np.zeros(32, np.int32)
    body = """
        st.shared.b32 [memory], 5;
        atom.shared.add.u32 %r2, [memory], %t;
        mad.wide.u32 %d0, %t, 4, %a0;
        st.global.b32 [%d0], %r2;
    """
    launch(body, out)
    np.testing.assert_array_equal(out, 5 + np.concatenate([[0], np.arange(31).cumsum()]))


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


@pytest.mark.parametrize(
    "line",
    [
        "@%p1 shfl.sync.idx.b32 %r1, %t, 0, 31, -1;",
        "shfl.sync.idx.b32 %r1, %t, 0, 31, 15;",
        "mov.b32 %r2, 1; redux.sync.add.s32 %r1, %t, %r2;",
        "vote.sync.ballot.b32 %r1, %p1, 0xffff;",
        "bar.warp.sync 15;",
        "@%p1 ret; vote.sync.ballot.b32 %r1, %p1, -1;",
        "@%p1 cp.async.commit_group;",
    ],
)
def test_all_threads_of_a_warp_take_part(line: str) -> None:
    with pytest.raises(SimulationError, match=r"some threads|threads of a warp are missing"):
        launch(f"setp.lt.u32 %p1, %t, 4; {line}")


def test_threads_do_not_part_where_the_program_says_so() -> None:
    body = "setp.lt.u32 %p1, %t, {}; @%p1 bra{} $L_end; mov.b32 %r1, 1; $L_end: mov.b32 %r1, 2;"
    for accepted in (body.format(5, ""), body.format(0, ".uni"), body.format(32, ".uni")):
        launch(accepted)
    with pytest.raises(SimulationError, match=r"part at a bra\.uni"):
        launch(body.format(5, ".uni"))


def test_only_tensors_of_the_launch_are_touched() -> None:
    body = "mad.wide.u32 %d0, %t, 4, %a0; st.global.b32 [%d0], %t;"
    out = np.zeros(32, np.int32)
    launch(body, out, owned=128)
    with pytest.raises(SimulationError, match=r"line \d+ of the PTX: .*outside of every tensor"):
        launch(body, out, owned=124)
    with pytest.raises(SimulationError, match="they do not divide"):
        launch("add.s64 %d0, %a0, 2; st.global.b32 [%d0], %t;", out)
    with pytest.raises(SimulationError, match="outside of every tensor"):  # its end is at 0
        launch("mov.b64 %d0, -4; ld.global.b32 %r1, [%d0];", out)


@pytest.mark.parametrize("place", [SHARED, SHARED - 2, -4])
def test_only_shared_memory_of_the_launch_is_touched(place: int) -> None:
    with pytest.raises(SimulationError, match="outside of shared memory"):
        launch(f"mov.b32 %r1, {place}; st.shared.b32 [%r1], %t;")


def test_matrices_by_eight_addresses() -> None:
    """Thread t holds two neighbours of row t / 4; transposed, of column t / 4."""
    source = np.arange(128, dtype=np.uint16)
    out = np.zeros((4, 32), np.uint32)
    body = """
        mad.wide.u32 %d0, %t, 8, %a0;
        ld.global.v2.b32 {%r0, %r1}, [%d0];
        shl.b32 %r2, %t, 3;
        st.shared.v2.b32 [%r2], {%r0, %r1};
        and.b32 %r3, %t, 15;
        shl.b32 %r3, %r3, 4;
        ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r4, %r5}, [%r3];
        stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%r3+256], {%r4, %r5};
        ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r6, %r7}, [%r3];
        mad.wide.u32 %d1, %t, 4, %a1;
        ld.shared.b32 %r8, [%r2+256];
        ld.shared.b32 %r9, [%r2+260];
        st.global.b32 [%d1], %r4;
        st.global.b32 [%d1+128], %r7;
        mad.wide.u32 %d2, %t, 4, %d1;
        st.global.v2.b32 [%d2+256], {%r8, %r9};
    """
    launch(body, source, out)
    first, second = source.reshape(2, 8, 8)
    pairs = out.view(np.uint16)
    np.testing.assert_array_equal(pairs[0].reshape(8, 8), first)
    np.testing.assert_array_equal(pairs[1].reshape(8, 8), second.T)
    np.testing.assert_array_equal(pairs[2:].reshape(2, 8, 8), [first.T, second.T])
