"""What is remembered of a call serves the calls that are alike, and no others."""

from __future__ import annotations

import pytest
import torch

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.call import CallShape, LayerShape, Options
from pixelnet_triton.op.prepare import prepare
from pixelnet_triton.planner.profiles import SHIPPED
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from .planning import choose


@pytest.mark.parametrize("size", [(16, 16), [16, 16]], ids=["tuple", "list"])
def test_strides_belong_to_the_call(size: tuple[int, int] | list[int]) -> None:
    features, points = [torch.randn(1, 3, 8, 8)], torch.rand(1, 20, 2) * 15
    for stride in (2.0, 1.5, 2.0):
        value = sparse_hypercolumn(features, points, size, strides=[stride])
        expected = reference_hypercolumn(features, points, (16, 16), strides=[stride])
        torch.testing.assert_close(value, expected)


def test_the_layout_of_maps_belongs_to_the_call() -> None:
    planes = [torch.randn(2, 8, 6, 6)]
    rows = [planes[0].contiguous(memory_format=torch.channels_last)]
    points, weight = torch.rand(2, 9, 2), torch.randn(4, 8)
    calls = [
        prepare(maps, points, None, weight, None, Options((6, 6))) for maps in (planes, rows, rows)
    ]
    assert calls[0] is not calls[1]
    assert calls[1] is calls[2]


def test_only_what_is_left_to_the_planner_keeps_hypercolumns() -> None:
    """A named plan promises the memory of its name; a plan itself says what it keeps."""
    call = CallShape((LayerShape(4, 6, 6, channels_last=False),), 1, 20, 8, may_keep=True)
    auto = choose("auto", call, SHIPPED["cpu"])
    assert auto.route is not None
    assert auto.route.by_autograd
    for name in ("gather", "project", "two_step"):
        named = choose(name, call, SHIPPED["cpu"])
        assert named.route is not None
        assert not named.route.by_autograd
