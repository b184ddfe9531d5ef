"""`check_case`: one call of the public function, values and all gradients, against float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.reference import layer_positions
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from .cases import Case, Inputs, build
from .plain import plain_hypercolumn
from .poison import poisoned_memory
from .tolerances import TOLERANCES, assert_close_to_reference, coarsest

__all__ = ["check_case", "evaluate", "near_step", "upstream_gradient"]

Results = dict[str, Tensor]
Function = Callable[..., Tensor]

# How near a step of the interpolation, in cells, two correct programs may fall to either side.
_STEP_BAND = {torch.float64: 1e-9}
_STEP_BAND_SINGLE = 1e-4


@contextmanager
def _in_any_order() -> Iterator[None]:
    """`grid_sample` on a GPU has no deterministic gradient, and refuses where one is asked for."""
    asked = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(asked)


@contextmanager
def _defaulting_to(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def check_case(
    case: Case,
    device: torch.device | str = "cpu",
    *,
    seed: int = 0,
    function: Function | None = None,
    moving_points: bool = True,
    same_layout: bool = True,
    default_dtype: torch.dtype = torch.float32,
    **options: Any,
) -> None:
    """Assert that a case comes out right: dtype, layout, value and the gradient of every input.

    Two things that correct programs may see differently are left out of the comparison: points
    within rounding of a step of the interpolation (a cell border for "nearest", a cell centre
    for the derivative of "bilinear"), and the gradient of entries within rounding of ReLU's kink.

    Args:
        case: what to call. seed: of its numbers. device: where.
        function: called instead of `sparse_hypercolumn`.
        moving_points: whether floating points want a gradient.
        same_layout: whether gradients of maps have to be laid out as the maps.
        default_dtype: PyTorch's, while the function is called.
        options: passed on to the function, for instance plan="project".
    """
    inputs = build(case, device, seed)
    inputs.moving_points = moving_points
    expected_inputs = inputs.double()
    grad = upstream_gradient(inputs)
    near = near_step(expected_inputs)
    if case.interpolation == "nearest":
        grad = torch.where(near.reshape(*grad.shape[:-1], 1), 0, grad)

    expected = evaluate(reference_hypercolumn, expected_inputs, grad.double())
    with _in_any_order():
        plain = evaluate(plain_hypercolumn, inputs, grad)
    with poisoned_memory(), _defaulting_to(default_dtype):
        actual = evaluate(function or sparse_hypercolumn, inputs, grad, **options)
        # without gradients a call may take another way, such as GELU inside the product
        inference = (function or sparse_hypercolumn)(**inputs.arguments(**options))

    assert actual.keys() == expected.keys()
    for name, result in [*actual.items(), ("value", inference)]:
        source = inputs.tensors().get(name, inputs.features[0])
        assert result.dtype == source.dtype, f"{name}: {result.dtype}"
        if name.startswith("features") and function is None and same_layout:
            _assert_same_layout(result, source, name)
        rows: Any = slice(None)
        if name == "points" or (name == "value" and case.interpolation == "nearest"):
            kept = ~near.reshape(result.shape[:-1])
            # otherwise too little would be compared; single points may lie anywhere
            assert kept.sum() >= kept.numel() // 2 or case.spread in ("integer", "edges", "far"), (
                f"{name}: too few points are off a step"
            )
            rows = kept
        assert_close_to_reference(
            result[rows],
            expected[name][rows],
            plain[name][rows],
            dtype=coarsest(case.dtype, source.dtype),
            name=f"{case.name}: {'value' if name == 'value' else 'gradient of ' + name}",
        )


def evaluate(function: Function, inputs: Inputs, grad: Tensor, **options: Any) -> Results:
    """ "value", and the gradient of each of `inputs.tensors()` for the upstream gradient."""
    tensors = inputs.tensors()
    for tensor in tensors.values():
        tensor.requires_grad_()
    try:
        value = function(**inputs.arguments(**options))
        grads = torch.autograd.grad(
            value, list(tensors.values()), grad, allow_unused=True, materialize_grads=True
        )
    finally:
        for tensor in tensors.values():
            tensor.requires_grad_(False)
    return {"value": value.detach(), **dict(zip(tensors, grads, strict=True))}


def upstream_gradient(inputs: Inputs) -> Tensor:
    """A random gradient of the output, zero where ReLU's input is within rounding of zero."""
    case = inputs.case
    with torch.no_grad():
        exact = reference_hypercolumn(**inputs.double().arguments(activation=None))
        random = torch.Generator().manual_seed(1)
        grad = torch.randn(exact.shape, generator=random, dtype=torch.float64)
        grad = grad.to(exact.device, case.dtype)
        if case.activation == "relu" and exact.numel() > 0:
            plain = plain_hypercolumn(**inputs.arguments(activation=None)).double()
            tolerance = TOLERANCES[case.dtype]
            # twice what `assert_close_to_reference` allows an entry to be off
            band = 2 * (
                tolerance.ratio * (plain - exact).abs().max() + tolerance.floor * exact.abs().max()
            )
            grad = torch.where(exact.abs() <= band, 0, grad)
            assert (grad != 0).double().mean() > 0.9, "too few entries are off the kink"
    if not case.contiguous:
        grad = grad.transpose(0, -1).contiguous().transpose(0, -1)
    return grad


def near_step(inputs: Inputs) -> Tensor:
    """(P,) bool: whether rounding may take a point over a step, on any layer or axis."""
    case = inputs.case
    band = _STEP_BAND.get(case.dtype, _STEP_BAND_SINGLE)
    step = 0.5 if case.interpolation == "nearest" else 0.0
    sizes = [(rows, columns) for _, rows, columns in case.layers]
    points = inputs.points.reshape(-1, 2).double()
    near = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    positions = layer_positions(
        points,
        sizes,
        case.image_size,
        strides=case.strides,
        align_corners=case.align_corners,
        coordinates=case.coordinates,
    )
    height, width = case.image_size
    for (rows, columns), (tx, ty) in zip(sizes, positions, strict=True):
        for t, cells, pixels in ((tx, columns, width), (ty, rows, height)):
            one_pixel = case.coordinates == "pixel" and pixels == 1
            if case.align_corners and (cells == 1 or one_pixel):
                continue  # t is exactly 0 for every point
            close = ((t - step) - (t - step).round()).abs() < band
            near |= close & (t > -2) & (t < cells + 1)  # there are no steps beyond
    return near


def _assert_same_layout(grad: Tensor, feature: Tensor, name: str) -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        if feature.is_contiguous(memory_format=layout):
            assert grad.is_contiguous(memory_format=layout), (
                f"{name}: strides {feature.stride()}, of its gradient {grad.stride()}"
            )
