"""What is remembered of a call serves the calls that are alike, and no others."""

from __future__ import annotations

import pytest
import torch

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.call import CallShape, LayerShape, Options, Sampling, layer_geometry
from pixelnet_triton.op import forget_calls
from pixelnet_triton.op.executors import executor_for
from pixelnet_triton.op.known import Memory
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


def test_the_operator_knows_calls_by_all_that_plans_depend_on() -> None:
    geometry = layer_geometry([(6, 6)], (6, 6))
    maps, points, weight = torch.randn(2, 8, 6, 6), torch.rand(18, 2), torch.randn(4, 8)
    s = Sampling([maps], points, None, geometry)
    rows = maps.contiguous(memory_format=torch.channels_last)
    image = torch.zeros(18, dtype=torch.int64)
    calls = [
        lambda: executor_for(s, weight, "auto", False, False),
        lambda: executor_for(s._replace(features=[rows]), weight, "auto", False, False),
        lambda: executor_for(s._replace(points=points[:10]), weight, "auto", False, False),
        lambda: executor_for(s._replace(points=points.double()), weight, "auto", False, False),
        lambda: executor_for(s._replace(batch_index=image), weight, "auto", False, False),
        lambda: executor_for(s._replace(batch_index=image.int()), weight, "auto", False, False),
        lambda: executor_for(
            s._replace(geometry=layer_geometry([(6, 6)], (9, 9))), weight, "auto", False, False
        ),
        lambda: executor_for(s, weight[:2], "auto", False, False),
        lambda: executor_for(s, None, "auto", False, False),
        lambda: executor_for(s, weight, "two_step", False, False),
        lambda: executor_for(s, weight, "auto", True, False),
        lambda: executor_for(s, weight, "auto", True, True),
    ]
    first, second = ([call() for call in calls] for _ in range(2))
    assert all(a is b for a, b in zip(first, second, strict=True))
    assert len({id(executor) for executor in first}) == len(calls)
    as_many = s._replace(points=torch.rand(20, 2))
    assert executor_for(as_many, weight, "auto", False, False) is first[0]
    forget_calls()
    assert calls[0]() is not first[0]


def test_a_memory_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelnet_triton.op.known._MOST", 3)
    memory: Memory[int] = Memory()
    for i in range(5):
        assert memory.keep(i, i) == i
    assert memory == {3: 3, 4: 4}
    forget_calls()
    assert not memory
