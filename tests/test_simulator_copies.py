"""Copies that are under way in the simulator: cp.async, barriers in memory, tiles of TMA."""

from __future__ import annotations

import numpy as np
import pytest

from .simulator.machine import SimulationError
from .simulator.small import SHARED, launch, needs_a_compiler

pytestmark = needs_a_compiler

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


# A barrier for one arrival, set up by the first thread (%p1).
_BARRIER = """
    mov.b32 %r1, 1024;
    setp.eq.b32 %p1, %t, 0;
    @%p1 mbarrier.init.shared::cta.b64 [%r1], 1;
    bar.sync 0;
"""


def wait(place: str = "%r1") -> str:
    return f"""
        {{
            .reg .pred complete;
            waitLoop:
            mbarrier.try_wait.parity.shared.b64 complete, [{place}], 0;
            @!complete bra.uni waitLoop;
        }}
    """


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "loop",
    [
        wait(),
        # With an instruction between the question and the branch.
        """$L_wait: mbarrier.try_wait.parity.shared.b64 %p2, [%r1], 0;
        not.pred %p3, %p2;
        @%p3 bra $L_wait;""",
    ],
)
def test_nobody_ends_the_wait(loop: str, seed: int) -> None:
    with pytest.raises(SimulationError, match="nobody will end the wait"):
        launch(_BARRIER + loop, threads=64, seed=seed)
    arrival = "setp.eq.b32 %p4, %t, 32; @%p4 mbarrier.arrive.expect_tx.shared.b64 _, [%r1], 0;"
    launch(_BARRIER + arrival + loop, threads=64, seed=seed)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("st.shared.b32 [%r1+4], %t;", "a barrier lies here"),
        ("atom.shared.add.u32 %r2, [%r1], 1;", "a barrier lies here"),
        ("cp.async.ca.shared.global [%r1], [%a0], 8;", "a barrier lies here"),
        ("@%p1 mbarrier.init.shared::cta.b64 [%r1], 1;", "a barrier lies here"),
        ("@%p1 mbarrier.init.shared::cta.b64 [%r1+12], 1;", "misaligned"),
        (f"@%p1 mbarrier.init.shared::cta.b64 [{SHARED}], 1;", "outside of shared memory"),
        ("@%p1 mbarrier.init.shared::cta.b64 [%r1+8], 0;", "waits for nobody"),
        ("@%p1 mbarrier.inval.shared::cta.b64 [%r1+8];", "no barrier was set up"),
        (
            "setp.lt.u32 %p2, %t, 2; @%p2 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 16;",
            "more arrivals",
        ),
    ],
)
def test_a_barrier_is_a_part_of_memory(line: str, message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        launch(_BARRIER + line, np.zeros(8, np.int32))
    launch(_BARRIER + "@%p1 mbarrier.inval.shared::cta.b64 [%r1]; st.shared.b32 [%r1+4], %t;")


@pytest.mark.parametrize("seed", range(4))
def test_a_barrier_is_set_up_before_others_use_it(seed: int) -> None:
    body = _BARRIER.replace("bar.sync 0;", "") + wait()
    with pytest.raises(SimulationError, match=r"a race|no barrier was set up"):
        launch(body, threads=64, seed=seed)


# The first thread asks for a tile, warps wait for it and copy it to the output.
_TILE = """
    cvta.param.u64 %d1, %map;
    mov.b32 %r3, {column};
    mov.b32 %r4, {row};
    @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], {bytes};
    @%p1 cp.async.bulk.tensor.2d.shared::cta.global.mbarrier::complete_tx::bytes
        [{place}], [%d1, {{%r3, %r4}}], [%r1];
    {wait}
    shl.b32 %r5, %t, 2;
    ld.shared.b32 %r6, [%r5+{place}];
    mad.wide.u32 %d3, %t, 4, %a0;
    st.global.b32 [%d3], %r6;
"""


def read_tile(place: int = 2048, column: int = 0, row: int = 0, swizzle: int = 0, **more: object):
    """64 numbers as they lie in memory: a tile of 8 rows of 8."""
    source, out = np.arange(16 * 32, dtype=np.float32).reshape(16, 32), np.zeros(64, np.float32)
    text = {"wait": wait(), "bytes": 256} | more
    body = _BARRIER + _TILE.format(place=place, column=column, row=row, **text)
    launch(body, out, threads=64, seed=int(more.get("seed", 0)), tile=(source, 8, 8, swizzle))
    return source, out.reshape(8, 8)


@pytest.mark.parametrize("seed", range(4))
def test_a_tile_lands_when_it_is_waited_for(seed: int) -> None:
    source, out = read_tile(column=4, row=2, seed=seed)
    np.testing.assert_array_equal(out, source[2:10, 4:12])
    source, out = read_tile(column=-2, row=12, seed=seed)  # partly outside of the matrix
    np.testing.assert_array_equal(out[:4, 2:], source[12:, :6])
    assert not out[4:].any()
    assert not out[:, :2].any()


def test_a_tile_is_swizzled() -> None:
    """Rows of 32 bytes: pieces of 16 change places in the last four of each eight rows."""
    source, out = read_tile(swizzle=1)
    np.testing.assert_array_equal(out[:4], source[:4, :8])
    np.testing.assert_array_equal(out[4:, :4], source[4:8, 4:8])
    np.testing.assert_array_equal(out[4:, 4:], source[4:8, :4])


@pytest.mark.parametrize("seed", range(4))
def test_a_warp_waits_for_a_tile_itself(seed: int) -> None:
    """Or meets one that did at a barrier of the block; that another waited is not enough."""
    first = "setp.lt.u32 %p2, %t, 32; @!%p2 bra $L_read;" + wait() + "$L_read:"
    with pytest.raises(SimulationError, match="a race"):
        read_tile(wait=first, seed=seed)
    source, out = read_tile(wait=first + "bar.sync 0;", seed=seed)
    np.testing.assert_array_equal(out, source[:8, :8])
    with pytest.raises(SimulationError, match="a race: this warp has not waited for"):
        read_tile(wait="bar.sync 0;", seed=seed)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"bytes": 512}, "nobody will end the wait"),
        ({"place": 2048 + 64}, "misaligned"),
        ({"place": SHARED - 128}, "outside of shared memory"),
        ({"place": 1024}, "a barrier lies here"),
        ({"wait": "@%p1 mbarrier.inval.shared::cta.b64 [%r1];"}, "before the copies"),
        ({"wait": "st.shared.b32 [2048], 0;"}, "a race"),
    ],
)
def test_what_a_tile_must_not_do(more: dict[str, object], message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        read_tile(**more)
