"""Gathered channels of a program's points, piece by piece: for gather.py, left.py and rows.py.

A piece is so many channels that each thread has 16 bytes of one point. Where a point lies, and so
its corners, is worked out once for all pieces of a program, and all of them are read before the
first is written: what a store writes might be what a later load reads, for all the compiler knows,
so that it lets no load pass a store.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .bilinear import gather_corners, layer_corners
from .select import Tile

__all__ = ["piece_of", "write_gathered"]


def piece_of(tile: Tile, itemsize: int) -> int:
    """Channels of a piece: what 32 threads a warp read, 16 bytes each, for `tile.rows` points."""
    return max(1, min(tile.columns, tile.num_warps * 32 * (16 // itemsize) // tile.rows))


@triton.jit
def write_gathered(
    place,
    p_mask,
    at,
    layer,
    first,
    COLUMN: tl.constexpr,
    STEP: tl.constexpr,
    PITCH: tl.constexpr,
    VECTOR: tl.constexpr,
    CHANNELS: tl.constexpr,
    FILLED: tl.constexpr,
    MODE: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PIECE: tl.constexpr,
):
    """place[p, COLUMN + c] = h[p, c] for BLOCK_C channels c from `first` on, in pieces.

    0 from CHANNELS on, and nothing from FILLED on. `first` is a multiple of BLOCK_C. Columns stand
    side by side; unless STEP is 0 only so many of them do, and PITCH elements on the next. Without
    `p_mask` all points have a place.
    """
    # Triton 3.4 takes no `min` here.
    PIECES: tl.constexpr = ((BLOCK_C if BLOCK_C < FILLED else FILLED) + PIECE - 1) // PIECE
    # Is every channel of every piece of every program there?
    WHOLE: tl.constexpr = FILLED % (PIECES * PIECE) == 0
    MASKED: tl.constexpr = not WHOLE or CHANNELS != FILLED
    corners = layer_corners(at, layer, VECTOR, MODE)
    values = ()
    for i in tl.static_range(PIECES):
        c = first + i * PIECE + tl.arange(0, PIECE)
        h = gather_corners(layer, corners, c, c < CHANNELS, MASKED, MODE)
        values = values + (h.to(place.dtype.element_ty),)  # type: ignore[assignment]
    for i in tl.static_range(PIECES):
        c = first + i * PIECE + tl.arange(0, PIECE)
        column = COLUMN + c
        if STEP > 0:
            column = column // STEP * PITCH + column % STEP
        mask = None if WHOLE else (c < FILLED)[None, :]
        if p_mask is not None:
            mask = p_mask[:, None] if WHOLE else p_mask[:, None] & mask
        tl.store(place + column[None, :], values[i], mask=mask)
