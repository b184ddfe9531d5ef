"""Malformed calls: a documented exception, or the right answer; nothing else.

A well-formed call is damaged in one to three arguments. Either `TypeError`, `ValueError` or
`RuntimeError` comes of it, with a message; or the result is that of the reference for the very
same arguments. A crash, a hang, another exception or another answer is a failure.
"""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import event, given
from torch import Tensor, nn

from pixelnet_triton import Plan, sparse_hypercolumn
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from ..test_bad_inputs import good_call, ragged
from .examples import examples

DOCUMENTED = (TypeError, ValueError, RuntimeError)

NOTHING = [
    None,
    True,
    0,
    1,
    -1,
    1.5,
    math.nan,
    math.inf,
    2**70,
    "",
    "auto",
    b"x",
    (),
    [],
    {},
    object,
]
SHAPES = st.lists(st.integers(0, 5), max_size=5).map(tuple)
DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


def damaged(tensor: Tensor) -> st.SearchStrategy[Any]:
    """Versions of a tensor: most of them wrong, some of them only unusual."""
    changes: list[Any] = [
        lambda t: t.double(),
        lambda t: t.half(),
        lambda t: t.long(),
        lambda t: t.to(torch.complex64),
        lambda t: t > 0,
        lambda t: t[None],
        lambda t: t[0],
        lambda t: t[..., :-1],
        lambda t: t[:1],
        lambda t: t[:0],
        lambda t: torch.cat([t, t]),
        lambda t: t.transpose(0, -1),
        lambda t: t.flip(0),
        lambda t: t.flatten(),
        lambda t: t.to_sparse(),
        lambda t: t.to("meta"),
        lambda t: t.numpy(),
        lambda t: t.tolist(),
        lambda t: nn.Parameter(t) if t.is_floating_point() else t,
        lambda t: t.as_subclass(Subclass),
        lambda t: torch.complex(t, -t).conj().imag if t.dtype == torch.float32 else t,  # lazy minus
        lambda t: torch.full_like(t, math.nan) if t.is_floating_point() else t - 7,
        lambda t: torch.full_like(t, math.inf) if t.is_floating_point() else t + 7,
        lambda t: torch.full_like(t, 3e38) if t.dtype == torch.float32 else t * 2**60,
        lambda t: t.expand(t.shape),
        lambda t: inference(t),
    ]
    return st.sampled_from(changes).map(lambda change: change(tensor))


class Subclass(Tensor):
    """A tensor by inheritance alone."""


def inference(tensor: Tensor) -> Tensor:
    with torch.inference_mode():
        return tensor.clone()


def noise() -> st.SearchStrategy[Any]:
    """Values that have nothing to do with the argument."""
    random = st.builds(
        lambda shape, dtype: torch.zeros(shape).to(dtype), SHAPES, st.sampled_from(DTYPES)
    )
    return st.sampled_from(NOTHING) | random | st.builds(np.zeros, SHAPES)


@st.composite
def malformed(draw: st.DrawFn) -> dict[str, Any]:
    """Keyword arguments of `sparse_hypercolumn`, one to three of them damaged."""
    torch.manual_seed(0)
    call = good_call()
    if draw(st.booleans()):
        call |= ragged()
    call |= {
        "batch_index": call.get("batch_index"),
        "activation": None,
        "strides": None,
        "interpolation": "bilinear",
        "align_corners": False,
        "padding_mode": "border",
        "coordinates": "pixel",
        "plan": "auto",
    }
    names = draw(st.lists(st.sampled_from(sorted(call)), min_size=1, max_size=3, unique=True))
    for name in names:
        call[name] = draw(value_for(name, call[name]))
    return call


def value_for(name: str, good: Any) -> st.SearchStrategy[Any]:
    """Something else than `good` for the argument of that name."""
    if isinstance(good, Tensor):
        return damaged(good) | noise()
    if name == "features":
        first, second = good
        return (
            damaged(second).map(lambda t: [first, t])
            | st.tuples(damaged(first), damaged(second))
            | st.sampled_from([[first], [first, second, second], (first, second), iter(good)])
            | noise()
        )
    if name == "image_size":
        size = st.integers(-2, 2**40) | st.floats() | st.booleans() | st.none()
        return st.tuples(size, size) | st.lists(size, max_size=3) | noise()
    if name == "strides":
        stride = st.floats() | st.integers(-1, 9) | st.tuples(st.floats(), st.integers(-1, 9))
        return st.lists(stride | noise(), max_size=3) | noise()
    if name == "plan":
        return st.sampled_from(["gather", "project", "", Plan(("gather",) * 2)]) | noise()
    return st.sampled_from(["relu", "gelu", "nearest", "zeros", "unit", "RELU"]) | noise()


@given(call=malformed(), gradient=st.booleans())
@examples(quick=400, thorough=20_000)
def test_a_malformed_call_is_refused_or_right(call: dict[str, Any], gradient: bool) -> None:
    sparse_hypercolumn(**good_call())  # whatever is remembered of good calls must not help
    try:
        if gradient and isinstance(call["weight"], Tensor) and call["weight"].is_floating_point():
            call["weight"] = call["weight"].detach().requires_grad_()
        value = sparse_hypercolumn(**call)
    except DOCUMENTED as error:
        event(f"refused: {type(error).__name__}")
        says_something = len(str(error)) > 20
    else:
        event("answered")
        says_something = True
        assert_right(value, call)
        if value.requires_grad:
            value.sum().backward()
    assert says_something, "an exception without a message"


def assert_right(value: Tensor, call: dict[str, Any]) -> None:
    """The reference says the same of the same arguments, in float64."""
    arguments = {k: v for k, v in call.items() if k != "plan"}

    def wide(tensor: Any) -> Any:
        return tensor.detach().double() if isinstance(tensor, Tensor) else tensor

    arguments["features"] = [wide(f) for f in call["features"]]
    for name in ("weight", "bias"):
        arguments[name] = wide(call[name])
    expected = reference_hypercolumn(**arguments)
    assert value.shape == expected.shape
    numbers = [*call["features"], *(t for t in (call["weight"], call["bias"]) if t is not None)]
    if any(t.numel() and t.abs().max() > torch.finfo(t.dtype).max ** 0.5 for t in numbers):
        return  # products and sums overflow, in any order but not in the same
    value = value.detach().double()
    finite = torch.isfinite(expected)
    # What is infinite in one order of operations may be NaN in another, but not a number in any.
    assert not torch.isfinite(value[~finite]).any()
    torch.testing.assert_close(value[finite], expected[finite], rtol=0.02, atol=0.02)
