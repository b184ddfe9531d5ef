"""Images of several sizes on one canvas: each is sampled as if it were alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelnet_triton import HypercolumnLinear, sparse_hypercolumn
from pixelnet_triton.models import PixelMLP, PixelNet
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn
from pixelnet_triton.sampling import UniformSampler, pixels_of_images

from .tolerances import assert_close_to_reference

SIZES = (
    (21, 40),
    (32, 17),
    (8, 9),
)  # on a canvas of 32 x 40; 9 / 4 and 21 / 2 leave parts of cells
STRIDES = (1, (2, 2), 4)
CANVAS = ((32, 40), (16, 20), (8, 10))
CHANNELS = (3, 24, 8)
CONVENTIONS = [
    (coordinates, padding, interpolation)
    for coordinates in ("pixel", "unit", "normalized")
    for padding in ("border", "zeros")
    for interpolation in ("bilinear", "nearest")
]


def batch(
    device: torch.device | str = "cpu", coordinates: str = "pixel", seed: int = 0
) -> tuple[list[Tensor], Tensor]:
    """Maps whose padding is far from their values, and points up to twice an image's extent."""
    random = torch.Generator().manual_seed(seed)
    maps = []
    for channels, (rows, columns), stride in zip(CHANNELS, CANVAS, (1, 2, 4), strict=True):
        made = torch.randn(3, channels, rows, columns, generator=random)
        for b, (height, width) in enumerate(SIZES):
            made[b, :, -(-height // stride) :] = 1e4
            made[b, :, :, -(-width // stride) :] = -1e4
        maps.append(made.to(device))
    share = 1.6 * torch.rand(3, 60, 2, generator=random) - 0.3
    extent = torch.tensor([(w, h) for h, w in SIZES]).unsqueeze(1)
    points = {"pixel": share * extent - 0.5, "unit": share, "normalized": 2 * share - 1}
    return maps, points[coordinates].to(device)


def with_gradients(
    function: Callable[..., Tensor], *leaves: Tensor, **options: Any
) -> list[Tensor]:
    """Value and gradients of maps, points, and weight where there is one."""
    leaves = tuple(leaf.detach().requires_grad_() for leaf in leaves)
    *maps, points = leaves[:4]
    named = {} if len(leaves) == 4 else {"weight": leaves[4]}
    value = function(maps, points, **named, **options)
    grad = torch.linspace(-1, 1, value.numel(), dtype=torch.float64).to(value)
    gradients = torch.autograd.grad(
        value, leaves, grad.reshape(value.shape), allow_unused=True, materialize_grads=True
    )
    return [value.detach(), *gradients]


@pytest.mark.parametrize("linear", [False, True], ids=["features", "linear"])
@pytest.mark.parametrize("convention", CONVENTIONS, ids="-".join)
def test_as_each_image_alone(
    convention: tuple[str, str, str], linear: bool, device: torch.device
) -> None:
    """Values, and all gradients: none of the padding's cells, whose values would be seen, too."""
    coordinates, padding, interpolation = convention
    maps, points = batch(device, coordinates)
    leaves = [*maps, points]
    if linear:
        leaves.append(torch.randn(16, sum(CHANNELS), device=device) / 6)
    options: dict[str, Any] = {
        "image_size": torch.tensor(SIZES),
        "strides": STRIDES,
        "interpolation": interpolation,
        "padding_mode": padding,
        "coordinates": coordinates,
    }
    actual = with_gradients(sparse_hypercolumn, *leaves, **options)
    wide = [leaf.double() for leaf in leaves]
    expected = with_gradients(reference_hypercolumn, *wide, **options)
    plain = with_gradients(reference_hypercolumn, *leaves, **options)
    names = ("value", "map 0", "map 1", "map 2", "points", "weight")
    for name, ours, exact, theirs in zip(names, actual, expected, plain, strict=False):
        if name == "points" and interpolation == "nearest":
            assert not ours.any()
            continue
        assert_close_to_reference(ours, exact, theirs, dtype=torch.float32, name=name)
    for ours, exact in zip(actual[1:4], expected[1:4], strict=True):
        assert torch.equal(ours != 0, exact != 0), "a gradient in the padding"


def test_whole_pixels_are_the_cells_to_the_bit(device: torch.device) -> None:
    maps, _ = batch(device)
    points = torch.stack([torch.randint(0, n, (3, 50), device=device) for n in (9, 8)], 2)
    value = sparse_hypercolumn(maps, points, SIZES, strides=STRIDES)
    at_pixels = maps[0][torch.arange(3)[:, None], :, points[..., 1].cpu(), points[..., 0].cpu()]
    assert torch.equal(value[..., :3], at_pixels)


FORMS: dict[str, Any] = {
    "pairs": SIZES,
    "lists": [list(size) for size in SIZES],
    "array": np.array(SIZES),
    "int32": torch.tensor(SIZES, dtype=torch.int32),
    "shapes": [torch.Size(size) for size in SIZES],
    "tensors": [torch.tensor(size) for size in SIZES],
    "numpy numbers": [tuple(np.array(size)) for size in SIZES],
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_sizes(form: str, device: torch.device) -> None:
    maps, points = batch(device)
    expected = sparse_hypercolumn(maps, points, torch.tensor(SIZES), strides=STRIDES)
    assert torch.equal(sparse_hypercolumn(maps, points, FORMS[form], strides=STRIDES), expected)


def test_sizes_of_two_images_are_not_taken_for_one_size(device: torch.device) -> None:
    maps, points = batch(device)
    maps, points = [m[:2] for m in maps], points[:2]
    expected = sparse_hypercolumn(maps, points, torch.tensor(SIZES[:2]), strides=STRIDES)
    actual = sparse_hypercolumn(maps, points, SIZES[:2], strides=STRIDES)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("coordinates", ["pixel", "unit"])
def test_ragged_points(coordinates: str, device: torch.device) -> None:
    maps, points = batch(device, coordinates)
    image = torch.arange(3, device=device).repeat_interleave(60)
    order = torch.randperm(180)
    options: dict[str, Any] = {"strides": STRIDES, "coordinates": coordinates}
    expected = sparse_hypercolumn(maps, points, SIZES, **options).flatten(0, 1)[order]
    actual = sparse_hypercolumn(
        maps, points.flatten(0, 1)[order], SIZES, batch_index=image[order], **options
    )
    torch.testing.assert_close(actual, expected)


def test_maps_without_padding_are_not_copied(device: torch.device) -> None:
    maps, points = batch(device)
    calls: list[Any] = []
    original = torch.where
    sizes = [(32, 40)] * 3
    try:
        torch.where = lambda *a, **k: calls.append(a) or original(*a, **k)  # type: ignore
        actual = sparse_hypercolumn(maps, points, sizes, strides=STRIDES)
    finally:
        torch.where = original
    assert not calls
    assert torch.equal(actual, sparse_hypercolumn(maps, points, (32, 40), strides=STRIDES))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint64], ids=str)
def test_labels_of_several_sizes(dtype: torch.dtype, device: torch.device) -> None:
    """Integers at the nearest cells: outside its image each point takes the last pixel, or 0."""
    labels = torch.full((2, 1, 6, 8), 255, dtype=dtype, device=device)
    labels[0, 0, :3, :4], labels[1, 0, :6, :2] = 7, 9
    points = torch.tensor([[[3, 2], [7, 5]], [[1, 5], [7, 0]]], device=device)
    options: dict[str, Any] = {"strides": [1], "interpolation": "nearest"}
    sizes = [(3, 4), (6, 2)]
    border = sparse_hypercolumn([labels], points, sizes, **options)
    zeros = sparse_hypercolumn([labels], points, sizes, padding_mode="zeros", **options)
    assert border.flatten().tolist() == [7, 7, 9, 9]
    assert zeros.flatten().tolist() == [7, 0, 9, 0]


def test_padding_of_nan_is_never_seen(device: torch.device) -> None:
    for padding in ("border", "zeros"):
        maps, points = batch(device)
        clean = sparse_hypercolumn(maps, points, SIZES, strides=STRIDES, padding_mode=padding)
        for feature in maps:
            feature[feature.abs() == 1e4] = torch.nan
        leaves = [feature.requires_grad_() for feature in maps]
        value = sparse_hypercolumn(leaves, points, SIZES, strides=STRIDES, padding_mode=padding)
        assert torch.equal(value, clean)
        value.sum().backward()
        assert all(torch.isfinite(leaf.grad).all() for leaf in leaves if leaf.grad is not None)


@pytest.mark.parametrize("coordinates", ["unit", "normalized"])
def test_far_points_are_the_border_or_0(coordinates: str, device: torch.device) -> None:
    maps, _ = batch(device)
    far = torch.tensor([3e38, 3e38], device=device).expand(3, 1, 2)
    options: dict[str, Any] = {"strides": STRIDES, "coordinates": coordinates}
    border = sparse_hypercolumn(maps, far, SIZES, **options)[:, 0, :3]
    corner = torch.stack([maps[0][b, :, h - 1, w - 1] for b, (h, w) in enumerate(SIZES)])
    assert torch.equal(border, corner)
    assert not sparse_hypercolumn(maps, far, SIZES, padding_mode="zeros", **options).any()


def test_valid_ratios_of_deformable_detr(device: torch.device) -> None:
    """Points in [0, 1] of each image, times the valid ratio of each level; padding masked to 0."""
    sizes = torch.tensor([(20, 40), (32, 16), (8, 8)], device=device)
    maps, points = batch(device, "unit")
    sampled = []
    for feature, stride in zip(maps, (1, 2, 4), strict=True):
        rows, columns = feature.shape[2:]
        mask = pixels_of_images(sizes // stride, (rows, columns)).unsqueeze(1)
        valid_ratio = sizes.flip(1) / stride / sizes.new_tensor([columns, rows])
        grid = 2 * points * valid_ratio.unsqueeze(1) - 1
        values = F.grid_sample(feature * mask, grid.unsqueeze(2), align_corners=False)
        sampled.append(values.squeeze(3).transpose(1, 2))
    options: dict[str, Any] = {"coordinates": "unit", "padding_mode": "zeros"}
    actual = sparse_hypercolumn(maps, points, sizes, strides=STRIDES, **options)
    torch.testing.assert_close(actual, torch.cat(sampled, 2), rtol=1e-4, atol=1e-4)


# Modules, compiled and exported


def test_the_layer_and_its_graph(device: torch.device) -> None:
    layer = HypercolumnLinear(CHANNELS, 5, strides=STRIDES).to(device)
    maps, points = batch(device)
    sizes = torch.tensor(SIZES, device=device)
    expected = layer(maps, points, sizes)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(maps, points, sizes), expected)
    smaller = torch.minimum(sizes, sizes.new_tensor([16, 16]))
    torch.testing.assert_close(compiled(maps, points, smaller), layer(maps, points, smaller))


class SizedLayer(nn.Module):
    """For export: tensors in, tensor out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = HypercolumnLinear([3, 8], 4, strides=[1, 2])

    def forward(self, fine: Tensor, coarse: Tensor, points: Tensor, sizes: Tensor) -> Tensor:
        return self.first([fine, coarse], points, sizes)


def test_sizes_are_an_input_of_an_exported_program() -> None:
    from pixelnet_triton.integrations.export import export

    model = SizedLayer().eval()
    arguments = (torch.randn(2, 3, 8, 8), torch.randn(2, 8, 4, 4), torch.rand(2, 9, 2) * 10)
    program = export(model, (*arguments, torch.tensor([[8, 8], [5, 3]]))).module()
    for sizes in ([[8, 8], [5, 3]], [[2, 7], [8, 1]]):
        given = torch.tensor(sizes)
        torch.testing.assert_close(program(*arguments, given), model(*arguments, given))


class Convolutions(nn.Module):
    """Strides 1 and 2; kernels of one pixel, so that padding changes nothing beside it."""

    strides = (1, 2)

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 4, 1)
        self.coarse = nn.Conv2d(3, 6, 1, stride=2)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.fine(images), self.coarse(images)]


def test_a_network_takes_a_list_of_images(device: torch.device) -> None:
    model = PixelNet(Convolutions(), PixelMLP([4, 6], (8,), out_features=5)).to(device).eval()
    images = [torch.randn(3, *size, device=device) for size in SIZES]
    points = torch.stack([torch.randint(-3, 50, (30, 2), device=device) for _ in images])
    value = model(images, points)
    for b, image in enumerate(images):
        torch.testing.assert_close(value[b : b + 1], model(image[None], points[b : b + 1]))
    same = [images[0], images[0] + 1]
    assert torch.equal(model(same, points[:2]), model(torch.stack(same), points[:2]))


def test_a_network_without_strides_says_so(device: torch.device) -> None:
    backbone = Convolutions().to(device)
    backbone.strides = None  # type: ignore[assignment]
    model = PixelNet(backbone, PixelMLP([4, 6], (8,), out_features=5).to(device))
    images = [torch.randn(3, *size, device=device) for size in SIZES]
    points = torch.zeros(3, 2, 2, device=device)
    with pytest.raises(
        ValueError, match=r"images have the sizes .*\(21, 40\).*Set backbone\.strides"
    ):
        model(images, points)


LISTS: list[tuple[Any, type[Exception], str]] = [
    ([], ValueError, "images is an empty list"),
    ([torch.zeros(3, 4, 4), "a.png"], TypeError, r"images\[1\] is a str; expected a tensor"),
    ([torch.zeros(3, 4, 4), torch.zeros(1, 4, 4)], ValueError, r"images\[1\] .*channels of images"),
    ([torch.zeros(1, 3, 4, 4)], ValueError, r"images\[0\] has shape \(1, 3, 4, 4\).*with unbind"),
]


@pytest.mark.parametrize(("images", "error", "message"), LISTS)
def test_lists_that_are_no_images(images: Any, error: type[Exception], message: str) -> None:
    model = PixelNet(Convolutions(), PixelMLP([4, 6], (8,), out_features=5))
    with pytest.raises(error, match=message):
        model(images, torch.zeros(2, 1, 2))


# Samplers


def test_samplers_keep_to_each_image() -> None:
    valid = pixels_of_images(SIZES, (32, 40))
    assert valid.sum((1, 2)).tolist() == [h * w for h, w in SIZES]
    pixels = UniformSampler(50)(valid=valid)
    for points, (height, width) in zip(pixels.points, SIZES, strict=True):
        assert points[:, 0].max() < width
        assert points[:, 1].max() < height
    on_device = pixels_of_images(torch.tensor(SIZES), (32, 40))
    assert torch.equal(on_device, valid)


# Refused

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"strides": None}, ValueError, r"sizes of several images, but strides is None.*Give strides="),
    ({"image_size": SIZES[:2]}, ValueError, r"image_size has shape \(2, 2\) but .* 3 images"),
    ({"image_size": [(1, 2, 3)] * 3}, ValueError, r"image_size has shape \(3, 3\)"),
    ({"image_size": [(8, 8), (8,), (8, 8)]}, TypeError, r"expected \(height, width\), or one such"),
    ({"image_size": [(8, 0), (8, 8), (8, 8)]}, ValueError, r"must be at least 1 pixel"),
    ({"image_size": torch.rand(3, 2)}, TypeError, "image_size holds torch.float32; expected int"),
    ({"image_size": np.ones((3, 2), bool)}, TypeError, "image_size holds torch.bool"),
    ({"image_size": [(8, 8), 8, (8, 8)]}, TypeError, r"expected \(height, width\), or one such"),
    ({"align_corners": True}, ValueError, "strides cannot be combined with align_corners"),
    ({"strides": [1, 2]}, ValueError, "expected one entry for each of the 3 layers"),
    ({"points": torch.zeros(2, 5, 2), "coordinates": "unit"}, ValueError, "features hold 3 images"),
    (
        {"points": torch.full((3, 5, 2), torch.inf), "coordinates": "unit"},
        ValueError,
        "coordinates must be finite",
    ),
    (
        {
            "points": torch.zeros(5, 2),
            "coordinates": "unit",
            "batch_index": torch.tensor([0, 1, 2, 3, 0]),
        },
        ValueError,
        r"batch_index ranges over \[0, 3\]",
    ),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    maps, points = batch()
    good: dict[str, Any] = {"features": maps, "points": points, "image_size": SIZES}
    with pytest.raises(error, match=message):
        sparse_hypercolumn(**good | {"strides": STRIDES} | changes)
