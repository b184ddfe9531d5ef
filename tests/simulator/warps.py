"""Instructions of a warp or a block together: shuffles, products, barriers; and where to go on."""

from __future__ import annotations

from .grammar import Vocabulary, Words
from .operands import OPERATIONS, TYPES, Decoded, Unknown

__all__ = ["KNOWN"]

KNOWN = Vocabulary()


# The last operand says which threads take part: the machine wants all of them.
@KNOWN.of("shfl.sync.up|down|bfly|idx.b32", given=5)
def _shuffle(base: str, a: Words) -> Decoded:
    detail = [a.which("up", "down", "bfly", "idx")]
    return Decoded(OPERATIONS["SHUFFLE"], a.type, 0, detail, a.one(0), a.rest(1))


@KNOWN.of("vote.sync.ballot.b32", "redux.sync.add|max|min.u32|s32", given=3)
@KNOWN.of("redux.sync.and|or|xor.b32", given=3)
def _together(base: str, a: Words) -> Decoded:
    name = {"vote": "BALLOT", "redux": "REDUCE"}[base]
    detail = [a.which("add", "max", "min", "and", "or", "xor")]
    return Decoded(OPERATIONS[name], a.type, 0, detail, a.one(0), a.rest(1))


@KNOWN.of("elect.sync", given=2)
def _elect(base: str, a: Words) -> Decoded:
    outputs = a.both()
    if len(outputs) != 2:
        raise Unknown("without a predicate")
    return Decoded(OPERATIONS["ELECT"], outputs=outputs, inputs=a.one(1))


@KNOWN.of(
    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
    given=4,
)
def _product(base: str, a: Words) -> Decoded:
    outputs, left, right, sums = (a.registers(n, count) for n, count in enumerate((4, 4, 2, 4)))
    terms = (16, 8)[a.which("m16n8k16", "m16n8k8")]
    inputs = left + right + sums
    return Decoded(OPERATIONS["MMA"], TYPES[a.types[1]], 0, [terms], outputs, inputs)


_COLUMNS = "|".join(str(n) for n in range(8, 257, 8))


@KNOWN.of(
    f"wgmma.mma_async.sync.aligned.m64n(?:{_COLUMNS})k16.f32.f16.f16",
    f"wgmma.mma_async.sync.aligned.m64n(?:{_COLUMNS})k16.f32.bf16.bf16",
    f"wgmma.mma_async.sync.aligned.m64n(?:{_COLUMNS})k8.f32.tf32.tf32",
    given=(6, 7, 8),
)
def _asynchronous_product(base: str, a: Words) -> Decoded:
    """Sums, left, right, whether sums are added to, signs, and which matrices lie by columns."""
    columns = int(a.words[4].partition("n")[2].partition("k")[0])
    outputs = a.registers(0, columns // 2)
    in_registers = a.given[1].startswith("{")
    left = a.registers(1, 4) if in_registers else a.one(1)
    signs = [a.scope.whole(text) for text in a.given[4:6]]
    by_columns = [a.scope.whole(text) for text in a.given[6:]]
    if signs != [1, 1]:
        raise Unknown("a product that is subtracted")
    # Only numbers of two bytes may lie by columns, and only in memory.
    if len(by_columns) != (0 if "tf32" in a.types else 1 if in_registers else 2):
        raise Unknown("this many matrices that may lie by columns")
    detail = [columns, in_registers, *[0] * (2 - len(by_columns)), *by_columns]
    inputs = left + a.one(2) + a.one(3)
    return Decoded(OPERATIONS["WGMMA"], TYPES[a.types[1]], 0, detail, outputs, inputs)


@KNOWN.of("wgmma.fence.sync.aligned", "wgmma.commit_group.sync.aligned", given=0)
@KNOWN.of("wgmma.wait_group.sync.aligned", given=1)
def _order_of_products(base: str, a: Words) -> Decoded:
    names = ("FENCE_PRODUCTS", "COMMIT_PRODUCTS", "WAIT_PRODUCTS")
    name = names[a.which("fence", "commit_group", "wait_group")]
    return Decoded(OPERATIONS[name], detail=[a.scope.whole(text) for text in a.given])


# Of shared memory, and of all memory. Others order what is not looked at here: threads of other
# blocks, or other ways to the same memory.
@KNOWN.of("fence.proxy.async", "fence.proxy.async.shared::cta", given=0)
def _fence(base: str, a: Words) -> Decoded:
    return Decoded(OPERATIONS["FENCE_PROXY"])


@KNOWN.of("bar.sync", "bar.warp.sync", given=1)
def _meet(base: str, a: Words) -> Decoded:
    if "warp" in a.words:
        return Decoded(OPERATIONS["MEET"], inputs=a.one(0))
    if a.given != ["0"]:
        raise Unknown("a barrier of some of the warps")
    return Decoded(OPERATIONS["BARRIER"])


@KNOWN.of("bra.uni?", given=1)
def _branch(base: str, a: Words) -> Decoded:
    return Decoded(OPERATIONS["BRANCH"], detail=["uni" in a.words])


@KNOWN.of("brx.idx", given=2)
def _branch_by_table(base: str, a: Words) -> Decoded:
    return Decoded(OPERATIONS["BRANCH_TABLE"], inputs=a.one(0))


@KNOWN.of("ret", given=0)
def _return(base: str, a: Words) -> Decoded:
    return Decoded(OPERATIONS["RETURN"])
