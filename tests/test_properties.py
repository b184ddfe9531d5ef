"""Properties of any call, on random shapes, strides and points."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import torch
from hypothesis import assume, example, given, settings
from torch import Tensor

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from .cases import Case, build
from .check import check_case
from .conftest import takes_float64

SIZES = st.integers(1, 9)
LAYOUTS = ["nchw", "channels_last", "sliced", "chunk", "batch", "transposed", "expanded"]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any case whose fields make sense together."""
    layers = draw(st.lists(st.tuples(SIZES, SIZES, SIZES), min_size=1, max_size=4))
    align_corners = draw(st.booleans())
    stride = st.floats(0.25, 9, width=16) | st.integers(1, 8)
    strides = None
    if not align_corners and draw(st.booleans()):
        number_or_pair = stride | st.tuples(stride, stride)
        strides = tuple(draw(number_or_pair) for _ in layers)
    ragged = draw(st.booleans())
    dtype = draw(st.sampled_from(DTYPES))
    return Case(
        "drawn",
        tuple(layers),
        batch=draw(st.integers(1, 3)),
        points=draw(st.integers(0, 20)),
        image_size=(draw(st.integers(1, 40)), draw(st.integers(1, 40))),
        out_features=draw(st.none() | st.integers(1, 20)),
        bias=draw(st.booleans()),
        dtype=dtype,
        point_dtype=torch.float64 if dtype == torch.float64 else torch.float32,
        spread=draw(st.sampled_from(["inside", "outside", "duplicates"])),
        layout=draw(st.sampled_from(LAYOUTS)),
        contiguous=draw(st.booleans()),
        ragged=ragged,
        strides=strides,
        interpolation=draw(st.sampled_from(["bilinear", "nearest"])),
        align_corners=align_corners,
        padding_mode=draw(st.sampled_from(["border", "zeros"])),
        coordinates=draw(st.sampled_from(["pixel", "unit", "normalized"])),
    )


@given(case=cases(), seed=st.integers(0, 9), plan=st.sampled_from(["auto", "gather", "project"]))
def test_any_case_is_right(case: Case, seed: int, plan: str, device: torch.device) -> None:
    assume(case.dtype != torch.float64 or takes_float64(device))
    check_case(case, device, seed=seed, plan=plan)


FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
NEAR = st.floats(-3, 12, width=16) | st.sampled_from([-0.5, 0.0, 0.5, 1.0, 3.5, 7.0, 7.5, 8.0])


@given(
    points=st.lists(st.tuples(NEAR | FINITE, NEAR | FINITE), min_size=1, max_size=8),
    padding_mode=st.sampled_from(["border", "zeros"]),
    align_corners=st.booleans(),
)
def test_any_finite_point_has_a_value(
    points: list[tuple[float, float]],
    padding_mode: str,
    align_corners: bool,
    device: torch.device,
) -> None:
    """Steps and borders hit exactly, and coordinates far beyond the range of an index."""
    random = torch.Generator().manual_seed(0)
    features = [torch.randn(1, 2, *size, generator=random) for size in ((4, 8), (3, 5), (1, 1))]
    options: dict[str, Any] = {"padding_mode": padding_mode, "align_corners": align_corners}
    where = torch.tensor([points])
    expected = reference_hypercolumn(
        [feature.double() for feature in features], where, (8, 8), **options
    )
    actual = sparse_hypercolumn(
        [feature.to(device) for feature in features], where.to(device), (8, 8), **options
    )
    # positions up to 8 cells in float32, times differences of neighbouring cells
    torch.testing.assert_close(actual.cpu().double(), expected, rtol=0, atol=2e-5)


# The grids of its maps are alike but for a rounding error of doubles.
ALIKE = Case(
    "alike",
    layers=((1, 1, 5), (1, 1, 2)),
    batch=1,
    points=1,
    image_size=(1, 3),
    dtype=torch.float64,
    point_dtype=torch.float64,
)


# A map whose grid counts from its corners, if that were asked of all maps at once.
CORNERS = replace(ALIKE, name="corners", layers=((1, 1, 1), (1, 4, 3)), points=2, image_size=(1, 1))


@given(case=cases(), seed=st.integers(0, 9))
@example(case=ALIKE, seed=0)
@example(case=CORNERS, seed=0)
def test_layers_are_independent(case: Case, seed: int, device: torch.device) -> None:
    """The hypercolumn of all layers is that of each layer, side by side, to the bit."""
    assume(case.dtype != torch.float64 or takes_float64(device))
    inputs = build(replace(case, out_features=None), device, seed)
    parts = []
    for i, feature in enumerate(inputs.features):
        stride = None if case.strides is None else case.strides[i : i + 1]
        parts.append(sparse_hypercolumn(**inputs.arguments(features=[feature], strides=stride)))
    hypercolumn = sparse_hypercolumn(**inputs.arguments())
    assert torch.equal(hypercolumn, torch.cat(parts, dim=-1))


@given(case=cases(), seed=st.integers(0, 9))
def test_border_padding_averages(case: Case, seed: int, device: torch.device) -> None:
    """No value leaves the range of its channel, and a constant map stays constant."""
    assume(case.dtype != torch.float64 or takes_float64(device))
    case = replace(case, padding_mode="border", out_features=None, layers=case.layers[:1])
    case = replace(case, strides=None if case.strides is None else case.strides[:1])
    inputs = build(case, device, seed)
    (feature,) = inputs.features
    slack = 4 * torch.finfo(case.dtype).eps * feature.abs().max()
    value = sparse_hypercolumn(**inputs.arguments()).reshape(-1, feature.shape[1])
    assert (value <= feature.amax((0, 2, 3)) + slack).all()
    assert (value >= feature.amin((0, 2, 3)) - slack).all()


@given(case=cases(), seed=st.integers(0, 9), data=st.data())
def test_order_of_points_is_the_callers(
    case: Case, seed: int, data: st.DataObject, device: torch.device
) -> None:
    assume(case.dtype != torch.float64 or takes_float64(device))
    inputs = build(replace(case, ragged=True), device, seed)
    order = torch.tensor(data.draw(st.permutations(range(case.points))), dtype=torch.int64)

    def pick(tensor: Tensor) -> Tensor:
        return tensor[order.to(device)]

    expected = pick(sparse_hypercolumn(**inputs.arguments()))
    actual = sparse_hypercolumn(
        **inputs.arguments(points=pick(inputs.points), batch_index=pick(inputs.batch_index))
    )
    tolerance = 8 * torch.finfo(case.dtype).eps
    scale = expected.abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale)


def test_the_strategy_reaches_every_option() -> None:
    """The drawn cases are only as good as their variety."""
    seen: set[str] = set()

    @settings(max_examples=300)
    @given(case=cases())
    def look(case: Case) -> None:
        seen.update(
            [
                case.interpolation,
                case.padding_mode,
                case.coordinates,
                case.layout,
                str(case.dtype),
                f"ragged={case.ragged}",
                f"strides={case.strides is not None}",
                f"align={case.align_corners}",
                f"linear={case.out_features is not None}",
            ]
        )

    look()
    wanted = {"bilinear", "nearest", "border", "zeros", "pixel", "unit", "normalized"}
    wanted |= {*LAYOUTS, *map(str, DTYPES)}
    for flag in ("ragged", "strides", "align", "linear"):
        wanted |= {f"{flag}=True", f"{flag}=False"}
    assert wanted <= seen, wanted - seen
