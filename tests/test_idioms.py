"""What other code writes, and the call that takes its place: the table in docs/integration.md."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.integrations import maps_of_tokens

SIZE = H, W = 24, 30
B, N = 2, 9


@pytest.fixture
def feature() -> Tensor:
    return torch.rand(B, 5, 12, 15)


@pytest.fixture
def xy() -> Tensor:
    return torch.rand(B, N, 2) * torch.tensor([W - 1, H - 1])


def rows(planes: Tensor) -> Tensor:
    """(B, C, N, 1) -> (B, N, C)."""
    return planes.squeeze(3).transpose(1, 2)


def test_normalized(feature: Tensor) -> None:
    grid = torch.rand(B, N, 2) * 2.4 - 1.2
    value = sparse_hypercolumn(
        [feature], grid, SIZE, coordinates="normalized", padding_mode="zeros"
    )
    expected = rows(F.grid_sample(feature, grid[:, :, None], align_corners=False))
    torch.testing.assert_close(value, expected)


def test_aligned_corners(feature: Tensor, xy: Tensor) -> None:
    grid = 2 * xy / torch.tensor([W - 1, H - 1]) - 1
    value = sparse_hypercolumn([feature], xy, SIZE, align_corners=True, padding_mode="zeros")
    expected = rows(F.grid_sample(feature, grid[:, :, None], align_corners=True))
    torch.testing.assert_close(value, expected)


def test_pixels_of_an_upsampled_map(feature: Tensor, xy: Tensor) -> None:
    pixels = xy.long()
    upsampled = F.interpolate(feature, SIZE, mode="bilinear", align_corners=False)
    expected = upsampled[torch.arange(B)[:, None], :, pixels[..., 1], pixels[..., 0]]
    torch.testing.assert_close(sparse_hypercolumn([feature], pixels, SIZE), expected)


def test_cells_of_a_stride(feature: Tensor, xy: Tensor) -> None:
    cells = (xy - (2 - 1) / 2) / 2
    grid = (2 * cells + 1) / torch.tensor([15, 12]) - 1
    value = sparse_hypercolumn([feature], xy, SIZE, strides=[2])
    expected = F.grid_sample(feature, grid[:, :, None], padding_mode="border", align_corners=False)
    torch.testing.assert_close(value, rows(expected))


def test_labels(xy: Tensor) -> None:
    labels = torch.randint(0, 200, (B, 1, H, W), dtype=torch.uint8)
    grid = (2 * xy + 1) / torch.tensor([W, H]) - 1
    value = sparse_hypercolumn([labels], xy, SIZE, interpolation="nearest")
    expected = F.grid_sample(labels.float(), grid[:, :, None], mode="nearest", align_corners=False)
    assert torch.equal(value, rows(expected).to(torch.uint8))


def test_tokens(feature: Tensor, xy: Tensor) -> None:
    tokens = torch.cat([torch.rand(B, 1, 5), feature.flatten(2).transpose(1, 2)], 1)
    maps = maps_of_tokens(tokens, (12, 15), prefix=1)
    expected = sparse_hypercolumn([feature], xy, SIZE)
    torch.testing.assert_close(sparse_hypercolumn(maps, xy, SIZE), expected)


def test_a_copy_for_each_box(feature: Tensor) -> None:
    image_of_box = torch.tensor([1, 0, 0, 1])
    xy = torch.rand(4, N, 2) * 20
    expected = sparse_hypercolumn([feature[image_of_box]], xy, SIZE)
    index = image_of_box.repeat_interleave(N)
    value = sparse_hypercolumn([feature], xy.flatten(0, 1), SIZE, batch_index=index)
    torch.testing.assert_close(value.view(4, N, -1), expected)
