"""The special cases of the public function, over the kernels: borders, ties, far points, NaN."""

from __future__ import annotations

import pytest
import torch

from pixelnet_triton.kernels.launch import precision

from ..test_image_sizes import test_whole_pixels_are_the_cells_to_the_bit  # noqa: F401
from ..test_more_derivatives import test_a_third_derivative  # noqa: F401
from ..test_seen_elsewhere import test_pypose_122  # noqa: F401
from ..test_sparse_hypercolumn import (  # noqa: F401
    test_bad_numbers_stay_with_the_points_that_see_them,
    test_derivative_at_cell_centres_and_borders,
    test_inputs_are_left_as_they_were,
    test_nearest_takes_halves_to_the_even_cell,
    test_points_beyond_the_range_of_an_index,
)


def test_float32_is_multiplied_in_tf32_where_torch_is_asked_to_alone() -> None:
    assert precision(torch.float32) == "ieee"
    torch.set_float32_matmul_precision("high")
    try:
        assert precision(torch.float32) == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_knows_nothing_of_tf32(dtype: torch.dtype) -> None:
    torch.set_float32_matmul_precision("high")
    try:
        assert precision(dtype) != "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")
