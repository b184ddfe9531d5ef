"""What the simulator reads of PTX: names and where they hold, and words that it refuses."""

from __future__ import annotations

import os
import re
import subprocess

import numpy as np
import pytest

from .simulator import machine
from .simulator.machine import SimulationError
from .simulator.operands import Unknown
from .simulator.small import launch, needs_a_compiler

pytestmark = needs_a_compiler

_EIGHT = ", ".join(f"%r{n}" for n in range(8))


@pytest.mark.parametrize(
    "line",
    """
    tcgen05.wait::ld.sync.aligned;
    trap;
    bar.sync 1, 64;
    bar.sync 1;
    add.sat.s32 %r1, %r1, 1;
    add.rz.f32 %r1, %r2, %r3;
    add.f64 %d1, %d2, %d3;
    add.u16x2 %r1, %r2, %r3;
    add %r1, %r2, %r3;
    add.f32 %r1, %r2;
    add.f32 1, %r2, %r3;
    mul.bogus.lo.s32 %r1, %r2, 2;
    mov.bogus.b32 %r1, %r2;
    mov.b64 %d1, {%h1, %h2};
    max.bogus.s32 %r1, %r2, 3;
    max.f32 %r1, %r2, %r3, %r4;
    min.s16x2 %r1, %r2, %r3;
    min.xorsign.abs.f32 %r1, %r2, %r3;
    prmt.b32.f4e %r1, %r2, 0, 1;
    ex2.approx.f16 %h1, %h2;
    shr.clamp.u32 %r1, %r2, 1;
    shf.r.wrap.b32 %r1, %r2, %r3, 1;
    setp.lo.s32 %p1, %r1, 3;
    setp.lt.b32 %p1, %r1, 3;
    setp.lt.and.s32 %p1, %r1, 3, %p2;
    setp.lt.f16x2 %p1, %r1, %r2;
    cvt.rz.f16.f32 %h1, %r1;
    cvt.rz.bf16.f32 %h1, %r1;
    cvt.rna.tf32.f32 %r1, %r2;
    cvt.rn.satfinite.f16.f32 %h1, %r1;
    cvt.rn.satfinite.bf16x2.f32 %r1, %r2, %r3;
    cvt.rn.satfinite.e4m3x2.f32 %h1, %r1, %r2;
    cvt.rn.bf16x2.f32 %r1, %r2;
    ld.volatile.global.b32 %r1, [%a0];
    ld.local.b32 %r1, [%r2];
    ld.global.b32 %r1, %a0;
    ld.global.v2.b32 %r1, [%a0];
    ld.global.v4.b64 {%d1, %d2, %d3, %d4}, [%a0];
    ld.param.b64 %d1, [p_9];
    ld.param.b64 %d1, [%d2];
    ld.param.b64 %d1, [p_0+8];
    st.global.L2::cache_hint.b32 [%a0], %t, %d1;
    atom.shared.min.u32 %r1, [%r2], 1;
    ldmatrix.sync.aligned.m16n16.x1.trans.shared.b8 {%r1}, [%r2];
    ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r1}, [%r2];
    cp.async.wait_all;
    cp.async.cg.shared.global [%r1], [%a0], 8;
    cp.async.ca.shared.global [%r1], [%a0], 4, %p1;
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group.read 0;
    fence.proxy.async.global;
    fence.proxy.alias;
    fence.acq_rel.gpu;
    mbarrier.arrive.expect_tx.shared.b64 %d1, [%r1], 16;
    mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r1}, {%r1}, {%r2}, {%r1};
    mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r1}, {%r1}, {%r2}, {%r1};
    wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f0,%f1,%f2,%f3}, %d1, %d1, %p1, 1, -1, 0, 0;
    wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {%f0,%f1,%f2,%f3}, %d1, %d1, %p1, 1, 1, 0, 1;
    @%q ret;
    bra $L_nowhere;
    brx.idx %r1, $L_no_table;
    mov.b32 %r1, %clock;
    """.strip().splitlines(),
)
def test_what_is_not_known_is_named(line: str) -> None:
    """With its line, for it stands among thousands."""
    with pytest.raises(Unknown, match=r"line \d+ of the PTX: "):
        launch(line, np.zeros(64, np.int32))


def test_eight_registers_are_not_loaded_at_once() -> None:
    with pytest.raises(Unknown, match=re.escape("ld.global.v8.b32")):
        launch(f"ld.global.v8.b32 {{{_EIGHT}}}, [%a0];", np.zeros(64, np.int32))


def test_arrays_in_shared_memory() -> None:
    """One has all of it."""
    launch("st.shared.b32 [memory], 1;")
    with pytest.raises(Unknown, match="several arrays in shared memory: memory, other"):
        launch(".shared .align 4 .b8 other[64]; st.shared.b32 [other], 1;")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # The same name stands before: this jump is within its own braces, and forward.
        ("{ skip: add.s32 %r1, %r1, 1; } { @%p1 bra.uni skip; add.s32 %r1, %r1, 100; skip: }", 1),
        # The same name stands after: this jump goes back.
        (
            """{ back: add.s32 %r1, %r1, 1; setp.lt.s32 %p2, %r1, 3; @%p2 bra.uni back; }
            { back: add.s32 %r1, %r1, 10; setp.lt.s32 %p2, %r1, 30; @%p2 bra.uni back; }""",
            33,
        ),
        # Out of braces; the inner one of two.
        ("{ bra $L_end; } add.s32 %r1, %r1, 100; $L_end: add.s32 %r1, %r1, 2;", 2),
        ("{ { bra end; add.s32 %r1, %r1, 100; end: } add.s32 %r1, %r1, 5; end: }", 5),
    ],
)
def test_labels_hold_between_their_braces(body: str, expected: int) -> None:
    out = np.zeros(32, np.int32)
    store = "mad.wide.u32 %d0, %t, 4, %a0; st.global.b32 [%d0], %r1;"
    launch(f"mov.b32 %r1, 0; setp.eq.b32 %p1, %t, %t; {body} {store}", out)
    assert (out == expected).all()


_TABLE = """
    mov.b32 %r1, {index};
    mov.b32 %r2, 0;
    $L_table: .branchtargets $L_0, $L_1, $L_2;
    brx.idx %r1, $L_table;
    $L_0: add.s32 %r2, %r2, 1;
    $L_1: add.s32 %r2, %r2, 10;
    $L_2: add.s32 %r2, %r2, 100;
    mad.wide.u32 %d0, %t, 4, %a0;
    st.global.b32 [%d0], %r2;
"""


def test_branches_by_a_table() -> None:
    out = np.zeros(32, np.int32)
    for index, expected in enumerate((111, 110, 100)):
        launch(_TABLE.format(index=index), out)
        assert (out == expected).all()
    launch("rem.u32 %r1, %t, 3;" + _TABLE.replace("mov.b32 %r1, {index};", ""), out)
    np.testing.assert_array_equal(out, np.resize([111, 110, 100], 32))
    for index in (3, -1, 123456789):
        with pytest.raises(SimulationError, match="no entry of its table"):
            launch(_TABLE.format(index=index), out)


def test_a_loop_without_an_end() -> None:
    with pytest.raises(SimulationError, match="this block does not end"):
        launch("$L_again: add.s32 %r1, %r1, 1; bra $L_again;")


def test_what_is_built_is_for_this_compiler_and_cpu() -> None:
    """Another CPU's instructions and other options make another library."""
    command = machine.compiler()
    assert command is not None
    version = subprocess.run([command, "-dumpversion"], check=True, stdout=subprocess.PIPE).stdout
    native, plain = (machine.built_for(command, options) for options in (["-march=native"], []))
    assert version.strip() in native
    if os.uname().machine == "x86_64":
        assert native != plain, "no CPU of these days has as little as -march=x86-64"
