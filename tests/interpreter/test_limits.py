"""What only the kernels can get wrong: marks instead of exceptions, and very large maps."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from pixelnet_triton import Plan, sparse_hypercolumn
from pixelnet_triton.call import Geometry, Sampling
from pixelnet_triton.kernels.bilinear import number, stride_across
from pixelnet_triton.kernels.gather import gather
from pixelnet_triton.kernels.launch import coded, decoded
from pixelnet_triton.op import compute

PLANS = [
    "one_pass",
    "two_step",
    Plan(("project", "project")),
    Plan(("gather", "project"), "two_step"),
]


def _maps() -> list[Tensor]:
    return [torch.randn(2, 5, 6, 7), torch.randn(2, 18, 3, 4)]


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where nobody waits to look at the points' values."""
    monkeypatch.setattr(compute, "check_values", lambda *arguments: None)


@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
@pytest.mark.parametrize("plan", [None, *PLANS], ids=str)
@pytest.mark.usefixtures("unchecked")
def test_points_that_are_not_finite_give_rows_of_nan(
    plan: str | Plan | None, padding_mode: str
) -> None:
    points = torch.rand(2, 9, 2) * 20
    bad = [(0, 2, float("nan")), (0, 5, float("inf")), (1, 0, -float("inf"))]
    for image, n, value in bad:
        points[image, n, n % 2] = value
    options = {} if plan is None else {"weight": torch.randn(40, 23), "plan": plan}
    value = sparse_hypercolumn(_maps(), points, (24, 28), padding_mode=padding_mode, **options)
    marked = torch.isnan(value)
    assert (marked.all(dim=2) == marked.any(dim=2)).all()
    assert marked.any(dim=2).nonzero().tolist() == [[image, n] for image, n, _ in bad]


@pytest.mark.parametrize("plan", [None, *PLANS], ids=str)
@pytest.mark.usefixtures("unchecked")
def test_images_that_do_not_exist_give_rows_of_nan(plan: str | Plan | None) -> None:
    index = torch.tensor([0, 1, 2, -1, 1, 1 << 20])
    points = torch.rand(6, 2) * 20
    options = {} if plan is None else {"weight": torch.randn(40, 23), "plan": plan}
    value = sparse_hypercolumn(_maps(), points, (24, 28), batch_index=index, **options)
    expected = [False, False, True, True, False, True]
    assert torch.isnan(value).any(dim=1).tolist() == expected
    assert torch.isnan(value).all(dim=1).tolist() == expected


def test_maps_beyond_2_31_elements() -> None:
    """Offsets past 2^31 are 64-bit. Of the other kernels the compile gate reads it in the code."""
    feature = torch.empty(1, 2, 33000, 33000, dtype=torch.float16)
    assert feature.numel() > 2**31
    for c in range(2):
        for y in (32998, 32999):
            for x in (32998, 32999):
                feature[0, c, y, x] = 1 + c + 10 * (y == 32999) + 100 * (x == 32999)
    points = torch.tensor([[32998.5, 32998.25]])
    identity = Geometry(((1.0, 0.0, 1.0, 0.0),))
    value = gather(Sampling([feature], points, None, identity))
    torch.testing.assert_close(value, torch.tensor([[53.5, 54.5]], dtype=torch.float16))


@triton.jit
def _number_kernel(out, codes):
    for i in tl.static_range(len(codes)):
        tl.store(out + i, number(codes[i]))


class _Layer(NamedTuple):
    across: int


@triton.jit
def _stride_kernel(out, layers):
    for i in tl.static_range(len(layers)):
        tl.store(out + i, stride_across(layers[i]))


def test_strides_of_channels_come_through_at_their_limits() -> None:
    """A map (64, 1, 4096, 4096) turned about has one of 2^30, whose code is the largest int32."""
    numbers = (0, 1, 2, 2**30 - 1, 2**30, 2**30 + 1, 2**33)
    out = torch.empty(len(numbers), dtype=torch.int64)
    _stride_kernel[(1,)](out, tuple([_Layer(2 * number - 1) for number in numbers]))
    assert tuple(out.tolist()) == numbers


def test_numbers_come_through_at_their_limits() -> None:
    """2^30 - 2 has a code that is the largest odd int32 there is; a stride may be 2^30."""
    numbers = (0, 1, 2, 2**30 - 2, 2**30 - 1, 2**30, 2**31, 2**33)
    codes = tuple(map(coded, numbers))
    assert tuple(map(decoded, codes)) == numbers
    out = torch.empty(len(numbers), dtype=torch.int64)
    _number_kernel[(1,)](out, codes)
    assert tuple(out.tolist()) == numbers
