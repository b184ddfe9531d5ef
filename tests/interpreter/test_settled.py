"""What the first call of a kind works out serves the next; it holds on to none of its tensors."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelnet_triton import Plan, sparse_hypercolumn
from pixelnet_triton.call import (
    CallShape,
    Executor,
    LayerShape,
    Linear,
    Route,
    Sampling,
    Wanted,
    layer_geometry,
)
from pixelnet_triton.gpu import BACKEND
from pixelnet_triton.gpu import backward as gpu_backward
from pixelnet_triton.gpu.backend import load
from pixelnet_triton.kernels import select

SHAPE = CallShape((LayerShape(8, 5, 6), LayerShape(16, 3, 3)), 2, 14, 16)
GEOMETRY = layer_geometry([(5, 6), (3, 3)], (10, 12))
ALL = Wanted((True, True), True, True, True)
ROUTES = [
    (("gather", "gather"), ("scatter", "scatter")),
    (("gather", "project_rows"), ("scatter", "collect")),
    (("gather", "project_band"), ("collect", "collect")),
    (("fused_linear", "project_rows"), ("collect", "scatter")),
    (("project_rows", "project_rows"), ("scatter", "collect")),
]


def executor(read: tuple[str, ...], write: tuple[str, ...]) -> Executor:
    plan = Plan(("gather", "gather"), "two_step", Route("", "", read, write))
    return BACKEND.executor(SHAPE, GEOMETRY, plan)


def tensors(seed: int, ragged: bool, count: int = 14) -> list[Tensor]:
    """Maps, points, weight, bias, gradient and output, then the image of each point."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).bfloat16()

    maps = [draw(2, 8, 5, 6), draw(2, 16, 3, 3).to(memory_format=torch.channels_last)]
    points = 12 * torch.rand(count, 2, generator=random)
    image = [torch.randint(2, (count,), generator=random)] if ragged else []
    return [*maps, points, draw(16, 24), draw(16), draw(count, 16), draw(count, 16), *image]


def results(executor: Executor, given: list[Tensor], wanted: Wanted) -> list[Tensor | None]:
    first, second, points, weight, bias, grad, output, *image = given
    s = Sampling([first, second], points, image[0] if image else None, GEOMETRY)
    head = Linear(weight, bias, "relu")
    value = executor.forward(s, head)
    found = executor.backward(s, head, grad, output, wanted)
    return [value, *found.features, found.points, found.weight, found.bias]


@pytest.mark.parametrize("wanted", [ALL, ALL._replace(points=False)], ids=["points", "no points"])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("read", "write"), ROUTES)
def test_calls_of_a_kind(
    read: tuple[str, ...], write: tuple[str, ...], ragged: bool, wanted: Wanted
) -> None:
    known = executor(read, write)
    first = tensors(1, ragged)
    kept = [weakref.ref(t) for t in [*first, *results(known, first, wanted)] if t is not None]
    del first
    gc.collect()
    assert not [reference for reference in kept if reference() is not None]
    for count in (14, 16):  # planned for alike
        second = tensors(2, ragged, count)
        expected = results(executor(read, write), second, wanted)
        for ours, theirs in zip(results(known, second, wanted), expected, strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or torch.equal(ours, theirs)


def test_the_order_of_the_forward_pass_serves_the_backward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through the public function, whose backward pass is another visit to the executor."""
    made = []

    def counted(s: Sampling) -> Any:
        made.append(s)
        return order_points(s)

    order_points = gpu_backward.order_points
    monkeypatch.setattr(gpu_backward, "order_points", counted)
    monkeypatch.setattr(load(), "order_points", counted)
    first, second, points, weight, bias, *_ = tensors(3, False)
    gradients = []
    for read in ("project_band", "gather"):
        route = Route("", "", ("gather", read), ("scatter", "collect"))
        plan = Plan(("gather", "project"), "two_step", route)
        leaves = [t.clone().requires_grad_() for t in (first, second, weight, bias)]
        value = sparse_hypercolumn(
            leaves[:2], points.view(2, 7, 2), (10, 12), weight=leaves[2], bias=leaves[3], plan=plan
        )
        gradients.append(torch.autograd.grad(value.sum(), leaves))
        assert len(made) == 1
        made.clear()
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("has_weight", [True, False])
def test_gradients_of_points_by_image_come_as_they_like(has_weight: bool) -> None:
    """(B, N, D) with strides that no view of (P, D) has, in the first call of a kind and later."""
    first, second, points, weight, *_ = tensors(5, False)
    maps = [first.requires_grad_(), second.requires_grad_()]
    head = weight if has_weight else None
    across = torch.randn(2, 16 if has_weight else 24, 7).bfloat16().transpose(1, 2)
    gradients = []
    for grad in (across, across.contiguous(), across):
        value = sparse_hypercolumn(maps, points.view(2, 7, 2), (10, 12), weight=head)
        gradients.append(torch.autograd.grad(value, maps, grad))
    for found in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, gradients[0], strict=True))


def test_settings_are_looked_at_in_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = load()
    assert steps.settings(torch.bfloat16) == steps.settings(torch.bfloat16)
    before = steps.settings(torch.float32)
    torch.set_float32_matmul_precision("high")
    after = steps.settings(torch.float32)
    torch.set_float32_matmul_precision("highest")
    assert after != before
    asked: list[str] = []

    def tuner(question: select.Question) -> None:
        asked.append(question.kernel)

    known = executor(*ROUTES[0])
    results(known, tensors(1, False), ALL)
    monkeypatch.setattr(select, "_tuner", tuner)
    for _ in range(2):
        results(known, tensors(1, False), ALL)
    assert asked == ["gather", "gather", "scatter", "coordinate_gradient"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    results(known, tensors(1, False), ALL)
    assert len(asked) == 8


def test_what_is_known_is_told_apart() -> None:
    """By layers, by the role of tensors in their place, and by points in another order."""
    first, second, points, *_ = tensors(4, False)
    s = Sampling([first, second], points, None, GEOMETRY)
    makers = [
        lambda: s,
        lambda: s.of([0]),
        lambda: s.of([1]),
        lambda: s.of([0, 1]),
        lambda: s.of([0], [first.float()], "gradients"),
        lambda: s.at(points.flip(0), None),
        lambda: s.at(points.flip(0), None).of([0]),
    ]
    for i, make in enumerate(makers):
        assert make().once("number", lambda i=i: i) == i  # type: ignore[misc]
    assert [make().once("number", lambda: -1) for make in makers] == list(range(len(makers)))
    assert Sampling([first, second], points, None, GEOMETRY).once("number", lambda: -1) == -1
