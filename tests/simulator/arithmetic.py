"""Instructions with registers in and registers out, of each thread for itself."""

from __future__ import annotations

from .grammar import BITS, SIGNED, UNSIGNED, WHOLE, WITH_BYTES, Vocabulary, Words
from .operands import COMPARISONS, OPERATIONS, REGISTER, SIZES, TYPES, Decoded, Unknown

__all__ = ["KNOWN"]

_HALVES = "f16|bf16|f16x2|bf16x2"
_ORDERED = "eq|ne|lt|le|gt|ge"
_UNORDERED = "equ|neu|ltu|leu|gtu|geu|num|nan"
_TO_WHOLE = "rzi|rni|rmi|rpi"
KNOWN = Vocabulary()


@KNOWN.of(
    f"neg|abs.{SIGNED}",
    "neg|abs.ftz?.f32",
    f"neg|abs.f64|{_HALVES}",
    f"not.pred|{BITS}",
    "popc.b32|b64",
    "ex2.approx.ftz?.f32",
    given=2,
)
@KNOWN.of(
    f"add|sub|div|rem.{WHOLE}",
    f"mul.lo|hi.{WHOLE}",
    "mul.wide.u16|s16|u32|s32",
    "add|sub|mul.rn?.ftz?.f32",
    f"add|sub|mul.rn?.{_HALVES}",
    "div.rn|full.ftz?.f32",
    f"and|or|xor.pred|{BITS}",
    f"shl.{BITS}",
    f"shr.{BITS}|{WHOLE}",
    given=3,
)
@KNOWN.of(
    f"mad.lo|hi.{WHOLE}",
    "mad.wide.u16|s16|u32|s32",
    "fma.rn.ftz?.f32",
    "fma.rn.f16|bf16",
    "bfe.u32|s32|u64|s64",
    "prmt.b32",
    f"selp.{BITS}|{WHOLE}|f32|f64",
    "shf.l.wrap.b32",
    given=4,
)
def _arithmetic(base: str, a: Words) -> Decoded:
    return a.plain(base.upper(), a.which("lo", "wide", "hi"), 0, "ftz" in a.words)


@KNOWN.of(
    f"min|max.{WHOLE}",
    "min|max.relu.s32",
    "min|max.ftz?.NaN?.f32",
    "min|max.f64",
    f"min|max.NaN?.{_HALVES}",
    given=3,
)
def _extreme(base: str, a: Words) -> Decoded:
    return a.plain(base.upper(), "NaN" in a.words, "relu" in a.words, "ftz" in a.words)


@KNOWN.of(
    f"setp.eq|ne.{BITS}",
    f"setp.{_ORDERED}.{WHOLE}",
    f"setp.lo|ls|hi|hs.{UNSIGNED}",
    f"setp.{_ORDERED}|{_UNORDERED}.ftz?.f32",
    f"setp.{_ORDERED}|{_UNORDERED}.f64|{_HALVES}",
    given=3,
)
def _compare(base: str, a: Words) -> Decoded:
    outputs = a.both()
    if (len(outputs) == 2) != a.types[-1].endswith("x2"):
        raise Unknown("this many predicates")
    names = {"lo": "LT", "ls": "LE", "hi": "GT", "hs": "GE", "nan": "NAN_"}
    how = COMPARISONS[names.get(a.words[1], a.words[1].upper())]
    detail = [how, 0, "ftz" in a.words]
    return Decoded(OPERATIONS["SETP"], a.type, 0, detail, outputs, a.rest(1))


@KNOWN.of(f"mov.pred|{BITS}|{WHOLE}|f32|f64", given=2)
def _move(base: str, a: Words) -> Decoded:
    outputs, inputs = a.scope.operands(a.given[0]), a.scope.operands(a.given[1])
    parts = max(len(outputs), len(inputs))
    size = SIZES[a.types[-1]] // parts
    if parts > 1 and (
        min(len(outputs), len(inputs)) > 1
        or size * parts != SIZES[a.types[-1]]
        or any(o.kind == REGISTER and o.size != size for o in max(outputs, inputs, key=len))
    ):
        raise Unknown("registers that do not fill another")
    return Decoded(OPERATIONS["MOV"], a.type, 0, [], outputs, inputs)


@KNOWN.of("cvta.param.u64", "cvta.to?.global.u64", given=2)
def _same_address(base: str, a: Words) -> Decoded:
    return a.plain("MOV")


@KNOWN.of(
    f"cvt.{WITH_BYTES}.{WITH_BYTES}",
    f"cvt.rn.f32.{WITH_BYTES}",
    f"cvt.{_TO_WHOLE}.ftz?.{WITH_BYTES}|f32.f32",
    f"cvt.{_TO_WHOLE}.{WITH_BYTES}.f16|bf16",
    "cvt.f32.f16|bf16",
    "cvt.rn.f32.f64",
    "cvt.rn.relu?.f16|bf16.f32",
    given=2,
)
@KNOWN.of("cvt.rn.relu?.f16x2|bf16x2.f32", given=3)
def _convert(base: str, a: Words) -> Decoded:
    detail = [a.which("rn", "rzi", "rni", "rmi", "rpi"), "relu" in a.words, "ftz" in a.words]
    to, source = (TYPES[name] for name in a.types)
    return Decoded(OPERATIONS["CVT"], to, source, detail, a.one(0), a.rest(1))
