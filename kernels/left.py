"""The two operands of the banded product (banded.py): a first layer is A R, but for activation.

    A (P, KA) = [h | S_1 | S_2 ...],   R = [W^T ; Z_1 ; Z_2 ...],   Z_i = X_i W_i^T

h are the gathered columns, filled up with zeros to whole steps; rows of R are those of W^T, and the
cells of each projected map, counted through all images. Of S_i a tile of points has those columns
that it needs, a band: entries.py says where each column stands. Points come in order of (image, y).

A point that is not finite, or whose image does not exist, has a row of NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..call.linear import Linear
from ..call.sampling import Sampling
from .bands import ROWS, STEP, band_steps, gap, whole_steps
from .bilinear import locate
from .direct import Launch
from .entries import write_bands
from .gather import TILES
from .launch import (
    Layers,
    accounted,
    channel_blocks,
    coded,
    decoded,
    matrix,
    mode_of,
    options,
    points_of,
    row_vector,
    starts,
)
from .pieces import piece_of, write_gathered
from .ruler import Ruler, common_rows
from .select import Key, ruled

__all__ = ["Operands", "operands"]

# Points of a program that writes bands; one that gathers has a tile of gather.py.
STRIP = 32


class Operands(NamedTuple):
    """A and R.

    Args:
        left: A, ``(blocks ROWS, STEP)``. right: R. table: ``(tiles, 2 bands + 1)`` int32.
        width: of the gathered columns.
    """

    left: Tensor
    right: Tensor
    table: Tensor
    width: int


@accounted
def _account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """Corners are read, or their weights made; two rows of each projected map have columns."""
    corners, total, left = 4 if a["MODE"].bilinear else 1, a["points"].total, a["left"]
    channels, width = sum(a["CHANNELS"]), a["WIDTH"]
    band = sum([2 * decoded(layer.size[1]) for layer in a["bands"]])
    moved = total * (corners * channels + width + band) + 2 * channels * a["D"]
    return 2.0 * total * (corners * channels + band), float(moved * left.itemsize), left.dtype


@triton.jit
def _write_weight(
    right,
    weight,
    block,
    D,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FROM: tl.constexpr,
    VECTOR: tl.constexpr,
    WIDTH: tl.constexpr,
    STEP: tl.constexpr,
):
    """R[k, d] = W[d, k] for a square of STEP; 0 in rows that fill up the last step."""
    k = block % (WIDTH // STEP) * STEP + tl.arange(0, STEP)
    d = block // (WIDTH // STEP) * STEP + tl.arange(0, STEP)
    TOTAL: tl.constexpr = COLUMNS[len(CHANNELS) - 1] + CHANNELS[len(CHANNELS) - 1]
    column = tl.zeros((STEP,), tl.int32)
    for i in tl.static_range(len(CHANNELS)):
        own = (k >= COLUMNS[i]) & (k < COLUMNS[i] + CHANNELS[i])
        column = tl.where(own, k + (FROM[i] - COLUMNS[i]), column)
    # What the compiler cannot see through a choice, and 16-byte loads take.
    column = tl.max_contiguous(tl.multiple_of(column, VECTOR), VECTOR)
    row = tl.multiple_of(d.to(tl.int64) * weight.strides[0], VECTOR)
    address = weight.data + row[:, None] + column.to(tl.int64)[None, :] * weight.strides[1]
    mask = (d < D)[:, None] & (k < TOTAL)[None, :]
    value = tl.load(address, mask=mask, other=0.0)
    address = right + k.to(tl.int64)[:, None] * D + d[None, :]
    tl.store(address, tl.trans(value), mask=(d < D)[None, :])


@triton.jit(launch_metadata=_account)
def _left_kernel(
    left,  # blocks of ROWS points, STEP columns
    table,  # (tiles, 2 len(bands) + 1) int32
    right,  # (., D), the first WIDTH rows
    D,
    weight,
    points,
    layers,  # gathered
    bands,  # projected
    rows,  # of R, where each of these starts
    gaps,  # of bands.py, their sum
    VECTORS: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,  # of A
    FILLED: tl.constexpr,  # CHANNELS, and what fills up the last step
    FROM: tl.constexpr,  # columns of W
    WEIGHT_VECTOR: tl.constexpr,  # what they, the rows of W and the channels are multiples of
    FIRSTS: tl.constexpr,
    BLOCKS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
    MODE: tl.constexpr,
    STRIP: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PIECE: tl.constexpr,
):
    """A program writes a block of channels of some points, or their bands, or a square of W^T.

    Programs of the same points are neighbours. Rows past the end are written like the last one:
    the product takes whole tiles.
    """
    program = tl.program_id(0)
    tiles = tl.cdiv(points.total, ROWS)
    strips = tiles * (ROWS // STRIP)
    square = program - strips - tiles * (ROWS // BLOCK_P) * BLOCKS
    # Bands take the longest, and so come first.
    if program < strips:
        first = program * STRIP
        write_bands(left, table, first, points, bands, rows, gaps, WIDTH, ROWS, STEP, STRIP, MODE)
    elif square < 0:
        local = program - strips
        p = local // max(BLOCKS, 1) * BLOCK_P + tl.arange(0, BLOCK_P)
        # Located in each branch: before them, Triton 3.6 fails to compile some modes.
        at = locate(points, p, MODE)
        before = (p // ROWS).to(tl.int64) * (WIDTH // STEP)  # blocks of earlier tiles
        place = left + (before * ROWS + p % ROWS)[:, None] * STEP
        block = local % max(BLOCKS, 1)
        for i in tl.static_range(len(layers)):
            own = block - FIRSTS[i]
            if (own >= 0) & (own < (FILLED[i] + BLOCK_C - 1) // BLOCK_C):
                first = own * BLOCK_C
                write_gathered(
                    place,
                    None,
                    at,
                    layers[i],
                    first,
                    COLUMNS[i],
                    STEP,
                    ROWS * STEP,
                    VECTORS[i],
                    CHANNELS[i],
                    FILLED[i],
                    MODE,
                    BLOCK_C,
                    PIECE,
                )
    elif WIDTH > 0:
        _write_weight(right, weight, square, D, CHANNELS, COLUMNS, FROM, WEIGHT_VECTOR, WIDTH, STEP)


def operands(s: Sampling, head: Linear, projected: Sequence[int], ruler: Ruler) -> Operands:
    """A and R of points in order by that ruler, in the weight's dtype, for outputs D in eights."""
    key = ("operands", tuple(projected), head.layout)
    return s.once(key, lambda: _operands_like(s, head, projected, ruler))(s, head)


def _operands_like(
    s: Sampling, head: Linear, projected: Sequence[int], ruler: Ruler
) -> Callable[[Sampling, Linear], Operands]:
    """A and R of tensors that are laid out as these."""
    weight, outputs, columns = head.weight, head.out_features, s.columns
    gathered = [i for i in range(len(columns)) if i not in projected]
    fine, coarse = s.of(gathered), s.of(projected)
    width = whole_steps(sum(fine.channels))
    cells = [s.batch * height * across for height, across in coarse.sizes]
    rows = tuple(accumulate(cells, initial=width))
    tiles = -(-s.total // ROWS)
    gaps = [*map(gap, coarse.sizes, common_rows(coarse.sizes, coarse.geometry.affine, ruler))]
    blocks = tiles * width // STEP + band_steps(coarse.sizes, gaps, s.batch, tiles)
    shape, table_shape = (blocks * ROWS, STEP), (tiles, 2 * len(projected) + 1)
    filled = list(fine.channels)
    if filled:
        filled[-1] += width - sum(filled)
    sources = tuple([columns[i].start for i in gathered])
    layers = Layers(fine.features, fine.geometry.affine)
    bands = Layers(coarse.features, coarse.geometry.affine)
    narrowest = min(fine.channels, default=STEP)
    key = Key(weight.dtype, s.total, channels=narrowest, contiguous=layers.contiguous)
    tile = ruled("gather", TILES, key)
    firsts, parts = channel_blocks(tuple(filled), tile.columns)
    programs = tiles * (ROWS // STRIP + ROWS // tile.rows * parts)
    squares = width // STEP * -(-outputs // STEP)
    launch = Launch(
        _left_kernel,
        (programs + squares,),
        "left table right weight points layers bands",
        D=outputs,
        rows=tuple(map(coded, rows[:-1])),
        gaps=coded(sum(gaps)),
        VECTORS=layers.vectors,
        CHANNELS=fine.channels,
        COLUMNS=starts(fine.channels),
        FILLED=tuple(filled),
        FROM=sources,
        WEIGHT_VECTOR=math.gcd(row_vector(weight), *fine.channels, *sources),
        FIRSTS=firsts,
        BLOCKS=parts,
        WIDTH=width,
        ROWS=ROWS,
        STEP=STEP,
        MODE=mode_of(s),
        STRIP=STRIP,
        BLOCK_P=tile.rows,
        BLOCK_C=tile.columns,
        PIECE=piece_of(tile, weight.itemsize),
        **options(tile),
    )
    slices = [slice(*ends) for ends in pairwise(rows)]
    chosen = [columns[i] for i in projected]

    def run(s: Sampling, head: Linear) -> Operands:
        weight = head.weight
        right = weight.new_empty((rows[-1], outputs))
        coarse = [s.features[i] for i in projected]
        for x, place, part in zip(coarse, slices, chosen, strict=True):
            cells = x.permute(0, 2, 3, 1).flatten(0, 2)
            torch.mm(cells, weight[:, part].t(), out=right[place])
        left = weight.new_empty(shape)
        table = weight.new_empty(table_shape, dtype=torch.int32)
        fine = layers([s.features[i] for i in gathered])
        launch(left, table, right, matrix(weight), points_of(s), fine, bands(coarse))
        return Operands(left, right, table, width)

    return run
