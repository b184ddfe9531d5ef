"""How positions are told to `grid_sample`: exactly, on maps enlarged where they must be."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pixelnet_triton.call import Sampling
from pixelnet_triton.call.geometry import layer_geometry
from pixelnet_triton.call.grids import Grid, enlarged_cells, grid_of, integers_are_exact
from pixelnet_triton.op import backend_for
from pixelnet_triton.op.shapes import shape_of


def grid(size: tuple[int, int], image: tuple[int, int], **options: Any) -> Grid:
    return grid_of(layer_geometry([size], image, **options).affine[0], *size)


@pytest.mark.parametrize(
    ("size", "image", "options", "expected"),
    [
        ((32, 64), (128, 256), {}, (False, 32, 64)),  # powers of two stay
        ((28, 14), (224, 112), {}, (False, 32, 16)),
        ((33, 65), (257, 513), {"align_corners": True}, (True, 33, 65)),  # 2^n + 1 between corners
        ((33, 33), (264, 264), {}, (True, 33, 33)),  # the convention that adds fewer cells
        ((27, 31), (108, 124), {"coordinates": "unit"}, (False, 27, 31)),  # u is 2 p
        ((27, 31), (9, 9), {"coordinates": "normalized", "align_corners": True}, (True, 27, 31)),
        ((1, 5), (1, 5), {"align_corners": True}, (True, 1, 5)),
        ((1, 1), (7, 7), {}, (False, 1, 1)),
    ],
)
def test_the_map_that_is_sampled(
    size: tuple[int, int],
    image: tuple[int, int],
    options: dict[str, Any],
    expected: tuple[bool, int, int],
) -> None:
    found = grid(size, image, **options)
    assert found[:3] == expected
    if "coordinates" not in options and size != (1, 5):
        assert enlarged_cells(*size) == found.rows * found.columns


@pytest.mark.parametrize(("cells", "pixels", "stride"), [(28, 224, 8), (123, 1722, 14), (9, 27, 3)])
def test_every_cell_is_found_to_the_bit(cells: int, pixels: int, stride: int) -> None:
    """In float32 and float64: `grid_sample` of the cells' own numbers."""
    found = grid((cells, cells), (pixels, pixels), strides=[stride])
    centres = stride * torch.arange(cells, dtype=torch.float64) + (stride - 1) / 2
    a, b, c = found.x
    for dtype in (torch.float32, torch.float64):
        numbers = torch.zeros(1, 1, 1, found.columns, dtype=dtype)
        numbers[..., :cells] = torch.arange(cells, dtype=dtype)
        u = ((a * centres + b) / c).to(dtype)
        at = torch.stack([u - 1, torch.zeros_like(u)], -1)[None, None]
        values = F.grid_sample(numbers, at, align_corners=found.aligned, padding_mode="border")
        assert torch.equal(values.flatten(), numbers[0, 0, 0, :cells])


def test_where_float32_is_enough() -> None:
    def single(size: tuple[int, int], integers: bool, **options: Any) -> bool:
        """What the planner sees of points on such a map under an image of 224 pixels."""
        geometry = layer_geometry([size], (224, 224), **options)
        points = torch.zeros(3, 2, dtype=torch.int64 if integers else torch.float32)
        s = Sampling([torch.empty(1, 1, *size)], points, None, geometry)
        backend = backend_for(torch.device("cpu"))
        return shape_of(s, None, backend, training=False, moving_points=False).single

    for size, integers in itertools.product(((224, 224), (56, 56), (28, 28)), (True, False)):
        assert single(size, integers) is integers
    assert not single((75, 75), True, strides=[3])  # thirds are rounded
    assert single((75, 75), False, coordinates="unit")  # as grid_sample itself
    assert not single((75, 75), False, coordinates="unit", strides=[3])  # not of the whole map
    assert integers_are_exact(layer_geometry([(56, 56)], (224, 224)), [(56, 56)])
