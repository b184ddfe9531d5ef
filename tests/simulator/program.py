"""The text of a kernel in PTX, as a program of the machine."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .mnemonics import decode
from .operands import NUMBER, SIZES, Operand, Scope, Unknown, split

__all__ = ["INSTRUCTION", "OPERAND", "Parameter", "Program"]

#: As in core/program.hpp.
OPERAND = np.dtype([("kind", "i4"), ("size", "i4"), ("value", "u8")])
INSTRUCTION = np.dtype(
    [
        ("operation", "i4"), ("type", "i4"), ("source_type", "i4"), ("detail", "i4", 4),
        ("predicate", "i4"), ("negated", "i4"),
        ("outputs", "i4"), ("inputs", "i4"), ("first", "i4"),
        ("target", "i4"), ("line", "i4"),
    ]
)  # fmt: skip
_ALIGNMENT = 128  # of all parameters together: a tile map wants 64


class Parameter(NamedTuple):
    """Where among the parameters, and how many bytes."""

    offset: int
    size: int


class _Use(NamedTuple):
    """Where a label is named: by the target of an instruction, or by an operand, of a table."""

    label: str
    in_table: bool
    index: int
    line: int


class _Block:
    """What is named between two braces: registers, labels, tables of labels."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.labels: dict[str, int] = {}
        self.tables: dict[str, list[str]] = {}
        self.uses: list[_Use] = []


class Program:
    """What `run_grid` takes of a kernel, but for its launch.

    Args of the machine: `code`, `operands`, `register_bytes` of a thread, `warps`; `parameters`
    are the bytes at `parameters_at`, which the code knows.
    """

    def __init__(self, ptx: str) -> None:
        entry = re.search(r"\.visible \.entry (\w+)\((.*?)\)(.*?)\{", ptx, re.DOTALL)
        assert entry is not None
        threads = re.search(r"\.(?:req|max)ntid (\d+)", entry[3])
        assert threads is not None
        self.warps = int(threads[1]) // 32
        self._read_parameters(entry[2])
        shared = re.findall(r"\.shared [^;]*?(\w+)\[\d*\];", ptx)
        if len(shared) > 1:
            raise Unknown(f"several arrays in shared memory: {', '.join(shared)}")
        addresses = self._addresses | dict.fromkeys(shared, 0)
        self._blocks = [_Block(Scope({}, addresses, self.parameter_bytes))]
        self._next_register = 0
        self._code: list[tuple[object, ...]] = []
        self._operands: list[Operand] = []
        self._places: dict[_Use, int] = {}
        self._read_body(ptx, entry.end())
        self.code = np.array(self._code, INSTRUCTION)
        self.operands = np.array(self._operands or [(0, 0, 0)], OPERAND)
        for use, place in self._places.items():
            array, field = (self.operands, "value") if use.in_table else (self.code, "target")
            array[field][use.index] = place
        self.register_bytes = -(-self._next_register // 8) * 8

    def _read_parameters(self, text: str) -> None:
        self.layout: list[Parameter] = []
        names, end = [], 0
        for declared in split(text):
            *words, name = declared.split()
            if several := re.fullmatch(r"(\w+)\[(\d+)\]", name):
                name, size, alignment = several[1], int(several[2]), 64
            else:
                size = alignment = next(SIZES[w[1:]] for w in words if w[1:] in SIZES)
            offset = -(-end // alignment) * alignment
            names.append(name)
            self.layout.append(Parameter(offset, size))
            end = offset + size
        self._memory = np.zeros(end + _ALIGNMENT, np.uint8)
        self.parameters_at = -(-self._memory.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        self.parameter_bytes = end
        places = zip(names, self.layout, strict=True)
        self._addresses = {name: self.parameters_at + place.offset for name, place in places}
        self._addresses["#parameters"] = self.parameters_at

    def _read_body(self, ptx: str, begin: int) -> None:
        """Statements up to the brace that ends the function."""
        line = ptx.count("\n", 0, begin) + 1
        statement = ""
        # Comments and line numbers of the source say nothing to the machine.
        for raw in ptx[begin:].split("\n"):
            text = "" if raw.lstrip().startswith((".loc", ".file")) else raw.split("//")[0]
            for piece in re.findall(r"[;{}]|[^;{}]+", text):
                # A brace is one of a block only where no statement has begun.
                if statement.strip() or piece not in "{}":
                    if piece != ";":
                        statement = self._without_labels(statement + piece)
                        continue
                    if statement.strip():
                        self._read_statement(" ".join(statement.split()), line)
                    statement = ""
                elif piece == "{":
                    outer = self._blocks[-1].scope
                    inner = replace(outer, registers=dict(outer.registers))
                    self._blocks.append(_Block(inner))
                else:
                    self._end_block()
                    if not self._blocks:
                        return
            statement += " "
            line += 1

    def _without_labels(self, statement: str) -> str:
        while label := re.match(r"\s*([\w$]+):(?!:)", statement):
            self._blocks[-1].labels[label[1]] = len(self._code)
            self._last_label = label[1]
            statement = statement[label.end() :]
        return statement

    def _end_block(self) -> None:
        """Labels that were not found between these braces stand around them."""
        block = self._blocks.pop()
        for use in block.uses:
            if use.label in block.labels:
                self._places[use] = block.labels[use.label]
            elif self._blocks:
                self._blocks[-1].uses.append(use)
            else:
                raise Unknown(f"line {use.line} of the PTX: label {use.label}")

    def _read_statement(self, text: str, line: int) -> None:
        try:
            if text.startswith(".reg "):
                _, kind, names = text.split(maxsplit=2)
                for name in split(names):
                    self._declare(name, SIZES[kind[1:]])
            elif text.startswith(".branchtargets "):
                table = split(text.removeprefix(".branchtargets"))
                self._blocks[-1].tables[self._last_label] = table
            elif not text.startswith(".pragma "):
                self._read_instruction(text, line)
        except (Unknown, LookupError, ValueError) as error:  # whatever else stands there
            raise Unknown(f"line {line} of the PTX: {text}: {error}") from error

    def _declare(self, name: str, size: int) -> None:
        several = re.fullmatch(r"(%?\w+)<(\d+)>", name)
        names = [f"{several[1]}{n}" for n in range(int(several[2]))] if several else [name]
        for one in names:
            place = -(-self._next_register // size) * size
            self._blocks[-1].scope.registers[one] = (place, size)
            self._next_register = place + size

    def _read_instruction(self, text: str, line: int) -> None:
        scope = self._blocks[-1].scope
        predicate, negated = -1, False
        if guarded := re.match(r"@(!?)(%?\w+)\s+", text):
            predicate, negated = scope.registers[guarded[2]][0], bool(guarded[1])
            text = text[guarded.end() :]
        mnemonic, _, rest = text.partition(" ")
        given = split(rest)
        # The target of a branch is no operand of it, but entries of a table are.
        decoded = decode(mnemonic, given, scope)
        inputs = list(decoded.inputs)
        if mnemonic.startswith("bra"):
            self._name(given[0], False, len(self._code), line)
        elif mnemonic.startswith("brx"):
            first = len(self._operands) + len(decoded.outputs) + len(inputs)
            table = self._table(given[1])
            for n, label in enumerate(table):
                self._name(label, True, first + n, line)
            inputs += [Operand(NUMBER, 8, 0)] * len(table)
        detail = (*map(int, decoded.detail), 0, 0, 0, 0)[:4]
        self._code.append(
            (
                decoded.operation, decoded.type, decoded.source_type, detail, predicate, negated,
                len(decoded.outputs), len(inputs), len(self._operands), -1, line,
            )
        )  # fmt: skip
        self._operands += decoded.outputs
        self._operands += inputs

    def _name(self, label: str, in_table: bool, index: int, line: int) -> None:
        self._blocks[-1].uses.append(_Use(label, in_table, index, line))

    def _table(self, name: str) -> list[str]:
        for block in reversed(self._blocks):
            if name in block.tables:
                return block.tables[name]
        raise Unknown(f"table {name}")
