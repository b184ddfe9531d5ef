"""Calls of about as many points, or on images of similar size, share what took time to find."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pixelnet_triton import DeviceProfile, sparse_hypercolumn
from pixelnet_triton.call import CallShape, LayerShape, Route, Sampling, layer_geometry
from pixelnet_triton.call.shape import bucket
from pixelnet_triton.gpu import backend
from pixelnet_triton.op import forget_calls
from pixelnet_triton.op.prepare import _KNOWN
from pixelnet_triton.planner.choose import _kept, _searched
from pixelnet_triton.planner.profiles import SHIPPED

from .cases import Case
from .check import check_case
from .planning import choose, model, used_plan

# Numbers of points


def test_buckets_have_three_significant_bits() -> None:
    last = 0
    for points in range(5000):
        nearest = bucket(points)
        assert abs(nearest - points) <= points / 8
        assert nearest >= last
        assert (
            nearest >> max(0, nearest.bit_length() - 3) << max(0, nearest.bit_length() - 3)
            == nearest
        )
        last = nearest


def test_choices_are_kept_by_shape() -> None:
    maps = [torch.randn(1, 16, 8, 8)]
    forget_calls()
    asked = {"ragged": True, "training": True}
    first = used_plan("auto", maps, 2000, 64, **asked)
    before = _kept.cache_info()
    assert used_plan("auto", maps, 2047, 64, **asked) is first
    assert _kept.cache_info().hits > before.hits
    assert used_plan("auto", maps, 4000, 64, **asked) is not first
    last = [maps[0].contiguous(memory_format=torch.channels_last)]
    assert used_plan("auto", last, 2000, 64, **asked) is not first
    assert _kept.cache_info().maxsize is not None


@pytest.mark.parametrize("plan", ["auto", "project", "two_step"])
@pytest.mark.parametrize("ragged", [False, True], ids=["shares", "ragged"])
def test_about_as_many_points_are_calls_of_one_kind(
    ragged: bool, plan: str, device: torch.device
) -> None:
    """Prepared once, and each computed for its own number of points."""
    case = Case("as-many", ((24, 9, 11), (40, 5, 6)), out_features=24, ragged=ragged)
    forget_calls()
    known: set[int] = set()
    for points in (74, 86, 80, 74):
        points = points if ragged else points // 2
        check_case(replace(case, points=points), device, moving_points=False, plan=plan)
        known.add(len(_KNOWN))
    assert len(known) == 1
    check_case(replace(case, points=4 * points), device, moving_points=False, plan=plan)
    assert len(_KNOWN) > min(known)


def test_a_call_like_one_before_is_checked_where_it_differs() -> None:
    maps, points = [torch.randn(2, 8, 6, 6)], torch.rand(70, 2)
    index = torch.zeros(70, dtype=torch.int64)
    sparse_hypercolumn(maps, points, (6, 6), batch_index=index)
    with pytest.raises(ValueError, match=r"batch_index has shape \(69,\)"):
        sparse_hypercolumn(maps, points, (6, 6), batch_index=index[:-1])
    with pytest.raises(ValueError, match=r"batch_index has shape \(70, 1\)"):
        sparse_hypercolumn(maps, points, (6, 6), batch_index=index[:, None])
    sparse_hypercolumn(maps, points.view(2, 35, 2), (6, 6))
    for shape in ((1, 70, 2), (5, 14, 2), (2, 70, 1), (140,), (2, 5, 7, 2)):
        with pytest.raises(ValueError, match=r"points has shape"):
            sparse_hypercolumn(maps, points.reshape(shape), (6, 6))


def test_executors_of_a_gpu_remember_no_more_kinds_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of them together, since each size of image has an executor."""
    monkeypatch.setattr(backend, "MOST_KINDS", 4)
    monkeypatch.setattr(backend, "_KNOWN", {})
    steps: Any = SimpleNamespace(settings=lambda dtype: None)
    route = Route("", "", ("gather",), ())
    executors = [backend.Launches(route, steps) for _ in range(2)]
    maps, geometry = [torch.zeros(1, 8, 4, 4)], layer_geometry([(4, 4)], (4, 4))
    for points in (16, 20, 16, 24, 28, 32):
        known = []
        for executor in (*executors, *executors):
            s = Sampling(maps, torch.zeros(points, 2), None, geometry)
            executor._recall(s)
            known.append(s.known)
        assert known[0] is known[2] is not known[1] is known[3]
        assert len(backend._KNOWN) <= 4


# Sizes of images


@pytest.mark.parametrize("halved", [math.floor, math.ceil])
def test_images_of_similar_size_have_one_shape(halved: Callable[[float], int]) -> None:
    """The longest side is off by a sixteenth at most, the others by as much and a cell."""
    found: set[CallShape] = set()
    for side in range(256, 513):
        sides = [side]
        while len(sides) < 6:
            sides.append(halved(sides[-1] / 2))
        layers = tuple(LayerShape(8 + i, rows, 7, i > 3) for i, rows in enumerate(sides))
        shape = CallShape((*layers, LayerShape(5, 100, 7)), 2, 100, 5)
        rounded = shape.rounded()
        for old, new in zip(shape.layers, rounded.layers, strict=True):
            assert abs(new.rows - old.rows) <= old.rows / 16 + (old.rows < side)
            assert new == replace(old, rows=new.rows)
        assert replace(rounded, layers=shape.layers) == shape
        found.add(rounded)
    assert len(found) <= 10


@pytest.mark.parametrize("profile", ["cpu", "H200"])
def test_a_plan_for_images_of_similar_size_is_as_good(profile: str) -> None:
    """By the model: hardly slower than one for the very sizes."""
    draw, rates, regrets = random.Random(1), SHIPPED[profile], []
    for _ in range(400):
        height, width = draw.randint(16, 300), draw.randint(16, 300)
        last = draw.random() < 0.5
        layers = tuple(
            LayerShape(draw.choice((3, 8, 64, 256)), -(-height // s), -(-width // s), last)
            for s in (1, 2, 4, 8, 16)[: draw.randint(1, 5)]
        )
        batch, itemsize = draw.choice((1, 4)), 2 if rates.kind == "gpu" else 4
        points, outputs = draw.choice((50, 500, 2000, 5000)), draw.choice((0, 8, 64, 1024))
        training = draw.random() < 0.5
        shape = CallShape(layers, batch, batch * points, outputs, itemsize, training=training)
        plan, cost = choose("auto", shape, rates), model(shape, rates)
        assert plan.route is not None
        assert cost.backend.fits(cost.shape, plan, plan.route)
        regrets.append(cost.seconds(plan) / cost.seconds(cost.cheapest()))
    assert max(regrets) < 1.1
    assert sum(regrets) / len(regrets) < 1.001


@pytest.mark.parametrize("profile", SHIPPED.values(), ids=SHIPPED.keys())
def test_images_of_similar_size_share_a_search(profile: DeviceProfile) -> None:
    draw = random.Random(0)
    forget_calls()
    for _ in range(300):
        height, width = draw.randint(320, 640), draw.randint(320, 640)
        layers = [
            LayerShape(channels, -(-height // stride), -(-width // stride))
            for channels, stride in ((64, 1), (128, 2), (256, 4), (512, 8), (512, 16))
        ]
        choose("auto", CallShape(tuple(layers), 1, 2048, 256, 4), profile)
    searches = _searched.cache_info()
    assert searches.misses <= 81
    assert searches.hits + searches.misses == 300
