"""Instructions that move data: loads, stores, copies, and the barriers that count their bytes."""

from __future__ import annotations

from .grammar import BITS, SHARED, WITH_BYTES, Vocabulary, Words
from .operands import OPERATIONS, REGISTER, SIZES, Decoded, Operand, Unknown, split

__all__ = ["KNOWN"]

_STORED = f"b8|{BITS}|{WITH_BYTES}|f32|f64"
# Which caches a value stays in: nothing that a result depends on.
_KEPT = "L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last?"
_LOADED = f"ca|cg|cs?.{_KEPT}"
_WRITTEN = f"wb|cg|cs|wt?.{_KEPT}"
KNOWN = Vocabulary()


def _vector(a: Words, place: int) -> list[Operand]:
    """What is loaded or stored: one, or as many as the mnemonic says, and 16 bytes at most."""
    operands = a.scope.operands(a.given[place])
    count = (1, 2, 4)[a.which("", "v2", "v4")]
    if len(operands) != count or count * SIZES[a.types[-1]] > 16:
        raise Unknown(f"{len(operands)} operands side by side")
    return operands


@KNOWN.of(f"ld.param.v2|v4?.{_STORED}", given=2)
def _parameter(base: str, a: Words) -> Decoded:
    outputs = _vector(a, 0)
    inputs = [a.scope.parameter(a.given[1], len(outputs) * SIZES[a.types[-1]])]
    return Decoded(OPERATIONS["LOAD_PARAMETER"], a.type, 0, [], outputs, inputs)


@KNOWN.of(f"ld.global.{_LOADED}.v2|v4?.{_STORED}", f"ld.{SHARED}.v2|v4?.{_STORED}", given=2)
@KNOWN.of(f"st.global.{_WRITTEN}.v2|v4?.{_STORED}", f"st.{SHARED}.v2|v4?.{_STORED}", given=2)
def _access(base: str, a: Words) -> Decoded:
    space = a.words[1].split("::")[0].upper()
    if base == "st":
        inputs = a.scope.address(a.given[0]) + _vector(a, 1)
        return Decoded(OPERATIONS[f"STORE_{space}"], a.type, 0, [], [], inputs)
    outputs, inputs = _vector(a, 0), a.scope.address(a.given[1])
    return Decoded(OPERATIONS[f"LOAD_{space}"], a.type, 0, [], outputs, inputs)


@KNOWN.of(f"atom.{SHARED}.add.u32", given=3)
def _atomic(base: str, a: Words) -> Decoded:
    inputs = a.scope.address(a.given[1]) + a.one(2)
    return Decoded(OPERATIONS["ADD_SHARED"], a.type, 0, [], a.one(0), inputs)


@KNOWN.of(f"ldmatrix|stmatrix.sync.aligned.m8n8.x1|x2|x4.trans?.{SHARED}.b16", given=2)
def _matrix(base: str, a: Words) -> Decoded:
    detail, count = ["trans" in a.words], (1, 2, 4)[a.which("x1", "x2", "x4")]
    if base == "stmatrix":
        inputs = a.scope.address(a.given[0]) + a.registers(1, count)
        return Decoded(OPERATIONS["STORE_MATRIX"], a.type, 0, detail, [], inputs)
    outputs, inputs = a.registers(0, count), a.scope.address(a.given[1])
    return Decoded(OPERATIONS["LOAD_MATRIX"], a.type, 0, detail, outputs, inputs)


@KNOWN.of("cp.async.commit_group", given=0)
@KNOWN.of("cp.async.wait_group", given=1)
def _copies(base: str, a: Words) -> Decoded:
    if "commit_group" in a.words:
        return Decoded(OPERATIONS["COMMIT_COPIES"])
    return Decoded(OPERATIONS["WAIT_COPIES"], detail=[a.scope.whole(a.given[0])])


@KNOWN.of(f"cp.async.ca|cg.{SHARED}.global.L2::64B|L2::128B|L2::256B?", given=(3, 4))
def _copy(base: str, a: Words) -> Decoded:
    size = a.scope.whole(a.given[2])
    wanted = a.rest(3)
    if size not in ((16,) if "cg" in a.words else (4, 8, 16)):
        raise Unknown(f"a copy of {size} bytes")
    if any(o.kind == REGISTER and o.size != 4 for o in wanted):
        raise Unknown("a copy under a condition")
    inputs = a.scope.address(a.given[0]) + a.scope.address(a.given[1]) + wanted
    return Decoded(OPERATIONS["COPY"], detail=[size], inputs=inputs)


@KNOWN.of(
    "cp.async.bulk.tensor.2d.shared::cluster|shared::cta.global.mbarrier::complete_tx::bytes",
    given=3,
)
def _copy_tile(base: str, a: Words) -> Decoded:
    tile, *place = split(a.given[1][1:-1])
    if len(place) != 1 or len(split(place[0][1:-1])) != 2:
        raise Unknown("a tile without a column and a row")
    inputs = [*a.scope.address(a.given[0]), a.scope.operand(tile)]
    inputs += a.scope.address(a.given[2]) + a.scope.operands(place[0])
    return Decoded(OPERATIONS["COPY_TILE"], inputs=inputs)


@KNOWN.of(f"mbarrier.inval.{SHARED}.b64", given=1)
@KNOWN.of(f"mbarrier.init.{SHARED}.b64", given=2)
def _set_up(base: str, a: Words) -> Decoded:
    name = ("INIT_BARRIER", "INVALIDATE_BARRIER")[a.which("init", "inval")]
    return Decoded(OPERATIONS[name], inputs=a.scope.address(a.given[0]) + a.rest(1))


@KNOWN.of(
    f"mbarrier.arrive.expect_tx.{SHARED}.b64", f"mbarrier.try_wait.parity.{SHARED}.b64", given=3
)
def _wait(base: str, a: Words) -> Decoded:
    if "arrive" in a.words and a.given[0] != "_":
        raise Unknown("the state of a barrier as a number")
    name = ("EXPECT_BYTES", "TRY_WAIT")[a.which("arrive", "try_wait")]
    inputs = a.scope.address(a.given[1]) + a.one(2)
    return Decoded(OPERATIONS[name], outputs=a.one(0), inputs=inputs)
