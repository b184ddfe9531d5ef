"""Lists of cells on a CPU: positions are exact to their last bit, and sums have one order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.call import Sampling
from pixelnet_triton.call.geometry import layer_geometry, quotient
from pixelnet_triton.cpu.bags import SHORT, TransposedLists
from pixelnet_triton.cpu.corners import Corners
from pixelnet_triton.cpu.locating import locate
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn


@pytest.mark.parametrize("cells", [300, SHORT, SHORT + 1, 3 * SHORT])
def test_entries_of_a_cell_stay_in_their_order(cells: int) -> None:
    """On either side of what 16 bits can number."""
    index = torch.randint(cells, (2000, 4), dtype=torch.int32)
    index[::3] = index[0]  # many of the same cells
    index[0, 0] = cells - 1
    lists = TransposedLists.of_stack(Corners(index, torch.rand(2000, 4)), cells, False)
    entries = index.flatten().tolist()
    order = sorted(range(len(entries)), key=entries.__getitem__)  # stable
    assert lists.points.tolist() == [entry // 4 for entry in order]
    assert (
        lists.starts.tolist()
        == (
            torch.tensor(entries)
            .bincount(minlength=cells)
            .cumsum(0)
            .roll(1)
            .index_fill_(0, torch.tensor([0]), 0)
        ).tolist()
    )


@pytest.mark.parametrize(("cells", "pixels"), [(56, 224), (81, 321), (224, 224)])
def test_weights_are_right_to_their_last_bit(cells: int, pixels: int) -> None:
    geometry = layer_geometry([(cells, cells)], (pixels, pixels))
    points = torch.rand(500, 2) * (pixels - 1)
    found = locate(Sampling([torch.empty(1, 1, cells, cells)], points, None, geometry))
    a, b, c = quotient(*geometry.affine[0][:2])
    t = ((a * points.double() + b) / c).clamp(0, cells - 1)
    upper = t - t.floor()
    x, y = upper.unbind(1)
    exact = torch.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], 1)
    assert found.weight is not None
    assert float((found.weight[0] - exact).abs().max()) <= torch.finfo(torch.float32).eps


@pytest.mark.parametrize("size", [(1, 1), (3, 3)])
def test_many_points_of_a_cell_do_not_add_up_their_errors(size: tuple[int, int]) -> None:
    """A map's single cell is seen by all points: as one sum of 20,000 it would err 7 times more."""
    points = torch.rand(1, 20_000, 2) * 32
    feature, weight = torch.randn(1, 16, *size), torch.randn(8, 16)
    grad = torch.randn(1, 20_000, 8)

    def gradients(function: Any, dtype: torch.dtype, **options: Any) -> list[Tensor]:
        leaves = [t.to(dtype).requires_grad_() for t in (feature, weight)]
        value = function([leaves[0]], points.to(dtype), (32, 32), weight=leaves[1], **options)
        return [g.double() for g in torch.autograd.grad(value, leaves, grad.to(dtype))]

    exact = gradients(reference_hypercolumn, torch.float64)
    plain = gradients(reference_hypercolumn, torch.float32)
    actual = gradients(sparse_hypercolumn, torch.float32, plan="project")
    for right, usual, found in zip(exact, plain, actual, strict=True):
        assert (found - right).norm() <= 2 * (usual - right).norm()
