"""What each instruction of PTX is to the machine: its operation, types, details and operands."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["SIZES", "TYPES", "Decoded", "Scope", "Unknown", "decode", "split"]

_HEADER = (Path(__file__).parent / "core" / "program.hpp").read_text()


def _names(macro: str) -> dict[str, int]:
    """The names of one of the header's lists, numbered as C++ numbers them."""
    body = re.search(rf"#define {macro}\(X\)((?:.*\\\n)*.*)", _HEADER)
    assert body is not None
    return {name: n for n, name in enumerate(re.findall(r"X\((\w+)", body[1]))}


OPERATIONS = _names("OPERATIONS")
COMPARISONS = _names("COMPARISONS")
TYPES = {name.lower(): number for name, number in _names("TYPES").items()}
SIZES = {
    name.lower(): int(size)
    for name, size in re.findall(r"X\((\w+), (\d)\)", _HEADER[_HEADER.index("#define TYPES") :])
}


class Unknown(NotImplementedError):
    """An instruction that the machine does not know."""


class Operand(NamedTuple):
    """As C++ has it: a register's place, a number, or what the hardware tells a thread."""

    kind: int
    size: int
    value: int


REGISTER, NUMBER, SPECIAL, NOWHERE = range(4)
_SPECIAL = {"%tid.x": 0} | {
    f"%{name}.{axis}": first + n
    for name, first in (("ctaid", 1), ("nctaid", 4))
    for n, axis in enumerate("xyz")
}


def number(value: int) -> Operand:
    return Operand(NUMBER, 8, value % 2**64)


@dataclass
class Scope:
    """Names where an instruction stands: registers by (place, size), and addresses."""

    registers: dict[str, tuple[int, int]]
    addresses: dict[str, int]

    def operand(self, text: str) -> Operand:
        if text in self.registers:
            place, size = self.registers[text]
            return Operand(REGISTER, size, place)
        if text == "_":
            return Operand(NOWHERE, 0, 0)
        if text in _SPECIAL:
            return Operand(SPECIAL, 4, _SPECIAL[text])
        if text in self.addresses:
            return number(self.addresses[text])
        if re.fullmatch(r"0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}", text):
            return number(int(text[2:], 16))
        if re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)U?", text):
            return number(int(text.rstrip("U"), 0))
        raise Unknown(f"operand {text}")

    def operands(self, text: str) -> list[Operand]:
        """Of one, or of several in braces."""
        names = split(text[1:-1]) if text.startswith("{") else [text]
        return [self.operand(name) for name in names]

    def address(self, text: str) -> list[Operand]:
        """[base + offset] is two."""
        base, _, offset = text[1:-1].partition("+")
        return [self.operand(base.strip()), number(int(offset.strip() or "0", 0))]


_GIVEN = re.compile(r"(?:\{[^{}]*\}|\[[^\[\]]*\]|[^,{}\[\]])+")


def split(text: str) -> list[str]:
    """At the commas that are in no bracket."""
    return [part.strip() for part in _GIVEN.findall(text)]


class Decoded(NamedTuple):
    """An instruction without its predicate, target and line."""

    operation: int
    type: int = 0
    source_type: int = 0
    detail: Sequence[int] = ()
    outputs: Sequence[Operand] = ()
    inputs: Sequence[Operand] = ()


class _Words(NamedTuple):
    """A mnemonic taken apart, and the operands' texts."""

    words: list[str]
    types: list[str]
    given: list[str]
    scope: Scope

    @property
    def type(self) -> int:
        return TYPES[self.types[-1]] if self.types else 0

    def which(self, *names: str, absent: int | None = None) -> int:
        """The place of the one that is among the words."""
        for place, name in enumerate(names):
            if name in self.words:
                return place
        if absent is None:
            raise Unknown(".".join(self.words))
        return absent

    def one(self, place: int) -> list[Operand]:
        return [self.scope.operand(self.given[place])]

    def rest(self, first: int) -> list[Operand]:
        return [o for text in self.given[first:] for o in self.scope.operands(text)]

    def both(self) -> list[Operand]:
        """p|q."""
        return [self.scope.operand(name) for name in self.given[0].split("|")]


_Decoder = Callable[[str, _Words], Decoded]
_DECODERS: dict[str, _Decoder] = {}


def _of(*bases: str) -> Callable[[_Decoder], _Decoder]:
    def note(decoder: _Decoder) -> _Decoder:
        _DECODERS.update(dict.fromkeys(bases, decoder))
        return decoder

    return note


def decode(mnemonic: str, given: list[str], scope: Scope) -> Decoded:
    words, types = _taken_apart(mnemonic)
    if words[0] not in _DECODERS:
        raise Unknown(mnemonic)
    return _DECODERS[words[0]](words[0], _Words(words, types, given, scope))


@lru_cache(maxsize=1024)
def _taken_apart(mnemonic: str) -> tuple[list[str], list[str]]:
    words = mnemonic.split(".")
    return words, [word for word in words[1:] if word in TYPES]


def _plain(name: str, a: _Words, *detail: int) -> Decoded:
    return Decoded(OPERATIONS[name], a.type, 0, detail, a.one(0), a.rest(1))


@_of("add", "sub", "mul", "mad", "fma", "div", "rem", "and", "or", "xor", "not", "shl", "shr")
@_of("neg", "abs", "popc", "bfe", "prmt", "ex2", "selp")
def _arithmetic(base: str, a: _Words) -> Decoded:
    if {"sat", "cc", "f32x2"}.intersection(a.words):
        raise Unknown(".".join(a.words))
    return _plain(base.upper(), a, a.which("lo", "wide", "hi", absent=0))


@_of("min", "max")
def _extreme(base: str, a: _Words) -> Decoded:
    return _plain(base.upper(), a, "NaN" in a.words, "relu" in a.words)


@_of("shf")
def _funnel_shift(base: str, a: _Words) -> Decoded:
    if a.words != ["shf", "l", "wrap", "b32"]:
        raise Unknown(".".join(a.words))
    return _plain("SHF", a)


@_of("setp")
def _compare(base: str, a: _Words) -> Decoded:
    outputs = a.both()
    if len(a.words) != 3 or (len(outputs) == 2) != a.types[-1].endswith("x2"):
        raise Unknown(".".join(a.words))
    how = COMPARISONS[{"NAN": "NAN_"}.get(a.words[1].upper(), a.words[1].upper())]
    return Decoded(OPERATIONS["SETP"], a.type, 0, [how], outputs, a.rest(1))


@_of("mov", "cvta")
def _move(base: str, a: _Words) -> Decoded:
    return Decoded(OPERATIONS["MOV"], a.type, 0, [], a.scope.operands(a.given[0]), a.rest(1))


@_of("cvt")
def _convert(base: str, a: _Words) -> Decoded:
    if "sat" in a.words:
        raise Unknown(".".join(a.words))
    detail = [a.which("rn", "rzi", "rni", "rmi", "rpi", absent=0), "relu" in a.words]
    to, source = (TYPES[name] for name in a.types)
    return Decoded(OPERATIONS["CVT"], to, source, detail, a.one(0), a.rest(1))


@_of("ld", "st")
def _access(base: str, a: _Words) -> Decoded:
    space = a.words[1].split("::")[0]
    if base == "st":
        inputs = a.scope.address(a.given[0]) + a.rest(1)
        return Decoded(OPERATIONS[f"STORE_{space.upper()}"], a.type, 0, [], [], inputs)
    outputs, inputs = a.scope.operands(a.given[0]), a.scope.address(a.given[1])
    if space == "param":
        inputs = [number(inputs[0].value + inputs[1].value - a.scope.addresses["#parameters"])]
        return Decoded(OPERATIONS["LOAD_PARAMETER"], a.type, 0, [], outputs, inputs)
    return Decoded(OPERATIONS[f"LOAD_{space.upper()}"], a.type, 0, [], outputs, inputs)


@_of("atom")
def _atomic(base: str, a: _Words) -> Decoded:
    if a.words != ["atom", "shared", "add", "u32"]:
        raise Unknown(".".join(a.words))
    inputs = a.scope.address(a.given[1]) + a.rest(2)
    return Decoded(OPERATIONS["ADD_SHARED"], a.type, 0, [], a.one(0), inputs)


@_of("ldmatrix", "stmatrix")
def _matrix(base: str, a: _Words) -> Decoded:
    detail = ["trans" in a.words]
    if base == "stmatrix":
        inputs = a.scope.address(a.given[0]) + a.rest(1)
        return Decoded(OPERATIONS["STORE_MATRIX"], a.type, 0, detail, [], inputs)
    outputs, inputs = a.scope.operands(a.given[0]), a.scope.address(a.given[1])
    return Decoded(OPERATIONS["LOAD_MATRIX"], a.type, 0, detail, outputs, inputs)


@_of("cp")
def _copy(base: str, a: _Words) -> Decoded:
    if "commit_group" in a.words:
        return Decoded(OPERATIONS["COMMIT_COPIES"])
    if "wait_group" in a.words:
        return Decoded(OPERATIONS["WAIT_COPIES"], detail=[int(a.given[0])])
    if "bulk" not in a.words:
        inputs = a.scope.address(a.given[0]) + a.scope.address(a.given[1]) + a.rest(3)
        return Decoded(OPERATIONS["COPY"], detail=[int(a.given[2], 0)], inputs=inputs)
    if "2d" not in a.words or "mbarrier::complete_tx::bytes" not in a.words:
        raise Unknown(".".join(a.words))
    tile, place = split(a.given[1][1:-1])
    inputs = [*a.scope.address(a.given[0]), a.scope.operand(tile)]
    inputs += a.scope.address(a.given[2]) + a.scope.operands(place)
    return Decoded(OPERATIONS["COPY_TILE"], inputs=inputs)


@_of("mbarrier")
def _barrier_in_memory(base: str, a: _Words) -> Decoded:
    names = ("INIT_BARRIER", "INVALIDATE_BARRIER", "EXPECT_BYTES", "TRY_WAIT")
    name = names[a.which("init", "inval", "expect_tx", "try_wait")]
    has_output = name in names[2:]
    at, *others = a.given[has_output:]
    outputs = a.one(0) if has_output else []
    inputs = a.scope.address(at) + [a.scope.operand(text) for text in others]
    return Decoded(OPERATIONS[name], outputs=outputs, inputs=inputs)


@_of("shfl")
def _shuffle(base: str, a: _Words) -> Decoded:
    detail = [a.which("up", "bfly", "idx")]
    return Decoded(OPERATIONS["SHUFFLE"], a.type, 0, detail, a.one(0), a.rest(1)[:3])


@_of("vote", "redux", "elect")
def _together(base: str, a: _Words) -> Decoded:
    if base == "vote" and "ballot" not in a.words:
        raise Unknown(".".join(a.words))
    if base == "elect":
        return Decoded(OPERATIONS["ELECT"], outputs=a.both())
    detail = [] if base == "vote" else [a.which("add", "max", "min")]
    name = {"vote": "BALLOT", "redux": "REDUCE"}[base]
    return Decoded(OPERATIONS[name], a.type, 0, detail, a.one(0), a.one(1))


@_of("mma", "wgmma")
def _product(base: str, a: _Words) -> Decoded:
    if base == "wgmma" and a.words[1] != "mma_async":
        name = ("NOTHING", "COMMIT_PRODUCTS", "WAIT_PRODUCTS")
        which = a.which("fence", "commit_group", "wait_group")
        return Decoded(OPERATIONS[name[which]], detail=[int(text) for text in a.given])
    shape = next(word for word in a.words if re.fullmatch(r"m\d+n\d+k\d+", word))
    columns, terms = map(int, re.findall(r"[nk](\d+)", shape))
    outputs, left, right = (a.scope.operands(text) for text in a.given[:3])
    kind = TYPES[a.types[1]]
    if base == "mma":
        inputs = left + right + a.scope.operands(a.given[3])
        return Decoded(OPERATIONS["MMA"], kind, 0, [terms], outputs, inputs)
    scale_a, scale_b, *transposed = (int(text, 0) for text in a.given[4:])
    if (scale_a, scale_b) != (1, 1):
        raise Unknown("a product that is subtracted")
    in_registers = len(left) == 4
    transposed = [0] * (2 - len(transposed)) + transposed  # registers have none
    detail = [columns, in_registers, *transposed]
    inputs = left + right + a.one(3)
    return Decoded(OPERATIONS["WGMMA"], kind, 0, detail, outputs, inputs)


@_of("bar", "fence", "ret", "bra", "brx")
def _control(base: str, a: _Words) -> Decoded:
    if base == "fence":
        return Decoded(OPERATIONS["FENCE_PROXY" if "proxy" in a.words else "NOTHING"])
    if base == "bar":
        if "warp" in a.words:
            return Decoded(OPERATIONS["MEET"])
        if a.given != ["0"]:
            raise Unknown("a barrier of some of the warps")
        return Decoded(OPERATIONS["BARRIER"])
    if base == "brx":
        return Decoded(OPERATIONS["BRANCH_TABLE"], inputs=a.one(0))
    return Decoded(OPERATIONS["RETURN" if base == "ret" else "BRANCH"])
