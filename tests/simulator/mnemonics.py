"""What each instruction of PTX is to the machine: its operation, types, details and operands."""

from __future__ import annotations

from functools import lru_cache

from . import arithmetic, transfers, warps
from .grammar import Form, Words
from .operands import NUMBER, TYPES, Decoded, Scope, Unknown

__all__ = ["decode"]

_KNOWN = (*arithmetic.KNOWN, *transfers.KNOWN, *warps.KNOWN)


def decode(mnemonic: str, given: list[str], scope: Scope) -> Decoded:
    """The instruction of these words and operands.

    Raises:
        Unknown: a word, or the number of operands, or what an operand is.
    """
    form = _form(mnemonic)
    if form is None:
        raise Unknown(mnemonic)
    if len(given) not in form.given:
        raise Unknown(f"{len(given)} operands")
    base, *words = mnemonic.split(".")
    types = [word for word in words if word in TYPES]
    decoded = form.decoder(base, Words([base, *words], types, given, scope))
    if any(output.kind == NUMBER for output in decoded.outputs):
        raise Unknown("a number in the place of a result")
    return decoded


@lru_cache(maxsize=1024)
def _form(mnemonic: str) -> Form | None:
    return next((form for form in _KNOWN if form.pattern.fullmatch("." + mnemonic)), None)
