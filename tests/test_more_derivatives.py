"""Beyond one gradient of one loss: many vectors at once, and derivatives of derivatives.

On every route, for small and large calls alike; the plain expression is what they are held to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad

from pixelnet_triton import HypercolumnLinear, sparse_hypercolumn
from pixelnet_triton.integrations import point_sample
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from .cases import Case, Inputs, build, case_id
from .conftest import takes_float64
from .planning import PREFERENCES, forced_plan
from .tolerances import assert_close_to_reference

_LAYERS = ((8, 6, 8), (5, 3, 4))
CASES = [
    Case("columns", _LAYERS, points=7, image_size=(12, 16)),
    Case("linear", _LAYERS, points=7, image_size=(12, 16), out_features=6),
    Case("relu", _LAYERS, points=7, image_size=(12, 16), out_features=6, activation="relu"),
    Case("gelu", _LAYERS, points=7, image_size=(12, 16), out_features=6, activation="gelu"),
    Case("ragged", _LAYERS, points=7, image_size=(12, 16), out_features=6, ragged=True),
    Case("integer", _LAYERS, image_size=(12, 16), point_dtype=torch.int64, out_features=6),
    Case("nearest", _LAYERS, image_size=(12, 16), interpolation="nearest", out_features=6),
    Case("zeros", _LAYERS, image_size=(12, 16), spread="outside", padding_mode="zeros"),
    Case("strides", _LAYERS, image_size=(12, 16), strides=(2, 3.7), out_features=6),
    Case("large", ((24, 24, 32), (40, 12, 16)), points=900, image_size=(48, 64), out_features=9),
]
#: By name, what computes a call: auto, plans, and every route of the CPU.
WAYS = ("auto", "gather", "project", *PREFERENCES)


def made(case: Case, device: torch.device, moving_points: bool) -> Inputs:
    inputs = build(case.with_dtype(torch.float64) if takes_float64(device) else case, device)
    inputs.moving_points = moving_points and case.interpolation == "bilinear"
    return inputs


def options(inputs: Inputs, way: str) -> dict[str, Any]:
    if way == "auto":
        return {}
    if way in PREFERENCES:
        plan = forced_plan(inputs, way) if takes_float64(inputs.points.device) else None
        if plan is None:
            pytest.skip("not open to such a call")
        return {"plan": plan}
    if inputs.weight is None:
        pytest.skip("there is nothing to plan without a weight")
    return {"plan": way}


def value_and_leaves(
    function: Callable[..., Tensor], inputs: Inputs, **options: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    leaves = {name: t.detach().clone().requires_grad_() for name, t in inputs.tensors().items()}
    features = [leaves[f"features[{i}]"] for i in range(len(inputs.features))]
    others = {name: leaves[name] for name in ("points", "weight", "bias") if name in leaves}
    return function(**inputs.arguments(features=features, **others, **options)), leaves


def vectors_like(value: Tensor) -> Tensor:
    """Three vectors of the value's shape, (3, ...)."""
    ramp = torch.linspace(-1, 1, value.numel(), dtype=torch.float64, device=value.device)
    first = ramp.reshape(value.shape)
    return torch.stack([first, first.cos(), torch.ones_like(first)]).to(value.dtype)


@lru_cache(maxsize=1)
def grid_sample_is_differentiable_twice() -> bool:
    """Not in torch 2.6."""
    feature, grid = torch.ones(1, 1, 2, 2, requires_grad=True), torch.zeros(1, 1, 1, 2)
    value = torch.nn.functional.grid_sample(feature, grid, align_corners=False).square().sum()
    (once,) = torch.autograd.grad(value, feature, create_graph=True)
    try:
        torch.autograd.grad(once.sum(), feature)
    except RuntimeError:
        return False
    return True


def check(
    found: Callable[..., dict[str, Tensor]], inputs: Inputs, some: dict[str, Any], what: str
) -> None:
    """What `found` makes of a value and its leaves: the library's, by the one rule of the suite."""
    expected = found(*value_and_leaves(reference_hypercolumn, inputs.double()))
    plain = found(*value_and_leaves(reference_hypercolumn, inputs))
    actual = found(*value_and_leaves(sparse_hypercolumn, inputs, **some))
    assert actual.keys() == expected.keys()
    for name, tensor in actual.items():
        three = (tensor, expected[name], plain[name])
        dtype = inputs.features[0].dtype
        assert_close_to_reference(*three, dtype=dtype, name=f"{what} {name}")


@pytest.mark.parametrize("moving_points", [False, True], ids=["fixed", "moving"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES, ids=case_id)
class TestOnEveryRoute:
    def test_many_vectors_at_once(
        self, case: Case, way: str, moving_points: bool, device: torch.device
    ) -> None:
        inputs = made(case, device, moving_points)

        def gradients(value: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
            vectors = vectors_like(value)
            found = torch.autograd.grad(value, [*leaves.values()], vectors, is_grads_batched=True)
            return dict(zip(leaves, found, strict=True))

        check(gradients, inputs, options(inputs, way), "gradients")

    def test_derivatives_of_derivatives(
        self, case: Case, way: str, moving_points: bool, device: torch.device
    ) -> None:
        if way in ("auto", "expression") and not grid_sample_is_differentiable_twice():
            pytest.skip("small calls take grid_sample, which this version of torch refuses")
        inputs = made(case, device, moving_points)

        def second(value: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
            tensors = [*leaves.values()]
            # the loss has a slope at the zeros of a ReLU, too
            loss = (value + 0.5).square().mean()
            once = torch.autograd.grad(loss, tensors, create_graph=True)
            again = sum((g * g.detach().cos()).sum() for g in once)
            found = torch.autograd.grad(again, tensors, materialize_grads=True)
            return dict(zip(leaves, found, strict=True))

        check(second, inputs, options(inputs, way), "second derivatives")


@pytest.mark.parametrize("way", ["auto", "gather", "project"])
@pytest.mark.parametrize("wanted", ["features[0]", "weight", "bias", "points"])
def test_of_one_input_alone(wanted: str, way: str, device: torch.device) -> None:
    """The first derivative of one input depends on all of them."""
    inputs = made(CASES[2], device, True)

    def second(value: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
        loss = (value + 0.5).pow(3).mean()
        (once,) = torch.autograd.grad(loss, leaves[wanted], create_graph=True)
        found = torch.autograd.grad(once.square().sum(), [*leaves.values()], materialize_grads=True)
        return dict(zip(leaves, found, strict=True))

    check(second, inputs, options(inputs, way), wanted)


def test_a_third_derivative(device: torch.device) -> None:
    inputs = made(CASES[2], device, True)

    def third(function: Callable[..., Tensor], **some: Any) -> Tensor:
        def of(points: Tensor) -> Tensor:
            return function(**inputs.arguments(points=points, **some)).pow(4).mean()

        once = grad(of)
        twice = grad(lambda p: once(p).square().sum())
        return grad(lambda p: twice(p).square().sum())(inputs.points)

    expected = third(reference_hypercolumn)
    for some in ({}, {"plan": "gather"}):
        torch.testing.assert_close(third(sparse_hypercolumn, **some), expected)


def test_vectors_through_modules_casts_and_shared_images(device: torch.device) -> None:
    """What a user's own Jacobian meets: one by one it is the same."""
    maps = [torch.randn(2, 3, 6, 8, device=device), torch.randn(2, 2, 3, 4, device=device)]
    points = torch.rand(2, 5, 2, device=device)
    layer = HypercolumnLinear([3, 2], 4, activation="gelu").to(device)
    several = torch.randn(3, 4, 5, device=device)
    sizes = torch.tensor([[12, 16], [9, 10]])

    def of_shared(first: Tensor, second: Tensor) -> Tensor:
        both = [m[:1].expand(2, -1, -1, -1) for m in (first, second)]
        return sparse_hypercolumn(both, points, (12, 16), plan="gather")

    def in_half(first: Tensor, second: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return sparse_hypercolumn([first, second], points, (12, 16), weight=several[0]).float()

    functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "module": lambda *m: layer([*m], points, (12, 16)),
        "ensemble": lambda *m: sparse_hypercolumn(m, points, (12, 16), weight=several),
        "sizes": lambda *m: sparse_hypercolumn(m, points, sizes, strides=[2, 4]),
        "point_sample": lambda *m: point_sample(m[0], points) + m[1].sum(),
        "shared": of_shared,
        "half": in_half,
    }
    jacobian = torch.autograd.functional.jacobian
    for name, function in functions.items():
        at_once, one_by_one = (jacobian(function, (*maps,), vectorize=v) for v in (True, False))
        torch.testing.assert_close(at_once, one_by_one, msg=lambda m, name=name: f"{name}: {m}")


def test_vectors_through_a_compiled_graph(device: torch.device) -> None:
    maps, points = [torch.randn(2, 3, 6, 8, device=device)], torch.rand(2, 5, 2, device=device)
    compiled = torch.compile(
        lambda m: sparse_hypercolumn([m], points, (12, 16)), backend="aot_eager", fullgraph=True
    )
    jacobian = torch.autograd.functional.jacobian
    at_once, one_by_one = (jacobian(compiled, maps[0], vectorize=v) for v in (True, False))
    torch.testing.assert_close(at_once, one_by_one)


class Subclass(Tensor):
    """Not computed as a plain tensor is: by the registered operator."""


def test_of_the_registered_operator(device: torch.device) -> None:
    case = Case("small", ((3, 4, 5), (2, 2, 3)), points=2, image_size=(8, 10), out_features=3)
    inputs = made(replace(case, activation="relu"), device, True)
    tensors = [t.requires_grad_() for t in inputs.tensors().values()]

    def function(first: Tensor, second: Tensor, *others: Tensor) -> Tensor:
        features = [m.as_subclass(Subclass) for m in (first, second)]
        named = dict(zip(("weight", "bias", "points"), others, strict=True))
        return sparse_hypercolumn(**inputs.arguments(features=features, **named)).as_subclass(
            Tensor
        )

    jacobian = torch.autograd.functional.jacobian
    at_once, one_by_one = (jacobian(function, (*tensors,), vectorize=v) for v in (True, False))
    torch.testing.assert_close(at_once, one_by_one)
    if takes_float64(device):
        assert torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


def test_vectors_within_vectors_are_refused(device: torch.device) -> None:
    inputs = made(CASES[1], device, False)
    value, leaves = value_and_leaves(sparse_hypercolumn, inputs, plan="gather")
    vectors = vectors_like(value)

    def outer(vector: Tensor) -> Tensor:
        return torch.autograd.grad(
            value, leaves["weight"], torch.stack([vector, vector]), is_grads_batched=True
        )[0]

    from torch._vmap_internals import _vmap

    with pytest.raises(RuntimeError, match=r"is_grads_batched=True within.*torch\.func\.jacrev"):
        _vmap(outer)(vectors)
