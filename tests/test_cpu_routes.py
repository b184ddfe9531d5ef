"""The ways in which the CPU back end may compute one and the same call, each forced on every case.

Which of them a call takes depends on its size; test cases are small, so without force most would
go one way. Points want no gradient here: with one, fewer ways are open (test_sparse_hypercolumn).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.memory import saved_storages
from pixelnet_triton import calls, sparse_hypercolumn
from pixelnet_triton.cpu import maps, native, small

from .cases import CASES, DTYPE_CASES, Case, build, case_id
from .luck import check_but_for_luck

HUGE = 1 << 40
# name -> may keep hypercolumns, prefers grid_sample, cells a corner that make a map sparse,
# corners that are few
ROUTES = {
    "small": (True, True, 1, 128),
    "grid_sample": (False, True, 1, 128),
    "lists": (False, False, HUGE, 0),
    "cell-by-cell": (False, False, 0, 0),
    "few": (False, False, HUGE, HUGE),
}


@pytest.fixture(params=ROUTES)
def route(request: Any, monkeypatch: pytest.MonkeyPatch, device: torch.device) -> str:
    if device.type != "cpu":
        pytest.skip("about the CPU back end")
    keeps, grid_sample, sparse, few = ROUTES[request.param]
    monkeypatch.setattr(small, "keeps_hypercolumns", lambda *sizes: keeps)
    monkeypatch.setattr(native, "prefers_grid_sample", lambda *sizes: grid_sample)
    monkeypatch.setattr(native, "reads_by_grid_sample", lambda *sizes: grid_sample)
    monkeypatch.setattr(maps, "SPARSE_CELLS_PER_CORNER", sparse)
    monkeypatch.setattr(maps, "SPARSE_ROWS_PER_CORNER", sparse)
    monkeypatch.setattr(maps, "FEW_ENTRIES", few)
    monkeypatch.setattr(calls, "_KNOWN", {})
    return request.param


# Large enough for points that are neither few nor in every cell, several strips of planes, and
# an image that ragged points leave out.
LARGER = [
    Case("wide", ((150, 20, 23), (40, 9, 7)), points=60, image_size=(40, 46)),
    Case("wide-int", ((33, 20, 23),), points=90, image_size=(20, 23), point_dtype=torch.int64),
    Case(
        "wide-ragged",
        ((150, 20, 23), (7, 3, 4)),
        batch=4,
        points=25,
        image_size=(40, 46),
        ragged=True,
    ),
    Case(
        "wide-last",
        ((150, 20, 23), (40, 9, 7)),
        points=60,
        image_size=(40, 46),
        layout="channels_last",
    ),
]
ALL = [*CASES, *DTYPE_CASES, *LARGER, *(case.linear() for case in LARGER)]


@pytest.mark.parametrize("case", ALL, ids=case_id)
def test_every_route_is_right(route: str, case: Case, device: torch.device) -> None:
    check_but_for_luck(case, device, moving_points=False, same_layout=route != "small")


@pytest.mark.parametrize(("points", "keeps"), [(300, True), (3000, False)])
def test_small_calls_keep_their_hypercolumns_and_larger_ones_do_not(
    points: int, keeps: bool, device: torch.device
) -> None:
    if device.type != "cpu":
        pytest.skip("about the CPU back end")
    feature = torch.randn(1, 96, 20, 20, requires_grad=True)
    weight = torch.randn(8, 96, requires_grad=True)
    at = torch.rand(1, points, 2) * 20
    with saved_storages([feature, weight, at]) as saved:
        sparse_hypercolumn([feature], at, (20, 20), weight=weight)
    hypercolumns = points * 96 * 4
    assert sum(saved.values()) == (hypercolumns + at.nbytes if keeps else 0)
    assert not keeps or sum(saved.values()) <= 1 << 20


def test_small_calls_have_a_right_second_derivative_or_none(device: torch.device) -> None:
    if device.type != "cpu":
        pytest.skip("about the CPU back end")
    case = Case("twice", ((2, 4, 5), (3, 2, 3)), points=6, image_size=(8, 10), dtype=torch.float64)
    inputs = build(case.linear(3), device)
    inputs.moving_points = False
    names, tensors = zip(*inputs.tensors().items(), strict=True)
    for tensor in tensors:
        tensor.requires_grad_()

    def function(*values: Tensor) -> Tensor:
        named = dict(zip(names, values, strict=True))
        features = [named[f"features[{i}]"] for i in range(2)]
        rest = {"weight": named["weight"], "bias": named["bias"]}
        return sparse_hypercolumn(**inputs.arguments(features=features, **rest))

    try:
        assert torch.autograd.gradgradcheck(function, tensors)
    except RuntimeError as error:  # up to some torch between 2.6 and 2.13
        assert "grid_sampler_2d_backward is not implemented" in str(error)  # noqa: PT017


def test_ragged_points_of_very_uneven_images(device: torch.device) -> None:
    """All but one lie in one image of ten: padding would be most of the work."""
    index = torch.full((40,), 3, device=device)
    index[17] = 8
    feature = torch.randn(10, 6, 5, 5, device=device)
    points = torch.randint(0, 5, (40, 2), device=device)
    found = sparse_hypercolumn([feature], points, (5, 5), batch_index=index)
    expected = feature[index, :, points[:, 1], points[:, 0]]
    torch.testing.assert_close(found, expected)
