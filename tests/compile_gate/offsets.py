"""Are a kernel's offsets 64-bit? Read from the code that Triton hands to its back ends.

An offset is a sum of products, index times stride. It overflows where a product is formed in 32
bits, or where a 64-bit one is cut down to 32. In Triton's first intermediate code (TTIR) every
such operation stands with its type, helpers inlined, before any optimisation hides it.

What is proved: no such operation is in the kernel at all, whether it reaches an address or not,
except a scalar program number (or what is left of one after divisions and subtractions) times a
constant. That is where a block starts, which is below the number of points, outputs or channels.
"""

from __future__ import annotations

import re

__all__ = ["narrow_products"]

_OPERATION = re.compile(r"(%[\w.#]+) = ([\w.]+) (.*?) : (.*?)(?: loc\(.*)?$")
_ATTRIBUTES = re.compile(r" \{[^{}]*\}")
_LOOP_VALUES = re.compile(r"iter_args\((.*?)\)|\^bb\d+\((.*?)\)")
_VALUE = re.compile(r"%[\w.#]+")


def narrow_products(ttir: str) -> list[str]:
    """The operations of a kernel that could cut an offset to 32 bits, as lines of its TTIR."""
    constants: set[str] = set()
    from_programs: set[str] = set()
    from_products: set[str] = set()
    suspects = []
    for line in map(str.strip, ttir.splitlines()):
        # What a loop carries round may be a product, whatever it starts from.
        for carried in _LOOP_VALUES.findall(line):
            from_products.update(_VALUE.findall("".join(carried)))
        operation = _OPERATION.match(_ATTRIBUTES.sub("", line))
        if operation is None:
            continue
        result, name, arguments, type_ = operation.groups()
        operands = set(_VALUE.findall(arguments))
        if name == "arith.constant":
            constants.add(result)
        if name == "tt.get_program_id" or operands & from_programs:
            from_programs.add(result)
        start_of_block = (
            type_ == "i32"
            and operands & constants
            and operands & from_programs
            and not operands & from_products
        )
        is_product = name in ("arith.muli", "arith.shli")
        if is_product or operands & from_products:
            from_products.add(result)
        narrow = is_product and "i32" in type_ and not start_of_block
        if narrow or (name == "arith.trunci" and "i64" in type_):
            suspects.append(line)
    return suspects
