"""Maps that are views: images that share one memory, and crops and chunks, are not copied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pixelnet_triton import sparse_hypercolumn

from .cases import Case, build
from .check import check_case


class Largest(TorchDispatchMode):
    """The largest memory, in bytes, that any operator's result lies in."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self.known:
                    self.bytes = max(self.bytes, storage.nbytes())
        return result


BOXES = 30


@pytest.fixture(autouse=True)
def _cpu_only(device: torch.device) -> None:
    if device.type != "cpu":
        pytest.skip("about the memory that the CPU takes")


@pytest.fixture
def images() -> list[Tensor]:
    return [torch.rand(1, 64, 32, 32), torch.rand(1, 24, 16, 16)]


@pytest.mark.parametrize("ragged", [False, True], ids=["uniform", "ragged"])
@pytest.mark.parametrize("points", [1, 40])
@pytest.mark.parametrize("plan", ["auto", "gather", "project"])
class TestSharedImages:
    def expected(
        self, images: list[Tensor], points: Tensor, index: Tensor | None, **options: Any
    ) -> Tensor:
        maps = [image.expand(BOXES, -1, -1, -1).contiguous() for image in images]
        return sparse_hypercolumn(maps, points, (64, 64), batch_index=index, **options)

    def test_are_one_image(
        self, plan: str, points: int, ragged: bool, images: list[Tensor]
    ) -> None:
        images = [image.double().requires_grad_() for image in images]
        weight = torch.rand(4, 88, dtype=torch.float64, requires_grad=True)
        at, index = torch.rand(BOXES, points, 2, dtype=torch.float64) * 64, None
        if ragged:
            at = at.flatten(0, 1)
            index = torch.randint(BOXES, (len(at),))
        at.requires_grad_()
        leaves = (*images, weight, at)
        options = {"weight": weight, "plan": plan}
        wanted = self.expected(images, at, index, **options)
        wanted_gradients = torch.autograd.grad(wanted.square().sum(), leaves)
        with Largest(*leaves) as largest:
            maps = [image.expand(BOXES, -1, -1, -1) for image in images]
            value = sparse_hypercolumn(maps, at, (64, 64), batch_index=index, **options)
            gradients = torch.autograd.grad(value.square().sum(), leaves)
        torch.testing.assert_close(value, wanted)
        for gradient, expected in zip(gradients, wanted_gradients, strict=True):
            torch.testing.assert_close(gradient, expected)
        columns = BOXES * points * 88 * 4 * 8  # at the four corners of each point
        assert largest.bytes <= max(images[0].nbytes, columns)


@pytest.mark.parametrize(
    "view",
    [
        lambda base: base[:1].expand(3, -1, -1, -1),
        lambda base: base[-1:].expand(3, -1, -1, -1),
        lambda base: base[0].expand(3, -1, -1, -1),
        lambda base: base[:1].mT.expand(3, -1, -1, -1),
        lambda base: base[:1, 1:].expand(3, -1, -1, -1),
    ],
    ids=["first", "last", "selected", "transposed", "channels"],
)
@pytest.mark.parametrize("images", [1, 2])
def test_what_the_images_are_a_view_of_gets_their_gradient(
    images: int, view: Callable[[Tensor], Tensor]
) -> None:
    """Where that is not just the image that they share, a gradient of one image would not fit."""
    base = torch.rand(images, 5, 8, 8, requires_grad=True)
    points = torch.rand(3, 4, 2) * 8
    feature = view(base)
    gradients = [
        torch.autograd.grad(sparse_hypercolumn([f], points, (8, 8)).square().sum(), base)[0]
        for f in (feature, feature.contiguous())
    ]
    torch.testing.assert_close(*gradients)


def test_gradients_of_each_image_are_kept_apart_where_asked_for() -> None:
    """The expanded map itself is the leaf, or keeps its gradient: an image's is its own."""
    points = torch.rand(3, 4, 2) * 8
    image = torch.rand(1, 5, 8, 8, requires_grad=True)
    leaf = image.detach().expand(3, -1, -1, -1).requires_grad_()
    kept = image.expand(3, -1, -1, -1)
    kept.retain_grad()
    apart = image.detach().repeat(3, 1, 1, 1).requires_grad_()
    for feature in (leaf, kept, apart):
        sparse_hypercolumn([feature], points, (8, 8)).square().sum().backward()
    torch.testing.assert_close(leaf.grad, apart.grad)
    torch.testing.assert_close(kept.grad, apart.grad)
    torch.testing.assert_close(image.grad, apart.grad.sum(0, keepdim=True))


def test_images_that_are_refused_apart_are_refused_together() -> None:
    feature = torch.rand(1, 5, 8, 8).expand(3, -1, -1, -1)
    with pytest.raises(ValueError, match="features hold 3 images"):
        sparse_hypercolumn([feature], torch.rand(2, 4, 2), (8, 8))
    with pytest.raises(ValueError, match=r"features\[1\] has batch size 2 but features\[0\] has 3"):
        sparse_hypercolumn([feature, feature[:2]], torch.rand(3, 4, 2), (8, 8))
    index = torch.tensor([0, 3])
    with pytest.raises(ValueError, match=r"batch_index ranges over \[0, 3\]"):
        sparse_hypercolumn([feature], torch.rand(2, 2), (8, 8), batch_index=index)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "chunk": lambda whole: whole.chunk(2, 1)[0],
    "crop": lambda whole: whole[:, :32, 8:40, 8:40],
    "crop-last": lambda whole: whole.contiguous(memory_format=torch.channels_last)[
        :, :, 8:40, 8:40
    ],
    "every-second": lambda whole: whole[:, :, ::2, ::2],
    "turned": lambda whole: whole.mT,
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "nearest": {"interpolation": "nearest"},
    "gather": {"plan": "gather"},
    "ragged": {"batch_index": torch.tensor([0, 3, 2, 2])},
    "integer": {},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("kind", KINDS)
def test_few_points_read_a_view_where_it_lies(
    kind: str, view: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    feature = view(torch.rand(4, 64, 48, 48, dtype=dtype))
    size, options = tuple(feature.shape[2:]), KINDS[kind]
    points = torch.rand(4, 2) if kind == "ragged" else torch.rand(4, 6, 2)
    points = (points * 32).long() if kind == "integer" else points * 32
    expected = sparse_hypercolumn([feature.contiguous()], points, size, **options)
    with Largest(feature) as largest:
        value = sparse_hypercolumn([feature], points, size, **options)
    torch.testing.assert_close(value, expected)
    assert largest.bytes <= feature.nbytes // 16


@pytest.mark.parametrize("layout", ["sliced", "transposed", "expanded"])
@pytest.mark.parametrize("points", [1, 30])
def test_a_view_of_any_layout_is_right(layout: str, points: int, device: torch.device) -> None:
    case = Case("view", ((24, 16, 20), (3, 8, 10)), image_size=(32, 40), layout=layout)
    case = Case(**{**vars(case), "points": points})
    check_case(case, device)
    check_case(case.linear(), device, moving_points=False, same_layout=False)
    assert not build(case).features[0].is_contiguous()
