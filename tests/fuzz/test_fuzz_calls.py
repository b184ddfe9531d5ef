"""Any well-formed call, with any plan, is right: values and all gradients against float64.

`tests/test_properties.py` draws shapes, layouts and conventions; here the plan of each layer, the
activation, the dtype of points and indices, points at edges and far away, PyTorch's default dtype
and the memory around the maps are drawn as well.
"""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, event, example, given
from torch import Tensor

from pixelnet_triton import Plan, sparse_hypercolumn
from pixelnet_triton.call import MODES, PLAN_NAMES, STRATEGIES
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from ..cases import Case, build
from ..conftest import takes_float64
from ..luck import check_but_for_luck, off_steps, off_the_kink
from ..test_properties import cases
from .examples import examples

POINT_DTYPES = [torch.float32, torch.float64, torch.float16, torch.int64, torch.int16, torch.uint8]
INDEX_DTYPES = [torch.int64, torch.int32, torch.int16, torch.uint8]


@st.composite
def calls(draw: st.DrawFn) -> tuple[Case, str | Plan]:
    """A case and a plan for its layers."""
    case = draw(cases())
    changes: dict[str, object] = {"spread": draw(st.sampled_from(SPREADS))}
    if case.dtype != torch.float64:
        dtype = draw(st.sampled_from(POINT_DTYPES))
        if dtype.is_floating_point or case.coordinates == "pixel":
            changes["point_dtype"] = dtype
            if not dtype.is_floating_point:  # within the image, and expected on steps
                changes["spread"] = "integer"
    changes["index_dtype"] = draw(st.sampled_from(INDEX_DTYPES))
    if case.out_features is not None:
        changes["activation"] = draw(st.sampled_from([None, "relu", "gelu"]))
    per_layer = st.lists(
        st.sampled_from(STRATEGIES), min_size=len(case.layers), max_size=len(case.layers)
    )
    explicit = st.builds(Plan, per_layer.map(tuple), st.sampled_from(MODES))
    return replace(case, **changes), draw(st.sampled_from(PLAN_NAMES) | explicit)


ON_STEPS = ("integer", "edges", "far")  # of which check_case does not ask it
SPREADS = ["inside", "outside", "edges", "integer", "duplicates", "far"]
DEFAULTS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


# What failed once is written down here as @example((Case(...), plan), seed=...).
@given(call=calls(), seed=st.integers(0, 2**16), default=st.sampled_from(DEFAULTS))
@example(
    call=(Case("empty", points=0).linear(3), Plan(("project", "gather"))),
    seed=0,
    default=torch.float32,
)
@example(
    call=(
        Case(
            "ends",
            ((1, 1, 1), (1, 1, 1), (1, 1, 7), (2, 3, 7)),
            batch=1,
            points=5,
            image_size=(7, 1),
            dtype=torch.float64,
            point_dtype=torch.float64,
            spread="edges",
            strides=(1.0, 1.0, 1.0, 1.0),
            padding_mode="zeros",
            coordinates="unit",
        ).linear(1),
        "project",
    ),
    seed=0,
    default=torch.float32,
)
@example(
    call=(
        Case(
            "corners",
            ((1, 1, 1), (1, 1, 9), (5, 7, 7)),
            batch=3,
            points=4,
            image_size=(1, 2),
            spread="outside",
            align_corners=True,
            padding_mode="zeros",
        ),
        "auto",
    ),
    seed=7,
    default=torch.float32,
)
@examples(quick=200, thorough=10_000)
def test_any_call_is_right(
    call: tuple[Case, str | Plan], seed: int, default: torch.dtype, device: torch.device
) -> None:
    case, plan = call
    assume(case.dtype != torch.float64 or takes_float64(device))
    event(f"plan {plan if isinstance(plan, str) else 'of each layer'}")
    event(f"points {case.point_dtype}")
    assume(case.activation != "relu" or off_the_kink(case, seed))
    # Points that want a gradient close the way that small calls take otherwise.
    moving = seed % 2 == 0
    layout = (moving and case.point_dtype.is_floating_point) or plan != "auto"
    assume(case.spread in ON_STEPS or off_steps(case, seed))
    event(f"points {case.spread}, maps {case.layout}")
    check_but_for_luck(
        case,
        device,
        seed=seed,
        moving_points=moving,
        same_layout=layout,
        default_dtype=default,
        plan=plan,
    )


@st.composite
def cell_centres(draw: st.DrawFn) -> tuple[Case, Tensor]:
    """A case whose first layer has a whole stride, and cells (B, N, 2) of it as (x, y)."""
    case = draw(cases())
    strides = tuple(draw(st.integers(1, 8)) for _ in case.layers)
    _, rows, columns = case.layers[0]
    number = draw(st.integers(1, 20))
    places = st.tuples(st.integers(0, columns - 1), st.integers(0, rows - 1))
    cells = draw(st.lists(places, min_size=case.batch * number, max_size=case.batch * number))
    exact = replace(
        case,
        image_size=(rows * strides[0], columns * strides[0]),
        points=number,
        ragged=False,
        strides=strides,
        align_corners=False,
        coordinates="pixel",
        out_features=None,
        point_dtype=torch.float64 if case.dtype == torch.float64 else torch.float32,
    )
    return exact, torch.tensor(cells).view(case.batch, number, 2)


@given(drawn=cell_centres(), integers=st.booleans(), plan=st.sampled_from(["auto", "gather"]))
@examples(quick=200, thorough=5000)
def test_centres_of_cells_are_the_cells_to_the_bit(
    drawn: tuple[Case, Tensor], integers: bool, plan: str, device: torch.device
) -> None:
    """Beside layers with strides of their own, with and without a gradient."""
    if device.type != "cpu":
        pytest.skip("the bits of any stride are the CPU back end's")
    case, cells = drawn
    assume(case.dtype != torch.float64 or takes_float64(device))
    assert case.strides is not None
    inputs = build(case, device)
    points = cells * case.strides[0] + (case.strides[0] - 1) / 2
    integers = integers and case.strides[0] % 2 == 1
    inputs.points = points.to(device, torch.int64 if integers else case.point_dtype)
    event(f"{'integer' if integers else 'floating'} points, maps {case.layout}, {case.dtype}")
    feature = inputs.features[0]
    image = torch.arange(case.batch)[:, None]
    expected = feature[image, :, cells[..., 1], cells[..., 0]]
    for wanted in (False, True):
        feature.requires_grad_(wanted)
        value = sparse_hypercolumn(**inputs.arguments(plan=plan))
        assert torch.equal(value[..., : feature.shape[1]], expected)


@given(case=cases(), seed=st.integers(0, 2**16), data=st.data())
@examples(quick=100, thorough=5000)
def test_each_of_several_sizes_is_alone(
    case: Case, seed: int, data: st.DataObject, device: torch.device
) -> None:
    """Images of any size on the canvas, and beyond what its maps have cells for."""
    side, stride = st.integers(1, 45), st.floats(0.25, 9, width=16) | st.integers(1, 8)
    sizes = [(data.draw(side), data.draw(side)) for _ in range(case.batch)]
    case = replace(
        case,
        strides=tuple(data.draw(stride) for _ in case.layers),
        align_corners=False,
        interpolation="bilinear",
        out_features=None,
        dtype=torch.float32,
        point_dtype=torch.float32,
    )
    inputs = build(case, device, seed)
    value = sparse_hypercolumn(**inputs.arguments(image_size=sizes))
    expected = reference_hypercolumn(**inputs.double().arguments(image_size=torch.tensor(sizes)))
    # Up to 180 cells from the origin in float32, times differences of neighbouring cells.
    torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-3)
