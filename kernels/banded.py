"""A first layer with many outputs: one product, whose operands come by TMA (Hopper and later).

    y = act( A R + b ),   A = [h | S_1 | S_2 ...],   R = [W^T ; Z_1 ; Z_2 ...]

left.py writes A and R. For a tile of y the product runs over the gathered columns and, for each
projected map, over the cells of the rows that the tile's points touch.

A program has several tiles, and one loop over the steps of them all: while a tile ends, the loads
of the next one are under way, and products stay asynchronous.

Tiles in which a NaN came out are computed once more after the loop, without products by a weight of
0 (careful.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ..call.linear import Linear
from ..call.sampling import Sampling
from .bands import ROWS, STEP
from .blocks import dot, finish
from .careful import sum_term_by_term
from .direct import Launch
from .entries import block_of_step, line_of, shift_of
from .launch import accounted, capability, coded, options, precision
from .left import Operands, operands
from .order import Order
from .select import Key, Tile, tile_for

__all__ = ["CHOICES", "banded"]

# Points times outputs, columns of A a step. Triton 3.4 keeps a copy of the sums in shared memory,
# beside which four stages of the widest tile take 264,224 of 232,448 bytes.
STAGES = 3 if triton.__version__.startswith("3.4.") else 4
CHOICES = (
    Tile(ROWS, 256, STEP, num_warps=8, num_stages=STAGES),
    Tile(ROWS, 128, STEP, num_warps=4, num_stages=4),
    Tile(ROWS, 128, STEP, num_warps=8, num_stages=4),
)
# Rows of tiles that are neighbours, so that a wave of programs reads few rows and columns.
GROUP = 8


class Product(NamedTuple):
    """y = A R + b as the kernel sees it.

    Args:
        out: y (P, D). place: (P,) where the rows of A belong.
        left: A, in blocks. right: R (rows, D). table: of its tiles. bias: b. rows: `coded`.
        cells: of two rows of each map, which the kernel does not look at.
    """

    out: Tensor
    place: Tensor
    left: Tensor
    right: Tensor
    table: Tensor
    bias: Tensor
    total: int
    rows: int
    cells: float


@accounted
def _account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """The gathered columns, and two rows of each map; operands and output once."""
    total, outputs, left = a["product"].total, a["D"], a["product"].left
    columns = a["WIDTH"] + a["product"].cells
    moved = columns * (total + outputs) + total * outputs
    return 2.0 * total * columns * outputs, float(moved * left.itemsize), left.dtype


@triton.jit
def _tile_at(t, tiles, columns, GROUP: tl.constexpr):
    """Tile t as (row, column) of tiles: column by column within GROUP rows."""
    first = t // (GROUP * columns) * GROUP
    rows = tl.minimum(tiles - first, GROUP)
    rest = t % (GROUP * columns)
    return first + rest % rows, rest // rows


@triton.jit
def _write_rows(product, y, tile, n, D, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr):
    """A tile of y, each row to its place."""
    d = n + tl.arange(0, BLOCK_D)
    m = tile * BLOCK_P + tl.arange(0, BLOCK_P)
    to = tl.load(product.place + tl.minimum(m, product.total - 1)).to(tl.int64)
    address = product.out + to[:, None] * D + d[None, :]
    mask = (m < product.total)[:, None] & (d < D)[None, :]
    tl.store(address, y.to(product.out.dtype.element_ty), mask=mask)


@triton.jit
def _write_term_by_term(
    product,
    tile,
    n,
    D,
    WIDTH: tl.constexpr,
    BANDS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A tile of y in which no cell is multiplied by a weight of 0, some outputs at a time."""
    SOME: tl.constexpr = 32
    begin, ends, shifts = line_of(product.table, tile, BANDS)
    for first in range(n, tl.minimum(n + BLOCK_D, D), SOME):
        d = first + tl.arange(0, SOME)
        acc = sum_term_by_term(product, tile, begin, ends, shifts, d, D, WIDTH, BLOCK_P, BLOCK_K)
        y = finish(acc, product.bias, d, d < D, HAS_BIAS, ACTIVATION)
        _write_rows(product, y, tile, first, D, BLOCK_P, SOME)


@triton.jit(launch_metadata=_account)
def _banded_kernel(
    product,
    left_tiles,  # descriptors
    right_tiles,
    D,
    WIDTH: tl.constexpr,
    BANDS: tl.constexpr,  # projected maps
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """y = act(A R + b), the steps of all of a program's tiles in one loop."""
    SPAN: tl.constexpr = 64
    tiles = tl.cdiv(product.total, BLOCK_P)
    columns = tl.cdiv(D, BLOCK_D)
    count = tiles * columns
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    steps = 0
    stride = SPAN * programs
    for first in range(program, count, stride):
        t = first + tl.arange(0, SPAN) * programs
        tile, _column = _tile_at(tl.minimum(t, count - 1), tiles, columns, GROUP)
        end = tl.load(product.table + tile.to(tl.int64) * (2 * BANDS + 1) + 2 * BANDS - 1)
        steps += tl.sum(tl.where(t < count, end // BLOCK_K, 0), 0)
    t = program - programs
    own = -1  # which of the program's tiles
    k = -BLOCK_K
    end = 0
    tile = program * 0
    n = 0
    begin, ends, shifts = line_of(product.table, tile, BANDS)
    acc = tl.zeros((BLOCK_P, BLOCK_D), tl.float32)
    bad = tl.zeros((BLOCK_P,), tl.int32)  # for each row, a bit for each tile with NaN, modulo 32
    for _ in tl.range(0, steps):
        # Counted before the product: after it, the compiler does not start loads ahead.
        k += BLOCK_K
        if k == end:
            t += programs
            own += 1
            tile, column = _tile_at(t, tiles, columns, GROUP)
            n = column * BLOCK_D
            begin, ends, shifts = line_of(product.table, tile, BANDS)
            end = ends[BANDS - 1]
            k = 0
        block = block_of_step(k, tile, begin, WIDTH, BLOCK_K)
        a = left_tiles.load([block * BLOCK_P, 0])
        b = right_tiles.load([k + shift_of(k, ends, shifts, WIDTH), n])
        acc = dot(a, b, acc, PRECISION)
        if k == end - BLOCK_K:
            sums = tl.sum(acc, 1)
            bad |= tl.where(sums != sums, 1 << (own & 31), 0)
            d = n + tl.arange(0, BLOCK_D)
            y = finish(acc, product.bias, d, d < D, HAS_BIAS, ACTIVATION)
            _write_rows(product, y, tile, n, D, BLOCK_P, BLOCK_D)
            acc = tl.zeros((BLOCK_P, BLOCK_D), tl.float32)
    marks = tl.reduce_or(bad, 0)
    if marks != 0:
        tl.debug_barrier()  # other threads write these rows again
        for own in range(tl.cdiv(count - program, programs)):
            if (marks >> (own & 31)) & 1 != 0:
                t = program + own * programs
                tile, column = _tile_at(t, tiles, columns, GROUP)
                n = column * BLOCK_D
                _write_term_by_term(
                    product, tile, n, D, WIDTH, BANDS, HAS_BIAS, ACTIVATION,
                    BLOCK_P, BLOCK_D, BLOCK_K,
                )  # fmt: skip


def banded(
    s: Sampling,
    head: Linear,
    projected: Sequence[int],
    order: Order,
    tile: Tile | None = None,
) -> Tensor:
    """act(h W^T + b), (P, D) in the weight's dtype, rows as in `s`, for calls that `fits` takes.

    Args:
        s: all layers. projected: those whose map is multiplied first; one at least.
        order: of the points, in which tiles meet few cells.
    """
    a = operands(order.of(s), head, projected, order.ruler)
    key = ("banded", tuple(projected), head.layout, tile)
    run = s.once(key, lambda: _banded_like(s, head, projected, order, tile, a))
    return run(a, head.bias, order.place)


def _banded_like(
    s: Sampling,
    head: Linear,
    projected: Sequence[int],
    order: Order,
    tile: Tile | None,
    a: Operands,
) -> Callable[[Operands, Tensor | None, Tensor], Tensor]:
    """The product of operands that are laid out as `a`."""
    if tile is None:
        key = Key(head.weight.dtype, s.total, head.out_features, min(s.channels), capability())
        key = key._replace(activation=head.activation)
        trial = partial(banded, s, head, projected, order)
        tile = tile_for("banded", CHOICES, key, s, trial)
    total, outputs, chosen = s.total, head.out_features, tile
    tiles = -(-total // tile.rows) * -(-outputs // tile.columns)
    rows = coded(a.right.shape[0])
    cells = 2.0 * sum([s.sizes[i][1] for i in projected])
    launch = Launch(
        _banded_kernel,
        (min(tiles, _programs(a.left.device)),),
        "product left_tiles right_tiles",
        D=outputs,
        WIDTH=a.width,
        BANDS=len(projected),
        HAS_BIAS=head.bias is not None,
        ACTIVATION=head.activation,
        PRECISION=precision(a.left.dtype),
        GROUP=GROUP,
        BLOCK_P=tile.rows,
        BLOCK_D=tile.columns,
        BLOCK_K=tile.terms,
        **options(tile),
    )

    def run(a: Operands, bias: Tensor | None, place: Tensor) -> Tensor:
        left, right, table, _ = a
        out = left.new_empty((total, outputs))
        bias = left if bias is None else bias.contiguous()
        launch(
            Product(out, place, left, right, table, bias, total, rows, cells),
            _tiles(left, chosen.rows, chosen.terms),
            _tiles(right, chosen.terms, chosen.columns),
        )
        return out

    return run


def _tiles(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    return TensorDescriptor(matrix, [*matrix.shape], [*matrix.stride()], [rows, columns])


@lru_cache(maxsize=64)
def _programs(device: torch.device) -> int:
    """One to a multiprocessor, whose shared memory it fills."""
    if device.type != "cuda":
        return 3
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
