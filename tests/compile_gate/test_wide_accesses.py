"""16-byte loads and stores, for the shapes at which they are easily lost.

Triton widens an access whose offset it knows to be divisible, and knows by itself only of strides
divisible by 16. The launchers tell it of the rest.
"""

from __future__ import annotations

import pytest
import torch

from pixelnet_triton.call import Geometry, Sampling
from pixelnet_triton.kernels.gather import gather

from .launches import AFFINE, IMAGES, KERNELS, Problem, channels_last
from .machine_code import Instructions, instructions, resources
from .targets import compiling_for

# Rows of 24 + 104 + 40 = 168 columns: in eights, as channels, columns and rows all are here.
EIGHTS = Problem(torch.bfloat16, channels=(24, 104, 40), sizes=((28, 28), (14, 14), (7, 7)))

# Coordinates are given as float64, 8 bytes each, so that every narrower load is one of features.
POINTS = torch.zeros(200, 2, dtype=torch.float64)


def compile_gather(
    maps: list[torch.Tensor], bilinear: bool = True, border: bool = True, ragged: bool = False
) -> Instructions:
    batch_index = torch.zeros(len(POINTS), dtype=torch.int64) if ragged else None
    geometry = Geometry(
        (AFFINE,) * len(maps),
        "bilinear" if bilinear else "nearest",
        "border" if border else "zeros",
    )
    with compiling_for("sm_90") as launches:
        gather(Sampling(maps, POINTS, batch_index, geometry))
    assert resources(launches[0].compiled).spills == 0
    return instructions(launches[0].compiled)


@pytest.mark.parametrize(
    "name",
    ["gather", "coordinate_gradient", "one_pass", "mask"],
)
def test_rows_in_eights(name: str) -> None:
    with compiling_for("sm_90") as launches:
        KERNELS[name].launch(EIGHTS, None)
    launch = launches[0]
    counts = instructions(launch.compiled)
    assert resources(launch.compiled).spills == 0
    # A loop over single elements has dozens of these; the bias takes one or two.
    assert counts.loads[2] < 4, counts
    assert counts.stores[2] == 0, counts


def test_gradients_in_eights_are_stored_16_bytes_at_a_time() -> None:
    """But for numbers that are not finite, which go cell by cell, once for each layer."""
    with compiling_for("sm_90") as launches:
        KERNELS["scatter"].launch(EIGHTS, None)
    (launch,) = launches
    counts = instructions(launch.compiled)
    assert resources(launch.compiled).spills == 0
    assert counts.stores[16] >= len(EIGHTS.channels)
    assert counts.stores[2] <= len(EIGHTS.channels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("channels", [8, 24, 4096])
def test_channels_in_eights(channels: int, dtype: torch.dtype) -> None:
    counts = compile_gather([channels_last(channels, (7, 9), dtype)])
    assert set(counts.loads) == {16, 8}


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_dimensions_of_size_one(size: tuple[int, int]) -> None:
    """PyTorch may give a dimension of size 1 any stride; that of a 1x1 map says nothing."""
    counts = compile_gather([channels_last(64, size, torch.bfloat16)])
    assert set(counts.loads) == {16, 8}


@pytest.mark.parametrize(
    ("bilinear", "border", "ragged"), [(True, False, True), (False, True, False)]
)
def test_modes(bilinear: bool, border: bool, ragged: bool) -> None:
    counts = compile_gather([channels_last(64, (7, 7), torch.bfloat16)], bilinear, border, ragged)
    assert set(counts.loads) == {16, 8}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_corners_that_come_one_by_one_do_not_spill(dtype: torch.dtype) -> None:
    maps = [m.contiguous() for m in Problem(dtype).sampling.features]
    with compiling_for("sm_90") as launches:
        gather(Sampling(maps, POINTS, None, Geometry((AFFINE,) * len(maps))))
    assert resources(launches[0].compiled).spills == 0


def test_an_nchw_map_is_read_by_single_elements() -> None:
    """The counter-example: where there are no such loads, they are found missing."""
    counts = compile_gather([torch.empty(IMAGES, 64, 7, 7, dtype=torch.bfloat16)])
    assert counts.loads[16] == 0
    assert counts.loads[2] >= 4
