"""Where a point lies: positions are quotients, so that pixels on the centres of cells meet them."""

from __future__ import annotations

import pytest
import torch

from pixelnet_triton.call import Sampling, Wanted, layer_geometry
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from .conftest import needs_kernels

pytestmark = needs_kernels
pytest.importorskip("triton")

from pixelnet_triton.gpu.steps import gather, hypercolumn_gradients  # noqa: E402

CELLS = 12


@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
@pytest.mark.parametrize("stride", [1, 3, 7, 14, 15, 16])
def test_a_centre_is_its_cell_bit_for_bit(
    stride: int, padding_mode: str, device: torch.device
) -> None:
    """Other cells are neither added nor seen, and get nothing of the gradient."""
    cell = torch.arange(CELLS)
    cells = torch.cartesian_prod(cell, cell).flip(1)
    points = cells.to(device) * stride + (stride - 1) / 2
    feature = torch.randn(1, 16, CELLS, CELLS, device=device)
    feature[..., 1::2] = float("nan")  # odd columns
    size = (CELLS * stride, CELLS * stride)
    geometry = layer_geometry([(CELLS, CELLS)], size, padding_mode=padding_mode)
    s = Sampling([feature], points, None, geometry)
    values = gather(s).view(CELLS, CELLS, 16)
    expected = feature[0].permute(1, 2, 0)
    assert torch.equal(values[:, ::2], expected[:, ::2])
    assert values[:, 1::2].isnan().all()
    grad = torch.randn(len(points), 16, device=device)
    wanted = Wanted((True,), points=False, weight=False, bias=False)
    (gradient,) = hypercolumn_gradients(s, grad, wanted).features
    assert gradient is not None
    assert torch.equal(gradient[0].permute(1, 2, 0).reshape(-1, 16), grad)


@pytest.mark.parametrize(("pixels", "cells"), [(45, 6), (39, 26), (798, 228)])
def test_nearest_cells_are_those_of_the_reference(
    pixels: int, cells: int, device: torch.device
) -> None:
    """Pixels lie half-way between cells, at some of these sizes."""
    numbers = torch.arange(cells, dtype=torch.float32)[None, None, None].repeat(1, 8, 2, 1)
    x = torch.arange(0, pixels, max(1, pixels // 150))
    points = torch.stack([x, torch.zeros_like(x)], 1)
    settings = {"interpolation": "nearest"}
    geometry = layer_geometry([(2, cells)], (2, pixels), **settings)
    s = Sampling([numbers.to(device)], points.to(device), None, geometry)
    right = reference_hypercolumn([numbers.double()], points[None], (2, pixels), **settings)
    assert torch.equal(gather(s).cpu().double(), right[0])


@pytest.mark.parametrize("stride", [14, 19, 41])
def test_at_a_centre_the_derivative_is_that_to_the_right(stride: int, device: torch.device) -> None:
    """As in the reference; and nothing on the border."""
    cells = torch.cartesian_prod(torch.arange(CELLS), torch.arange(CELLS)).flip(1)
    points = (cells * stride + (stride - 1) / 2)[None]
    feature, grad = torch.randn(1, 16, CELLS, CELLS), torch.randn(len(cells), 16)
    size = (CELLS * stride, CELLS * stride)
    exact = points.double().requires_grad_()
    (reference_hypercolumn([feature.double()], exact, size)[0] * grad).sum().backward()
    geometry = layer_geometry([(CELLS, CELLS)], size)
    s = Sampling([feature.to(device)], points[0].to(device), None, geometry)
    wanted = Wanted((False,), points=True, weight=False, bias=False)
    moved = hypercolumn_gradients(s, grad.to(device), wanted).points
    assert moved is not None
    assert exact.grad is not None
    torch.testing.assert_close(moved.cpu().double(), exact.grad[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
def test_points_beyond_the_range_of_float32_are_finite(
    padding_mode: str, device: torch.device
) -> None:
    """Border, or nothing; and a gradient of the map that puts them in order."""
    far = torch.tensor([[1e300, -1e39], [-1e39, 1e300], [1.0, 1.0]], dtype=torch.float64)
    feature, grad = torch.randn(1, 16, 4, 5, device=device), torch.randn(3, 16, device=device)
    geometry = layer_geometry([(4, 5)], (4, 5), padding_mode=padding_mode)
    wanted = Wanted((True,), points=False, weight=False, bias=False)
    values, gradients = [], []
    for points in (far, far.clamp(-1e4, 1e4)):
        s = Sampling([feature], points.to(device), None, geometry)
        values.append(gather(s))
        gradients.append(hypercolumn_gradients(s, grad, wanted).features[0])
    assert torch.equal(*values)
    assert torch.equal(*gradients)
