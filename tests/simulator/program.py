"""The text of a kernel in PTX, as a program of the machine."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from .mnemonics import NUMBER, SIZES, Operand, Scope, Unknown, decode, split

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
        self._scopes = [Scope({}, self._addresses | dict.fromkeys(shared, 0))]
        self._next_register = 0
        self._labels: dict[str, int] = {}
        self._tables: dict[str, list[str]] = {}
        self._code: list[tuple[object, ...]] = []
        self._operands: list[Operand] = []
        self._targets: list[tuple[int, str]] = []  # of branches, by instruction
        self._entries: list[tuple[int, str]] = []  # of tables, by operand
        self._read_body(ptx, entry.end())
        self.code = np.array(self._code, INSTRUCTION)
        for place, label in self._targets:
            self.code["target"][place] = self._labels[label]
        self.operands = np.array(self._operands or [(0, 0, 0)], OPERAND)
        for place, label in self._entries:
            self.operands["value"][place] = self._labels[label]
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
                    outer = self._scopes[-1]
                    self._scopes.append(Scope(dict(outer.registers), outer.addresses))
                else:
                    self._scopes.pop()
                    if not self._scopes:
                        return
            statement += " "
            line += 1

    def _without_labels(self, statement: str) -> str:
        while label := re.match(r"\s*([\w$]+):(?!:)", statement):
            # A name inside braces may come again: branches to it go back.
            self._labels[label[1]] = len(self._code)
            self._last_label = label[1]
            statement = statement[label.end() :]
        return statement

    def _read_statement(self, text: str, line: int) -> None:
        if text.startswith(".reg"):
            _, kind, names = text.split(maxsplit=2)
            for name in split(names):
                self._declare(name, SIZES[kind[1:]])
        elif text.startswith(".branchtargets"):
            self._tables[self._last_label] = split(text.removeprefix(".branchtargets"))
        elif not text.startswith(".pragma"):
            self._read_instruction(text, line)

    def _declare(self, name: str, size: int) -> None:
        several = re.fullmatch(r"(%?\w+)<(\d+)>", name)
        names = [f"{several[1]}{n}" for n in range(int(several[2]))] if several else [name]
        for one in names:
            place = -(-self._next_register // size) * size
            self._scopes[-1].registers[one] = (place, size)
            self._next_register = place + size

    def _read_instruction(self, text: str, line: int) -> None:
        scope = self._scopes[-1]
        predicate, negated = -1, False
        if guarded := re.match(r"@(!?)(%?\w+)\s+", text):
            predicate, negated = scope.registers[guarded[2]][0], bool(guarded[1])
            text = text[guarded.end() :]
        mnemonic, _, rest = text.partition(" ")
        given = split(rest)
        try:
            decoded = decode(mnemonic, given, scope)
        except Unknown as error:
            raise Unknown(f"line {line} of the PTX: {text}: {error}") from None
        inputs = list(decoded.inputs)
        if mnemonic.startswith("bra"):
            label = given[0]
            if not label.startswith("$"):  # a loop inside braces: to where it began
                label = f"{label}@{len(self._code)}"
                self._labels[label] = self._labels[given[0]]
            self._targets.append((len(self._code), label))
        elif mnemonic.startswith("brx"):
            table = self._tables[given[1]]
            first = len(self._operands) + len(decoded.outputs) + len(inputs)
            self._entries += [(first + n, label) for n, label in enumerate(table)]
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
