"""Points in half precision are served, and warned of: once at a place, and in no graph."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.op import forget_calls

MAPS = [torch.rand(1, 2, 4, 6)]
HALVES = [(torch.float16, 2048), (torch.bfloat16, 256)]


def called(points: Tensor) -> Tensor:
    # A plan that is named keeps nothing: eager or compiled, the route is one.
    return sparse_hypercolumn(MAPS, points, (8, 12), plan="gather")


@pytest.mark.parametrize(("dtype", "limit"), HALVES)
def test_the_warning_has_the_limit_and_the_remedy(dtype: torch.dtype, limit: int) -> None:
    assert torch.tensor(limit + 1, dtype=dtype) == limit != limit + 1  # what it warns of
    forget_calls()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for n in (3, 4):  # two kinds of calls at one place
            called(torch.ones(1, n, 2, dtype=dtype))
    (warning,) = seen
    assert warning.filename == __file__
    assert f"points is {dtype}" in str(warning.message)
    assert f"up to {limit} only" in str(warning.message)
    assert ".float()" in str(warning.message)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16])
def test_other_points_are_not_warned_of(dtype: torch.dtype) -> None:
    forget_calls()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        called(torch.ones(1, 3, 2, dtype=dtype))


def test_no_graph_is_broken() -> None:
    points = torch.ones(1, 3, 2, dtype=torch.float16)
    expected = called(points.float())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "points is")
        compiled = torch.compile(called, backend="eager", fullgraph=True)
        assert torch.equal(compiled(points), expected)
