"""The operands of an instruction, and the names that PTX and the machine share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "COMPARISONS", "NUMBER", "OPERATIONS", "REGISTER", "SIZES", "TYPES", "Decoded", "Operand",
    "Scope", "Unknown", "number", "split",
]  # fmt: skip

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
    """What the machine does not know of a program."""


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


class Decoded(NamedTuple):
    """An instruction without its predicate, target and line."""

    operation: int
    type: int = 0
    source_type: int = 0
    detail: Sequence[int] = ()
    outputs: Sequence[Operand] = ()
    inputs: Sequence[Operand] = ()


def number(value: int) -> Operand:
    return Operand(NUMBER, 8, value % 2**64)


_GIVEN = re.compile(r"(?:\{[^{}]*\}|\[[^\[\]]*\]|[^,{}\[\]])+")


def split(text: str) -> list[str]:
    """At the commas that are in no bracket."""
    return [part.strip() for part in _GIVEN.findall(text)]


@dataclass
class Scope:
    """Names where an instruction stands: registers by (place, size), and addresses."""

    registers: dict[str, tuple[int, int]]
    addresses: dict[str, int]
    parameter_bytes: int

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
        return number(self.whole(text))

    def whole(self, text: str) -> int:
        """A number that stands in the text."""
        if not re.fullmatch(r"-?(0x[0-9a-fA-F]+|0|[1-9]\d*)U?", text):
            raise Unknown(f"operand {text}")
        return int(text.rstrip("U"), 0)

    def operands(self, text: str) -> list[Operand]:
        """Of one, or of several in braces."""
        names = split(text[1:-1]) if text.startswith("{") else [text]
        return [self.operand(name) for name in names]

    def address(self, text: str) -> list[Operand]:
        """[base + offset] is two."""
        if not re.fullmatch(r"\[.*\]", text):
            raise Unknown(f"address {text}")
        base, _, offset = text[1:-1].partition("+")
        return [self.operand(base.strip()), number(self.whole(offset.strip() or "0"))]

    def parameter(self, text: str, size: int) -> Operand:
        """Where the bytes at an address lie among the parameters."""
        base, offset = self.address(text)
        place = base.value + offset.value - self.addresses["#parameters"]
        if base.kind != NUMBER or not 0 <= place <= self.parameter_bytes - size:
            raise Unknown(f"a parameter at {text}")
        return number(place)
