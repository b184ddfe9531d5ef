"""How a mnemonic is read: word by word, by those that know it, and not at all if nobody does.

A decoder says which words it knows, in their order: `a|b` is one of two, `a?` may be absent.
What nobody says is unknown: a modifier that is passed over would make another result.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from .operands import OPERATIONS, REGISTER, TYPES, Decoded, Operand, Scope, Unknown

__all__ = ["BITS", "SHARED", "SIGNED", "UNSIGNED", "WHOLE", "WITH_BYTES", "Vocabulary", "Words"]

BITS = "b16|b32|b64"
UNSIGNED = "u16|u32|u64"
SIGNED = "s16|s32|s64"
WHOLE = f"{UNSIGNED}|{SIGNED}"
WITH_BYTES = f"u8|s8|{WHOLE}"
SHARED = "shared|shared::cta"


class Words(NamedTuple):
    """A mnemonic taken apart, and the operands' texts."""

    words: list[str]
    types: list[str]
    given: list[str]
    scope: Scope

    @property
    def type(self) -> int:
        if not self.types:
            raise Unknown("no type")
        return TYPES[self.types[-1]]

    def which(self, *names: str, absent: int = 0) -> int:
        """The place of the one that is among the words."""
        return next((place for place, name in enumerate(names) if name in self.words), absent)

    def one(self, place: int) -> list[Operand]:
        return [self.scope.operand(self.given[place])]

    def rest(self, first: int) -> list[Operand]:
        return [self.scope.operand(text) for text in self.given[first:]]

    def registers(self, place: int, count: int, size: int = 4) -> list[Operand]:
        """As many of this size in braces."""
        found = self.scope.operands(self.given[place])
        if [(o.kind, o.size) for o in found] != [(REGISTER, size)] * count:
            raise Unknown(f"{self.given[place]} is not {count} registers of {size} bytes")
        return found

    def both(self) -> list[Operand]:
        """p|q."""
        return [self.scope.operand(name) for name in self.given[0].split("|")]

    def plain(self, name: str, *detail: int) -> Decoded:
        """The first operand is the result, the others are what it is made of."""
        return Decoded(OPERATIONS[name], self.type, 0, detail, self.one(0), self.rest(1))


Decoder = Callable[[str, Words], Decoded]


class Form(NamedTuple):
    """Words in their order, how many operands, and who knows them."""

    pattern: re.Pattern[str]
    given: tuple[int, ...]
    decoder: Decoder


class Vocabulary(list[Form]):
    """What some decoders know."""

    def of(self, *forms: str, given: int | tuple[int, ...]) -> Callable[[Decoder], Decoder]:
        """A decoder of these forms, each with so many operands."""
        counts = (given,) if isinstance(given, int) else given

        def note(decoder: Decoder) -> Decoder:
            self.extend(Form(_pattern(form), counts, decoder) for form in forms)
            return decoder

        return note


def _pattern(form: str) -> re.Pattern[str]:
    words = [
        rf"(?:\.(?:{word.removesuffix('?')}))" + "?" * word.endswith("?")
        for word in form.split(".")
    ]
    return re.compile("".join(words))
