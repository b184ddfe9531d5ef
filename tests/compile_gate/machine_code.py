"""What the compiled code says: registers, spills, memory accesses, matrix instructions.

For NVIDIA the binary itself is read, with the tools that lie beside ptxas in Triton's package:
neither PTX nor Triton's own intermediate code knows what ptxas spills. For AMD the assembly is.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache

from triton import knobs
from triton.compiler import CompiledKernel

__all__ = ["Instructions", "Resources", "instructions", "length", "loads_in_flight", "resources"]


#: A line of a listing: the opcode behind a predicate, and its operands.
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)(.*)", re.MULTILINE)


@dataclass(frozen=True)
class Resources:
    """What a kernel takes: registers a thread, bytes spilled a thread, shared memory a block."""

    registers: int
    spills: int
    shared: int


@dataclass
class Instructions:
    """Global memory accesses by their width in bytes a thread, and matrix products by name.

    ``reductions`` are atomic additions that return nothing; ``compare_and_swap`` counts the loops
    that stand in for them where the hardware has none for a type.
    """

    loads: Counter[int] = field(default_factory=Counter)
    stores: Counter[int] = field(default_factory=Counter)
    reductions: Counter[int] = field(default_factory=Counter)
    compare_and_swap: int = 0
    products: Counter[str] = field(default_factory=Counter)

    @property
    def wgmma(self) -> int:
        """Products of a whole warp group, Hopper's asynchronous kind."""
        return self.products["HGMMA"]


def resources(compiled: CompiledKernel) -> Resources:
    """Registers, spills and shared memory of a compiled kernel."""
    shared = compiled.metadata.shared
    if "cubin" not in compiled.asm:
        assembly = compiled.asm["amdgcn"]
        return Resources(
            registers=_number(r"\.vgpr_count:\s*(\d+)", assembly),
            spills=4 * _number(r"\.vgpr_spill_count:\s*(\d+)", assembly),
            shared=shared,
        )
    usage = _tool(knobs.nvidia.cuobjdump.path, "--dump-resource-usage", compiled.asm["cubin"])
    # A stack frame need not be a spill (ptxas rounds, and keeps other things there): the bytes
    # that STL instructions store are what `ptxas -v` reports as "spill stores".
    spills = sum(_width(opcode) for opcode in _opcodes(compiled.asm["cubin"]) if opcode[0] == "STL")
    return Resources(registers=_number(r"\bREG:(\d+)", usage), spills=spills, shared=shared)


def instructions(compiled: CompiledKernel) -> Instructions:
    """Count the instructions that matter in a compiled kernel. The counts are static."""
    if "cubin" not in compiled.asm:
        return _amd_instructions(compiled.asm["amdgcn"])
    counts = Instructions()
    for opcode in _opcodes(compiled.asm["cubin"]):
        match opcode[0]:
            case "LDG" | "LDGSTS":  # the latter is `cp.async`: global to shared memory
                counts.loads[_width(opcode)] += 1
            case "STG":
                counts.stores[_width(opcode)] += 1
            case "RED" | "REDG":
                counts.reductions[_width(opcode)] += 1
            case "ATOM" | "ATOMG" if "CAS" in opcode:
                counts.compare_and_swap += 1
            case "HMMA" | "HGMMA" | "UTCHMMA":  # sm_80, sm_90, sm_100
                counts.products[opcode[0]] += 1
    return counts


def length(compiled: CompiledKernel) -> int:
    """How many instructions the code has."""
    return len(_opcodes(compiled.asm["cubin"]))


def loads_in_flight(compiled: CompiledKernel) -> int:
    """The most 16-byte loads that a thread has issued before it waits for one of them.

    It waits where it reads a register that a load writes. Loads and what reads them are looked for
    between two labels or branches.
    """
    most, pending = 0, set[int]()
    for line in _listing(compiled.asm["cubin"]).splitlines():
        instruction = _INSTRUCTION.match(line)
        if instruction is None:
            pending = set() if line.startswith(".L_") else pending
            continue
        opcode = instruction[1].split(".")
        registers = [int(number) for number in re.findall(r"\bR(\d+)", instruction[2])]
        is_load = opcode[0] == "LDG" and _width(opcode) == 16
        if pending.intersection(registers[1:] if is_load else registers):
            pending = set()
        if is_load:
            pending.update(range(registers[0], registers[0] + 4))
            most = max(most, len(pending) // 4)
    return most


def _amd_instructions(assembly: str) -> Instructions:
    """The same counts for AMD's assembly, where the width stands in the name."""
    widths = {"dwordx4": 16, "dwordx3": 12, "dwordx2": 8, "dword": 4}
    counts = Instructions()
    for name in re.findall(r"^\s+([a-z]\w+)", assembly, re.MULTILINE):
        access = re.match(r"(?:global|buffer|flat)_(load|store|atomic)_(\w+)", name)
        if name.startswith("v_mfma_"):
            counts.products["MFMA"] += 1
        elif access is None:
            continue
        elif access[1] == "atomic":
            counts.compare_and_swap += "cmpswap" in name
            counts.reductions[4] += "add" in name
        else:
            narrow = 1 if "byte" in name else 2
            width = next((widths[p] for p in access[2].split("_") if p in widths), narrow)
            (counts.loads if access[1] == "load" else counts.stores)[width] += 1
    return counts


@lru_cache(maxsize=8)  # disassembling takes half a second, and everyone asks about one binary
def _opcodes(cubin: bytes) -> list[list[str]]:
    """The opcodes of a binary in order, split at their dots: ``["LDG", "E", "128"]``."""
    return [found[1].split(".") for found in _INSTRUCTION.finditer(_listing(cubin))]


def _listing(cubin: bytes) -> str:
    return _tool(knobs.nvidia.nvdisasm.path, "-c", cubin)


def _width(opcode: list[str]) -> int:
    """Bytes a thread moves: ``LDG.E.128`` 16, ``LDG.E`` 4, ``REDG.E.ADD.F32x4`` 16."""
    for part in opcode:
        if vector := re.fullmatch(r"(?:BF|F)(16|32)x(\d+)", part):
            return int(vector[1]) // 8 * int(vector[2])
        if plain := re.fullmatch(r"[US]?(8|16|64|128|256)", part):
            return int(plain[1]) // 8
    return 4


def _tool(path: str, option: str, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        # Blackwell's binaries make nvdisasm warn on standard error, harmlessly.
        return subprocess.run(
            [path, option, file.name], check=True, capture_output=True, text=True
        ).stdout


def _number(pattern: str, text: str) -> int:
    number = re.search(pattern, text)
    if number is None:
        raise ValueError(f"no {pattern!r} in the compiler's report:\n{text[:2000]}")
    return int(number[1])
