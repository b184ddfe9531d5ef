"""Faults of the simulator of compiled kernels: what it would let pass, or get wrong."""

from __future__ import annotations

from .fault import Fault

__all__ = ["FAULTS"]

_FOLDER = "tests/simulator/"
_CORE = _FOLDER + "core/"
_ARITHMETIC = ("tests/test_simulator_arithmetic.py",)
_MEMORY = ("tests/test_simulator_memory.py",)
_COPIES = ("tests/test_simulator_copies.py",)
_PRODUCTS = ("tests/test_simulator_products.py",)
_PROGRAMS = ("tests/test_simulator_programs.py",)


def _fault(name: str, file: str, old: str, new: str, tests: tuple[str, ...]) -> Fault:
    return Fault(f"simulator-{name}", file, old, new, tests)


_OF_MEMORY = (
    _fault(
        "reads-without-a-barrier",
        _CORE + "memory.hpp",
        "return t.written == m.epoch && t.writer && t.writer != m.warp + 1;",
        "return false;",
        _PRODUCTS,
    ),
    _fault(
        "writes-after-reads",
        _CORE + "memory.hpp",
        "if (t.read == m.epoch && t.readers & ~m.bit()) {",
        "if (t.read == m.epoch && !t.readers) {",
        _MEMORY,
    ),
    _fault(
        "atomics-hide-stores",
        _CORE + "memory.hpp",
        "if (of_another(m, t) && t.writer != ATOMIC) {",
        "if (of_another(m, t) && t.writer > 99) {",
        _MEMORY,
    ),
    _fault(
        "atomics-leave-no-writer",
        _CORE + "memory.hpp",
        "t.written = m.epoch, t.writer = ATOMIC;",
        "t.written = m.epoch, t.writer = NOBODY;",
        _MEMORY,
    ),
    _fault(
        "watches-the-next-place-also",
        _CORE + "memory.hpp",
        "last((address + bytes) >> m.grain) {}",
        "last(((address + bytes) >> m.grain) + 1) {}",
        _MEMORY,
    ),
    _fault(
        "touches-what-follows-a-tensor",
        _CORE + "memory.hpp",
        "return address <= end && bytes <= end - address;",
        "return address < end + bytes;",
        _MEMORY,
    ),
    _fault(
        "threads-do-not-meet",
        _CORE + "simulator.cpp",
        "if (!together && meets(i.operation)) {",
        "if (!together && i.operation == BARRIER) {",
        _MEMORY,
    ),
    _fault(
        "shuffles-some-threads",
        _CORE + "simulator.cpp",
        "if (mask != ~0u && i.operation != MEET",
        "if (mask == 0 && i.operation != MEET",
        _MEMORY,
    ),
    _fault(
        "masks-do-not-matter",
        _CORE + "collectives.hpp",
        "if (uint32_t(mask[lane]) != ~0u)",
        "if (uint32_t(mask[lane]) == 0)",
        _MEMORY,
    ),
    _fault(
        "passes-by-a-barrier",
        _CORE + "simulator.cpp",
        "if (chosen != mask) {\n            m.fail",
        "if (mask == 0) {\n            m.fail",
        _MEMORY,
    ),
)

_OF_COPIES = (
    _fault(
        "copies-land-at-once",
        _CORE + "copies.hpp",
        "std::memset(&m.shared[one.to], 0xff, bytes);",
        "land(m, one);",
        _COPIES,
    ),
    _fault(
        "waits-for-one-group-less",
        _CORE + "copies.hpp",
        "while (groups.size() > left) {",
        "while (groups.size() > left + 1) {",
        _COPIES,
    ),
    _fault(
        "one-warp-waits-for-all",
        _CORE + "memory.hpp",
        "(landing.epoch == m.epoch && !(landing.warps & m.bit()))",
        "(landing.epoch == m.epoch && !landing.warps)",
        _COPIES,
    ),
    _fault(
        "tiles-are-there-at-once",
        _CORE + "memory.hpp",
        "return !landing.epoch || (",
        "return landing.epoch && (",
        _COPIES,
    ),
    _fault(
        "barriers-lie-nowhere",
        _CORE + "barriers.hpp",
        "m.track[place].barrier = there;",
        "m.track[place].barrier = false;",
        _COPIES,
    ),
    _fault(
        "barriers-are-used-before-they-are-set-up",
        _CORE + "barriers.hpp",
        "return note_read(m, uint32_t(address), kBarrierBytes) ? &found->second : nullptr;",
        "return &found->second;",
        _COPIES,
    ),
    _fault(
        "counts-below-zero",
        _CORE + "barriers.hpp",
        "if (barrier->pending == 0) {",
        "if (barrier->pending > 99) {",
        _COPIES,
    ),
)

_OF_PRODUCTS = (
    _fault(
        "writes-under-a-product",
        _CORE + "memory.hpp",
        "if (t.in_flight) return",
        "if (t.in_flight > 999) return",
        _PRODUCTS,
    ),
    _fault(
        "needs-no-proxy-fence",
        _CORE + "memory.hpp",
        "if (asynchronous && t.unfenced && t.written >= m.self().fenced) {",
        "if (asynchronous && t.unfenced && t.written < m.self().fenced) {",
        _PRODUCTS,
    ),
    _fault(
        "sums-are-there-at-once",
        _CORE + "products.hpp",
        "++self.summed[place];",
        "",
        _PRODUCTS,
    ),
    _fault(
        "left-operands-may-change",
        _CORE + "products.hpp",
        "++self.read_as_left[place];",
        "",
        _PRODUCTS,
    ),
    _fault(
        "needs-no-fence-for-products",
        _CORE + "products.hpp",
        "if (self.touched[place] == self.product_fences) {",
        "if (self.touched[place] > self.product_fences) {",
        _PRODUCTS,
    ),
    _fault(
        "descriptors-have-no-other-bits",
        _CORE + "products.hpp",
        "return bits & others ? m.fail",
        "return bits & others & 1 ? m.fail",
        _PRODUCTS,
    ),
    _fault(
        "tiles-have-no-swizzle",
        _CORE + "barriers.hpp",
        "constexpr uint32_t bits[] = {0, 7, 3, 1};",
        "constexpr uint32_t bits[] = {0, 3, 3, 1};",
        _PRODUCTS,
    ),
)

_OF_PROGRAMS = (
    _fault(
        "rounds-halves-up",
        _CORE + "numbers.hpp",
        "(size + 0xfff + (size >> 13 & 1) - 0x38000000)",
        "(size + 0x1000 - 0x38000000)",
        _ARITHMETIC,
    ),
    _fault(
        "loses-nan",
        _CORE + "arithmetic.hpp",
        "return keeps_nan || (std::isnan(a) && std::isnan(b))",
        "return (std::isnan(a) && std::isnan(b))",
        _ARITHMETIC,
    ),
    _fault(
        "keeps-subnormal-numbers",
        _CORE + "numbers.hpp",
        "return bits & 0x7f800000 ? value : as_float(bits & 0x80000000);",
        "return value;",
        _ARITHMETIC,
    ),
    _fault(
        "loads-without-a-sign",
        _CORE + "access.hpp",
        "if (is_signed(i.type)) for",
        "if (false) for",
        _ARITHMETIC,
    ),
    _fault(
        "passes-over-words",
        _FOLDER + "mnemonics.py",
        'if form.pattern.fullmatch("." + mnemonic)',
        'if form.pattern.match("." + mnemonic)',
        _PROGRAMS,
    ),
    _fault(
        "passes-over-operands",
        _FOLDER + "mnemonics.py",
        "if len(given) not in form.given:",
        "if len(given) < min(form.given):",
        _PROGRAMS,
    ),
    _fault(
        "labels-hold-everywhere",
        _FOLDER + "program.py",
        "self._blocks[-1].labels[label[1]] = len(self._code)",
        "self._blocks[0].labels[label[1]] = len(self._code)",
        _PROGRAMS,
    ),
    _fault(
        "leaves-its-table",
        _CORE + "simulator.cpp",
        "if (index[lane] >= uint64_t(i.inputs - 1))",
        "if (index[lane] > uint64_t(i.inputs - 1))",
        _PROGRAMS,
    ),
)

FAULTS: tuple[Fault, ...] = (*_OF_MEMORY, *_OF_COPIES, *_OF_PRODUCTS, *_OF_PROGRAMS)
