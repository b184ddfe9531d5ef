"""Faults of the simulator of compiled kernels: what it would let pass, or get wrong."""

from __future__ import annotations

from .fault import Fault

__all__ = ["FAULTS"]

_CORE = "tests/simulator/core/"
_TESTS = ("tests/test_simulator.py",)

FAULTS: tuple[Fault, ...] = (
    Fault(
        "simulator-reads-without-a-barrier",
        _CORE + "memory.hpp",
        "if (t.written == m.epoch && t.writer && t.writer != m.warp + 1) {",
        "if (t.written == m.epoch && t.writer > 32) {",
        ("tests/test_simulator.py::test_what_a_product_reads",),
    ),
    Fault(
        "simulator-writes-after-reads",
        _CORE + "memory.hpp",
        "if (t.read == m.epoch && t.readers & ~self) {",
        "if (t.read == m.epoch && !t.readers) {",
        ("tests/test_simulator.py::test_a_place_that_others_read_is_not_written",),
    ),
    Fault(
        "simulator-writes-under-a-product",
        _CORE + "memory.hpp",
        "if (t.in_flight) return",
        "if (t.in_flight > 999) return",
        _TESTS,
    ),
    Fault(
        "simulator-needs-no-proxy-fence",
        _CORE + "memory.hpp",
        "if (asynchronous && t.unfenced && t.written >= m.self().fenced) {",
        "if (asynchronous && t.unfenced && t.written < m.self().fenced) {",
        _TESTS,
    ),
    Fault(
        "simulator-touches-what-follows-a-tensor",
        _CORE + "memory.hpp",
        "address + bytes <= std::prev(after)->end",
        "address < std::prev(after)->end + bytes",
        _TESTS,
    ),
    Fault(
        "simulator-copies-land-at-once",
        _CORE + "asynchronous.hpp",
        "std::memset(&m.shared[one.to], 0xff, bytes);",
        "land(m, one);",
        _TESTS,
    ),
    Fault(
        "simulator-waits-for-one-group-less",
        _CORE + "asynchronous.hpp",
        "while (groups.size() > left) {\n    for (const Copy& copy",
        "while (groups.size() > left + 1) {\n    for (const Copy& copy",
        _TESTS,
    ),
    Fault(
        "simulator-threads-do-not-meet",
        _CORE + "simulator.cpp",
        "if (!together && meets(i.operation)) {",
        "if (!together && i.operation == BARRIER) {",
        _TESTS,
    ),
    Fault(
        "simulator-rounds-halves-up",
        _CORE + "arithmetic.hpp",
        "(size + 0xfff + (size >> 13 & 1) - 0x38000000)",
        "(size + 0x1000 - 0x38000000)",
        _TESTS,
    ),
    Fault(
        "simulator-loses-nan",
        _CORE + "arithmetic.hpp",
        "return keeps_nan || (std::isnan(a) && std::isnan(b))",
        "return (std::isnan(a) && std::isnan(b))",
        _TESTS,
    ),
)
