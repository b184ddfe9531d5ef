"""The public function, values and all gradients, over every kind of call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pixelnet_triton import Plan, sparse_hypercolumn
from pixelnet_triton.call import PLAN_NAMES
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from .cases import CASES, DTYPE_CASES, Case, build, case_id
from .check import check_case
from .conftest import takes_float64
from .poison import poisoned_memory


@pytest.mark.parametrize("case", CASES + DTYPE_CASES, ids=case_id)
def test_values_and_gradients(case: Case, device: torch.device) -> None:
    if case.dtype == torch.float64 and not takes_float64(device):
        pytest.skip("the kernels do not compute in float64")
    check_case(case, device)


PYRAMID = ((24, 16, 20), (100, 8, 10), (3, 4, 5))
PLAN_CASES = [
    Case("border", PYRAMID, image_size=(32, 40), activation="relu").linear(),
    Case("zeros", PYRAMID, image_size=(32, 40), padding_mode="zeros", spread="outside").linear(),
    Case("nearest", PYRAMID, image_size=(32, 40), interpolation="nearest").linear(),
    Case("ragged", PYRAMID, image_size=(32, 40), ragged=True, bias=False).linear(),
    Case(
        "images-without-points", PYRAMID, image_size=(32, 40), batch=9, points=3, ragged=True
    ).linear(),
    Case("channels_last", PYRAMID, image_size=(32, 40), layout="channels_last").linear(),
    Case("bfloat16", PYRAMID, image_size=(32, 40), dtype=torch.bfloat16).linear(),
    Case("no-points", PYRAMID, image_size=(32, 40), points=0).linear(),
]
PLANS = [
    *PLAN_NAMES,
    Plan(("gather", "project", "project"), "one_pass"),
    Plan(("project", "gather", "project"), "two_step"),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p if isinstance(p, str) else p.encode())
@pytest.mark.parametrize("case", PLAN_CASES, ids=case_id)
def test_every_plan_is_right(case: Case, plan: str | Plan, device: torch.device) -> None:
    check_case(case, device, plan=plan)


def test_case_names_are_unique() -> None:
    names = [case.name for case in CASES + DTYPE_CASES]
    assert len(set(names)) == len(names)


def test_derivative_at_cell_centres_and_borders(device: torch.device) -> None:
    """The right-hand difference at a cell's centre; none on the border of the map or beyond."""
    feature = torch.tensor([1.0, 2.0, 4.0, 8.0], device=device).reshape(1, 1, 1, 4)
    x = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, 2.5, 3.0, 4.0], device=device)
    points = torch.stack([x, torch.zeros_like(x)], dim=1)[None].requires_grad_()
    slopes = {
        "border": [0.0, 0.0, 1.0, 2.0, 4.0, 4.0, 0.0, 0.0],
        "zeros": [1.0, 1.0, 1.0, 2.0, 4.0, 4.0, -8.0, 0.0],
    }
    for padding_mode, expected in slopes.items():
        value = sparse_hypercolumn([feature], points, (1, 4), padding_mode=padding_mode)
        (grad,) = torch.autograd.grad(value.sum(), points)
        assert grad[0, :, 0].tolist() == expected, padding_mode


@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
def test_nearest_takes_halves_to_the_even_cell(padding_mode: str, device: torch.device) -> None:
    feature = torch.tensor([1.0, 2.0, 4.0, 8.0], device=device).reshape(1, 1, 1, 4)
    x = torch.tensor([-0.75, -0.5, 0.5, 1.5, 2.5, 3.25, 3.5], device=device)
    points = torch.stack([x, torch.zeros_like(x)], dim=1)[None]
    value = sparse_hypercolumn(
        [feature], points, (1, 4), interpolation="nearest", padding_mode=padding_mode
    )
    outside = {"border": (1.0, 8.0), "zeros": (0.0, 0.0)}[padding_mode]
    assert value.flatten().tolist() == [outside[0], 1.0, 1.0, 4.0, 4.0, 8.0, outside[1]]


@pytest.mark.parametrize("far", [1e6, 1e30, -1e30], ids=str)
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_points_beyond_the_range_of_an_index(
    interpolation: str, far: float, device: torch.device
) -> None:
    inputs = build(Case("far", ((3, 4, 6), (2, 1, 1)), batch=1, points=3), device)
    inputs.points[0, 1] = far
    for padding_mode in ("border", "zeros"):
        options = {"interpolation": interpolation, "padding_mode": padding_mode}
        actual = sparse_hypercolumn(**inputs.arguments(**options))
        expected = reference_hypercolumn(**inputs.arguments(**options))
        torch.testing.assert_close(actual, expected)


def test_no_points_give_gradients_of_zero(device: torch.device) -> None:
    """Zeros, which an optimizer takes as such, and not None."""
    inputs = build(Case("no-points", points=0).linear(), device)
    for tensor in inputs.tensors().values():
        tensor.requires_grad_()
    sparse_hypercolumn(**inputs.arguments()).sum().backward()
    for name, tensor in inputs.tensors().items():
        assert tensor.grad is not None, name
        assert not tensor.grad.any(), name


@pytest.mark.parametrize("name", ["features", "points", "weight", "bias"])
def test_inputs_are_left_as_they_were(name: str, device: torch.device) -> None:
    inputs = build(Case("intact", activation="relu").linear(), device)
    twin = build(inputs.case, device)
    for tensor in inputs.tensors().values():
        tensor.requires_grad_()
    sparse_hypercolumn(**inputs.arguments()).sum().backward()
    before, after = twin.arguments()[name], inputs.arguments()[name]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_bad_numbers_stay_with_the_points_that_see_them(device: torch.device) -> None:
    """NaN in one cell of one image: the points away from it are untouched."""
    feature = torch.ones(2, 8, 8, 8, device=device)
    feature[1, :, 6, 6] = float("nan")
    points = torch.tensor([[[0, 0], [6, 6]], [[0, 0], [6, 6]]], device=device)
    for weight in (None, torch.ones(16, 8, device=device)):
        value = sparse_hypercolumn([feature], points, (8, 8), weight=weight)
        bad = value.isnan().all(dim=2)
        assert bad.tolist() == [[False, False], [False, True]]
        assert value[~bad].isfinite().all()


SIZES: list[Any] = [torch.Size((12, 16)), [12, 16], np.array([12, 16]), torch.tensor([12, 16])]
SIZES += [tuple(np.array([12, 16])), (torch.tensor(12), np.uint8(16))]
STRIDES: list[Any] = [
    (2, (4, 4)),
    [np.int64(2), np.array([4, 4])],
    (torch.tensor(2), np.float32(4)),
]
STRIDES += [np.array([2, 4]), torch.tensor([2.0, 4.0]), [2, [4, 4]]]


def test_sizes_and_strides_are_numbers_of_any_kind(device: torch.device) -> None:
    inputs = build(Case("numbers", ((8, 6, 8), (5, 3, 4)), image_size=(12, 16)), device)
    expected = sparse_hypercolumn(**inputs.arguments(strides=[2, 4]))
    for size in SIZES:
        for strides in STRIDES:
            value = sparse_hypercolumn(**inputs.arguments(image_size=size, strides=strides))
            assert torch.equal(value, expected)
        assert torch.equal(sparse_hypercolumn(**inputs.arguments(image_size=size)), expected)


@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
@pytest.mark.parametrize("ragged", [False, True], ids=["uniform", "ragged"])
@pytest.mark.parametrize(
    "dtype",
    [torch.int64, torch.uint8, torch.int32, torch.bool, torch.uint16, torch.uint32],
    ids=str,
)
def test_labels_are_taken_from_the_nearest_cells(
    dtype: torch.dtype, ragged: bool, padding_mode: str, device: torch.device
) -> None:
    """As maps of float64 would be, and of integers that even these cannot hold."""
    case = Case("labels", ((2, 9, 11), (1, 3, 4)), image_size=(18, 22), spread="outside", points=40)
    case = replace(case, interpolation="nearest", padding_mode=padding_mode, ragged=ragged)
    inputs = build(case, device)
    inputs.features = [(feature * 50).long().to(dtype) for feature in inputs.features]
    value = sparse_hypercolumn(**inputs.arguments(strides=[2, 6]))
    floats = [feature.double() for feature in inputs.features]
    expected = reference_hypercolumn(**inputs.arguments(features=floats, strides=[2, 6]))
    assert value.dtype == dtype
    assert torch.equal(value, expected.to(dtype))
    if dtype == torch.int64:
        moved = sparse_hypercolumn(
            **inputs.arguments(features=[f + 2**60 for f in inputs.features], strides=[2, 6])
        )
        assert torch.equal(moved[moved != 0], (value + 2**60)[moved != 0])


def test_rows_of_labels_that_cannot_be_checked_are_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: an image that does not exist is not the last, nor a point of NaN the first."""
    monkeypatch.setattr("pixelnet_triton.op.labels.values_at_hand", lambda tensor: False)
    labels = torch.arange(1, 19).reshape(2, 1, 3, 3)
    nan, inf = float("nan"), float("inf")
    points = torch.tensor([[1, 1], [1, 1], [nan, 1], [0, -inf], [2, 2]])
    index = torch.tensor([-1, 2, 0, 1, 1])
    value = sparse_hypercolumn([labels], points, (3, 3), batch_index=index, interpolation="nearest")
    assert value.flatten().tolist() == [0, 0, 0, 0, 18]


def test_a_map_read_with_the_other_sign() -> None:
    """torch marks such views, whose memory holds the numbers negated."""
    feature = torch.randn(1, 5, 4, 4, dtype=torch.complex64).conj().imag
    assert feature.is_neg()
    points = torch.rand(1, 9, 2) * 3
    value = sparse_hypercolumn([feature], points, (4, 4))
    expected = sparse_hypercolumn([feature.resolve_neg()], points, (4, 4))
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("members", [(), (3,)], ids=["layer", "ensemble"])
@pytest.mark.parametrize("images", [[], [1] * 40, [2, 0] * 800], ids=["none", "one", "two"])
def test_images_without_points_get_gradients_of_zero(
    images: list[int], members: tuple[int, ...], device: torch.device
) -> None:
    """Also beyond the size up to which a CPU keeps the hypercolumns."""
    feature = torch.randn(4, 200, 4, 5, device=device, requires_grad=True)
    weight = torch.randn(*members, 6, 200, device=device, requires_grad=True)
    points = torch.rand(len(images), 2, device=device) * 10
    index = torch.tensor(images, dtype=torch.int64, device=device)
    value = sparse_hypercolumn([feature], points, (8, 10), weight=weight, batch_index=index)
    assert value.shape == (len(images), *members, 6)
    value.sum().backward()
    seen = torch.zeros(4, dtype=torch.bool, device=device)
    seen[index] = True
    assert torch.equal(feature.grad.flatten(1).any(1), seen)
    assert weight.grad.any() == bool(images)


@pytest.mark.parametrize("plan", ["auto", "gather", "project"])
def test_gradients_of_no_outputs_are_zero(plan: str, device: torch.device) -> None:
    feature = torch.randn(2, 3, 6, 7, device=device, requires_grad=True)
    weight = torch.zeros(0, 3, device=device, requires_grad=True)
    points = (torch.rand(2, 9, 2, device=device) * 8).requires_grad_()
    with poisoned_memory():
        value = sparse_hypercolumn([feature], points, (8, 8), weight=weight, plan=plan)
        gradients = torch.autograd.grad(value.sum(), (feature, points, weight))
    assert value.shape == (2, 9, 0)
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("shape", [(2, 0, 2), (0, 2), (0, 5, 2)], ids=str)
def test_labels_of_no_points(shape: tuple[int, ...], device: torch.device) -> None:
    images = 0 if shape == (0, 5, 2) else 2
    labels = torch.zeros(images, 1, 6, 8, dtype=torch.uint8, device=device)
    index = torch.zeros(0, dtype=torch.int64, device=device) if len(shape) == 2 else None
    value = sparse_hypercolumn(
        [labels],
        torch.zeros(shape, device=device),
        (6, 8),
        interpolation="nearest",
        batch_index=index,
    )
    assert value.shape == (*shape[:-1], 1)
    assert value.dtype == torch.uint8


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation")
def test_quantised_maps_are_no_labels() -> None:
    """Their integers mean nothing without scale and zero point."""
    quantised = torch.quantize_per_tensor(torch.zeros(1, 1, 4, 4), 0.5, 10, torch.quint8)
    with pytest.raises(TypeError, match=r"features\[0\] is torch.quint8; expected float32"):
        sparse_hypercolumn([quantised], torch.zeros(1, 2, 2), (4, 4), interpolation="nearest")


def test_labels_are_refused_where_they_would_be_averaged(device: torch.device) -> None:
    labels, points = [torch.zeros(1, 1, 4, 4, dtype=torch.int64)], torch.rand(1, 2, 2)
    labels, points = [labels[0].to(device)], points.to(device)
    with pytest.raises(TypeError, match=r"features\[0\] is torch.int64; .*interpolation='nearest'"):
        sparse_hypercolumn(labels, points, (4, 4))
    with pytest.raises(ValueError, match="points has shape"):
        sparse_hypercolumn(labels, points[0], (4, 4), interpolation="nearest")
