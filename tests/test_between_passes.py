"""What trainers do around a call and between its passes, against the plain expression."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.reference import sparse_hypercolumn as reference

SIZE = (16, 24)
PLANS = ["auto", "gather", "project"]


def points(batch: int = 2, count: int = 9) -> Tensor:
    return torch.rand(batch, count, 2, generator=torch.Generator().manual_seed(3)) * 20


def leaves() -> list[Tensor]:
    """Two maps and a weight."""
    torch.manual_seed(0)
    shapes = ((2, 5, 8, 12), (2, 6, 4, 6), (7, 11))
    return [torch.randn(shape).requires_grad_() for shape in shapes]


class _Reversed(torch.autograd.Function):
    """As domain-adversarial training has it: the argument itself, whose gradient is negated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return -grad


class _ReversedCopies(_Reversed):
    """The same, and many of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.expand(4, -1, -1, -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return -grad.sum(0, keepdim=True)


def _hooked(x: Tensor) -> Tensor:
    module = nn.Identity()
    module.register_full_backward_hook(lambda _module, grads, _out: (grads[0] * 3,))
    return module(x).expand(4, -1, -1, -1)


def _with_hook(x: Tensor) -> Tensor:
    repeated = x.expand(4, -1, -1, -1)
    repeated.register_hook(lambda grad: grad * 0)
    return repeated


@pytest.mark.parametrize(
    "repeat",
    [
        lambda x: x.expand(4, -1, -1, -1),
        lambda x: x[0].expand(4, -1, -1, -1),
        lambda x: _Reversed.apply(x).expand(4, -1, -1, -1),  # type: ignore[no-untyped-call]
        lambda x: _Reversed.apply(x.expand(4, -1, -1, -1)),  # type: ignore[no-untyped-call]
        _ReversedCopies.apply,
        _hooked,
        _with_hook,
    ],
    ids=["expand", "select", "before", "after", "inside", "module hook", "tensor hook"],
)
@pytest.mark.parametrize("leaf", [True, False])
def test_gradients_of_a_repeated_map_pass_all_that_lies_between(
    repeat: Callable[[Tensor], Tensor], leaf: bool
) -> None:
    found = []
    for call in (sparse_hypercolumn, reference):
        image = leaves()[0][:1].detach().requires_grad_()
        given = image if leaf else image * 1.0
        call([repeat(given)], points(4), SIZE).square().sum().backward()
        found.append(image.grad)
    torch.testing.assert_close(*found)


def test_images_that_were_one_from_the_start_get_a_gradient_each() -> None:
    found = []
    for call in (sparse_hypercolumn, reference):
        maps = torch.empty_strided((4, 5, 8, 12), (0, 96, 12, 1))
        maps[0] = leaves()[0][0].detach()
        maps.requires_grad_()
        value = call([maps.expand(4, -1, -1, -1)], points(4), SIZE)
        found += torch.autograd.grad(value.square().sum(), maps)
    torch.testing.assert_close(*found)


def test_a_view_made_without_grad_cuts_the_graph() -> None:
    image = leaves()[0][:1].detach().requires_grad_()
    with torch.no_grad():
        repeated = image.expand(4, -1, -1, -1)
    weight = torch.randn(3, 5, requires_grad=True)
    sparse_hypercolumn([repeated], points(4), SIZE, weight=weight).sum().backward()
    assert image.grad is None
    assert weight.grad is not None


def _turned(tensor: Tensor) -> Tensor:
    """Dense, with rows and columns exchanged in memory."""
    if tensor.dim() != 4:
        return tensor
    return tensor.transpose(2, 3).contiguous().transpose(2, 3)


HOOKS = {
    "turned": _turned,
    "NHWC": lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t,
    "contiguous": lambda t: torch.empty(t.shape, dtype=t.dtype).copy_(t),
}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("moved", HOOKS.values(), ids=HOOKS)
@pytest.mark.parametrize("count", [9, 4000])
def test_saved_maps_may_come_back_laid_out_otherwise(
    plan: str, moved: Callable[[Tensor], Tensor], count: int
) -> None:
    found = []
    for hooks in (nullcontext(), saved_tensors_hooks(lambda t: t, moved)):
        first, second, weight = given = leaves()
        with hooks:
            value = sparse_hypercolumn(
                [first, second], points(count=count), SIZE, weight=weight, plan=plan
            )
        found.append(torch.autograd.grad(value.square().sum(), given))
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("plan", [*PLANS, "two_step"])
@pytest.mark.parametrize("count", [9, 400])
def test_the_optimizer_may_step_first_where_maps_are_fixed(
    plan: str, activation: str | None, count: int
) -> None:
    """As with torch's linear layer, whose weight only the gradient of its input reads."""
    *maps, weight = (leaf.detach() for leaf in leaves())
    bias = torch.randn(7, requires_grad=True)
    settings: dict[str, Any] = {"bias": bias, "activation": activation, "plan": plan}
    gradients = []
    for step in (False, True):
        weight = weight.clone().requires_grad_()
        value = sparse_hypercolumn(maps, points(count=count), SIZE, weight=weight, **settings)
        if step:
            with torch.no_grad():
                weight.fill_(torch.nan)
        gradients.append(torch.autograd.grad(value.square().sum(), (weight, bias)))
    for after, before in zip(*gradients, strict=True):
        assert torch.equal(after, before)


@pytest.mark.parametrize("plan", PLANS)
def test_a_weight_that_gradients_of_maps_read_may_not_change(plan: str) -> None:
    first, second, weight = leaves()
    value = sparse_hypercolumn([first, second], points(), SIZE, weight=weight, plan=plan)
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.sum().backward()


@pytest.mark.parametrize("plan", PLANS[1:])
def test_second_derivatives_do_not_obey_autocast(plan: str) -> None:
    """Small calls by "auto" are plain operators, whose backward passes do in torch."""

    def twice(around: AbstractContextManager[object]) -> Any:
        first, second, weight = given = leaves()
        value = sparse_hypercolumn([first, second], points(), SIZE, weight=weight, plan=plan)
        once = torch.autograd.grad(value.square().sum(), given, create_graph=True)
        total = torch.stack([g.square().sum() for g in once]).sum()
        with around:
            return torch.autograd.grad(total, given)

    for plain, ours in zip(
        twice(nullcontext()), twice(torch.autocast("cpu", torch.bfloat16)), strict=True
    ):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("count", [9, 4000])
@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_the_default_device_is_not_asked(plan: str, count: int, padding: str) -> None:
    given, at = leaves(), points(count=count)
    index = torch.arange(2).repeat_interleave(count)
    for options, where in ((None, at), (index, at.flatten(0, 1))):
        with torch.device("meta"):
            first, second, weight = given
            value = sparse_hypercolumn(
                [first, second],
                where,
                SIZE,
                weight=weight,
                plan=plan,
                batch_index=options,
                padding_mode=padding,
            )
            gradients = torch.autograd.grad(value.sum(), given)
        assert value.is_cpu
        assert all(gradient.is_cpu for gradient in gradients)


@pytest.mark.parametrize("ragged", [True, False])
def test_traced_gradients_have_the_strides_that_are_told(ragged: bool) -> None:
    """Of weight and points that are not contiguous."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from pixelnet_triton.call import layer_geometry

    geometry = layer_geometry([(8, 12), (4, 6)], SIZE)
    given: list[Any] = [
        torch.randn(18, 7),
        points().flatten(0, 1).t().contiguous().t(),
        torch.arange(2).repeat_interleave(9) if ragged else None,
        torch.randn(11, 7).t(),
        None,
        [t.detach() for t in leaves()[:2]],
        *(geometry.flat(), "bilinear", "border", "auto", [True] * 5),
    ]
    operator = torch.ops.pixelnet_triton.sparse_hypercolumn_backward
    real = operator(*given)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = [
            mode.from_tensor(g)
            if isinstance(g, Tensor)
            else [mode.from_tensor(t) for t in g]
            if isinstance(g, list) and isinstance(g[0], Tensor)
            else g
            for g in given
        ]
        fake = operator(*fakes)
    assert [t.stride() for t in real] == [t.stride() for t in fake]


def test_a_subclass_anywhere_is_kept() -> None:
    two = pytest.importorskip("torch.testing._internal.two_tensor").TwoTensor
    first, second, weight = [t.detach() for t in leaves()]
    for maps in ([two(first, first), second], [first, two(second, second)]):
        value = sparse_hypercolumn(maps, points(), SIZE, weight=weight)
        assert type(value) is two
