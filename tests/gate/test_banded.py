"""The banded product against float64: every tile, mix of layers, order and kind of points.

On a GPU (PIXELNET_TEST_DEVICE=cuda; Hopper or later) or in Triton's interpreter.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ..tolerances import assert_close_to_reference
from .conftest import needs_kernels

pytestmark = [needs_kernels, pytest.mark.usefixtures("a_device_with_tma")]
pytest.importorskip("triton")

from pixelnet_triton.kernels import banded as kernels  # noqa: E402
from pixelnet_triton.kernels.select import Tile  # noqa: E402

from .banded_calls import LAYERS, OUTPUTS, call  # noqa: E402

DTYPES = (torch.float16, torch.bfloat16)
# The layers that are projected.
MIXES = ((1, 2), (0, 1, 2, 3), (2,), (3, 0))


@pytest.fixture(params=DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.mark.parametrize("tile", kernels.CHOICES, ids=lambda t: f"{t.columns}-{t.num_warps}")
@pytest.mark.parametrize("projected", MIXES, ids=str)
def test_values(
    dtype: torch.dtype, device: torch.device, projected: tuple[int, ...], tile: Tile
) -> None:
    a = call(dtype, device)
    a.check(a.run(projected, tile))


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("ragged", [False, True], ids=["shares", "ragged"])
def test_conventions(device: torch.device, padding: str, interpolation: str, ragged: bool) -> None:
    a = call(
        torch.float16, device, padding=padding, interpolation=interpolation, ragged=ragged,
        layout="contiguous_format",
    )  # fmt: skip
    a.check(a.run((1, 2)))


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_activations(device: torch.device, activation: str | None, bias: bool) -> None:
    for padding in ("border", "zeros"):
        a = call(torch.float16, device, activation=activation, bias=bias, padding=padding)
        a.check(a.run((2, 3)))


@pytest.mark.parametrize("bias", [4.0, 32.0])
def test_a_bias_is_added_before_sums_are_rounded(device: torch.device, bias: float) -> None:
    """It may cancel a mean, as that of a folded batch norm does."""
    a = call(torch.bfloat16, device, activation=None)
    a.s.features[0][:, 0] = 1
    a.head.weight[:, 0] = -bias
    assert a.head.bias is not None
    a.head.bias.fill_(bias)
    a.check(a.run((1, 2)))


@pytest.mark.parametrize(("batch", "points"), [(7, 1), (60, 3), (3, 127), (1, 129), (2, 128)])
def test_tiles_that_meet_several_images(device: torch.device, batch: int, points: int) -> None:
    a = call(torch.float16, device, batch=batch, points=points)
    a.check(a.run((1, 3)))


# The interpreter multiplies by NumPy, which has something to say about infinity times 0.
careless = pytest.mark.filterwarnings("ignore:invalid value encountered")


def assert_bad(actual: Tensor, exact: Tensor, plain: Tensor, rows: Tensor, good: Tensor) -> None:
    """No number of `rows` is finite, and those of `good` are as if nothing had happened."""
    assert rows.any()
    assert good.any()
    assert not actual[rows].isfinite().any()
    assert_close_to_reference(
        actual[good], exact[good], plain[good], dtype=actual.dtype, name="other points"
    )


@careless
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("layer", [0, 1])
def test_bad_numbers_of_a_map_stay_with_the_points_that_see_them(
    device: torch.device, layer: int, value: float
) -> None:
    a = call(torch.bfloat16, device, activation=None, outputs=40)
    exact, plain = a.expected(torch.float64), a.expected(torch.bfloat16)
    _, rows, width = LAYERS[layer]
    a.s.features[layer][1, 0, rows // 2, width // 2] = value
    weights = a.matrices[layer][:, rows * width + rows // 2 * width + width // 2]
    # A weight that the dtype rounds to 0 may do either.
    actual = a.run((1, 2, 3))
    assert_bad(actual, exact, plain, weights > 1e-3, weights == 0)


@careless
def test_a_projected_cell_beyond_the_range_of_half_precision(device: torch.device) -> None:
    a = call(torch.float16, device, activation=None, outputs=40)
    a.s.features[1][1, :, 2, 3] = 60000
    a.head.weight[:, 8:28] = a.head.weight[:, 8:28].abs()
    exact, plain = a.expected(torch.float64), a.expected(torch.float16)
    weights = a.matrices[1][:, 35 + 2 * 7 + 3]
    assert_bad(a.run((1, 2, 3)), exact, plain, weights > 1e-3, weights == 0)


@pytest.mark.parametrize("column", [0, 10])
def test_a_bad_weight_stays_with_its_output(device: torch.device, column: int) -> None:
    a = call(torch.float16, device, activation=None)
    exact, plain = a.expected(torch.float64).t(), a.expected(torch.float16).t()
    a.head.weight[77, column] = float("nan")
    output = torch.arange(OUTPUTS, device=device) == 77
    assert_bad(a.run((1, 2, 3)).t(), exact, plain, output, ~output)


@pytest.mark.parametrize("projected", [(1, 2), (0, 1, 2, 3)], ids=str)
def test_points_that_are_none(device: torch.device, projected: tuple[int, ...]) -> None:
    """Not finite, or in an image that does not exist: a row of NaN, of which a ReLU makes no 0."""
    a = call(torch.float16, device, ragged=True, points=70, outputs=40)
    exact, plain = a.expected(torch.float64), a.expected(torch.float16)
    bad = torch.zeros(140, dtype=torch.bool, device=device)
    for p, value in ((3, float("nan")), (20, float("inf")), (139, -float("inf"))):
        a.s.points[p, p % 2] = value
        bad[p] = True
    assert a.s.batch_index is not None
    for p, image in ((5, -1), (50, 2), (51, 1 << 30)):
        a.s.batch_index[p] = image
        bad[p] = True
    actual = a.run(projected)
    assert actual[bad].isnan().all()
    assert_bad(actual, exact, plain, bad, ~bad)
