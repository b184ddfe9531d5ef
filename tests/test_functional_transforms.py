"""torch.func, forward mode, meta tensors and FakeTensor: as of the plain expression, or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.autograd.functional import hessian as autograd_hessian
from torch.autograd.functional import jacobian
from torch.func import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.utils._pytree import tree_leaves

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from .cases import Case, Inputs, build
from .conftest import takes_float64
from .tolerances import assert_close_to_reference

# torch's own, when forward mode is first used
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

Arguments = tuple[Tensor, ...]
CASE = Case("transforms", ((8, 6, 8), (5, 3, 4)), points=3, image_size=(12, 16), out_features=6)
EVERY = (0, 1, 2, 3, 4)


def made(device: torch.device) -> Inputs:
    return build(CASE.with_dtype(torch.float64) if takes_float64(device) else CASE, device)


def check(transformed: Callable[..., Any], inputs: Inputs, *options: dict[str, Any]) -> None:
    """All that a transform gives, by the library with each of some options."""
    expected = tree_leaves(transformed(reference_hypercolumn, inputs.double()))
    plain = tree_leaves(transformed(reference_hypercolumn, inputs))
    dtype = inputs.features[0].dtype
    for some in options:
        actual = tree_leaves(transformed(sparse_hypercolumn, inputs, **some))
        for i, three in enumerate(zip(actual, expected, plain, strict=True)):
            assert_close_to_reference(*three, dtype=dtype, name=f"{some} {i}")


def twice(*tensors: Tensor) -> Arguments:
    """Two of each, along a new first axis."""
    return tuple(torch.stack([t, t.flip(0) + 1]) for t in tensors)


def loss(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *a: f(*a).square().sum()


def with_tangents(f: Callable[..., Tensor], a: Arguments) -> Arguments:
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, t.cos()) for t in a]
        return tuple(forward_ad.unpack_dual(f(*duals)))


def backward_of_vmap(f: Callable[..., Tensor], a: Arguments) -> Arguments:
    leaves = [t.requires_grad_() for t in twice(*a)]
    return torch.autograd.grad(vmap(f)(*leaves).square().sum(), leaves)


# f: maps, points, weight and bias -> the layer; a: those.
TRANSFORMS: dict[str, Callable[[Callable[..., Tensor], Arguments], Any]] = {
    "grad": lambda f, a: grad(loss(f), EVERY)(*a),
    "vjp": lambda f, a: vjp(f, *a)[1](torch.ones_like(f(*a))),
    "jvp": lambda f, a: jvp(f, a, tuple(t.cos() for t in a)),
    "dual numbers": with_tangents,
    "vmap of all": lambda f, a: vmap(f)(*twice(*a)),
    "vmap of weights": lambda f, a: vmap(lambda w: f(*a[:3], w, a[4]))(*twice(a[3])),
    "vmap along others": lambda f, a: vmap(lambda p: f(*a[:2], p, *a[3:]), in_dims=1, out_dims=1)(
        torch.stack([a[2], a[2] + 1], 1)
    ),
    "vmap of vmap": lambda f, a: vmap(vmap(lambda w: f(*a[:3], w, a[4])))(*twice(*twice(a[3]))),
    "gradients of each": lambda f, a: vmap(grad(loss(f), EVERY))(*twice(*a)),
    "gradient of all": lambda f, a: grad(lambda *b: loss(vmap(f))(*twice(*b)), EVERY)(*a),
    "backward of vmap": backward_of_vmap,
    "jacrev": lambda f, a: jacrev(f, EVERY)(*a),
    "jacrev in chunks": lambda f, a: jacrev(f, EVERY, chunk_size=1)(*a),
    "jacfwd": lambda f, a: jacfwd(f, EVERY)(*a),
    "hessian": lambda f, a: hessian(lambda w: loss(f)(*a[:3], w, a[4]))(a[3]),
    "jacrev of jacrev": lambda f, a: jacrev(jacrev(loss(f), (3, 4)), (2, 3))(*a),
    "gradients of each gradient": lambda f, a: vmap(grad(lambda m: grad(loss(f))(m, *a[1:]).sum()))(
        *twice(a[0])
    ),
    "jacobian at once": lambda f, a: jacobian(f, a, vectorize=True),
    "jacobian at once, forward": lambda f, a: jacobian(
        f, a, vectorize=True, strategy="forward-mode"
    ),
    "hessian at once": lambda f, a: autograd_hessian(loss(f), a, vectorize=True),
    "forward over reverse": lambda f, a: jvp(
        lambda p: grad(loss(f), 2)(*a[:2], p, *a[3:]), (a[2],), (a[2].cos(),)
    ),
}


@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_is_that_of_the_plain_expression(
    name: str, activation: str | None, device: torch.device
) -> None:
    inputs = made(device)

    def transformed(function: Any, inputs: Inputs, **options: Any) -> Any:
        def layer(first: Tensor, second: Tensor, points: Tensor, *linear: Tensor) -> Tensor:
            changes = {"features": [first, second], "points": points, "activation": activation}
            names = dict(zip(("weight", "bias"), linear, strict=True))
            return function(**inputs.arguments(**changes, **names, **options))

        a = (*inputs.features, inputs.points, inputs.weight, inputs.bias)
        return TRANSFORMS[name](layer, a)

    check(transformed, inputs, {}, {"plan": "project"})


@pytest.mark.parametrize("options", [{"weight": None, "bias": None}, {"padding_mode": "zeros"}])
@pytest.mark.parametrize("ragged", [False, True], ids=["uniform", "ragged"])
@pytest.mark.parametrize("name", ["jvp", "vmap", "jacrev"])
def test_of_other_calls(
    name: str, ragged: bool, options: dict[str, Any], device: torch.device
) -> None:
    inputs = made(device)
    if ragged:
        image = torch.arange(2, device=device).repeat_interleave(CASE.points)
        inputs.points, inputs.batch_index = inputs.points.flatten(0, 1), image

    def transformed(function: Any, inputs: Inputs) -> Any:
        def of_points(points: Tensor) -> Tensor:
            return function(**inputs.arguments(points=points, **options))

        if name == "jvp":
            return jvp(of_points, (inputs.points,), (inputs.points.cos(),))
        if name == "vmap":
            return vmap(of_points)(*twice(inputs.points))
        return jacrev(of_points)(inputs.points)

    check(transformed, inputs, {})


# of the other coordinates PyTorch's own kernels may give the first derivative on a CPU
@pytest.mark.parametrize(
    ("mode", "coordinates"),
    [
        ("forward", "pixel"),
        ("forward", "unit"),
        ("forward", "normalized"),
        ("backward twice", "pixel"),
    ],
)
def test_positions_on_wide_maps(mode: str, coordinates: str, device: torch.device) -> None:
    """Positions of float32 among 448 cells would err a hundred times more than the sums do."""
    case = Case("wide", ((5, 448, 448),), points=200, image_size=(448, 448), out_features=6)
    inputs = build(replace(case, coordinates=coordinates, spread="inside"), device)
    if not takes_float64(device):
        pytest.skip("float64 is to judge")

    def derivative(function: Any, inputs: Inputs) -> Tensor:
        def layer(weight: Tensor) -> Tensor:
            return function(**inputs.arguments(weight=weight))

        if mode == "forward":
            return jvp(layer, (inputs.weight,), (inputs.weight.cos(),))[1]
        return vjp(lambda w: grad(loss(layer))(w), inputs.weight)[1](inputs.weight)[0]

    expected = derivative(reference_hypercolumn, inputs.double())
    error = (derivative(sparse_hypercolumn, inputs) - expected).square().mean().sqrt()
    assert error <= 8 * torch.finfo(torch.float32).eps * expected.square().mean().sqrt()


def test_ensembles_labels_and_autocast(device: torch.device) -> None:
    """What the plain expression has no notion of: as the same call without a transform."""
    inputs = build(CASE, device)
    weights, bias = twice(inputs.weight, inputs.bias)
    expected = sparse_hypercolumn(**inputs.arguments(weight=weights, bias=bias))

    def layer(weight: Tensor, bias: Tensor) -> Tensor:
        return sparse_hypercolumn(**inputs.arguments(weight=weight, bias=bias))

    torch.testing.assert_close(vmap(layer, out_dims=2)(weights, bias), expected)
    torch.testing.assert_close(jvp(layer, (weights, bias), (weights, bias))[0], expected)
    with torch.autocast(device.type, torch.bfloat16):
        low = jvp(layer, (weights, bias), (weights, bias))
    assert low[0].dtype == low[1].dtype == torch.bfloat16

    labels = torch.randint(0, 9, (3, 2, 1, 12, 16), device=device)

    def at_points(label: Tensor) -> Tensor:
        return sparse_hypercolumn([label], inputs.points, (12, 16), interpolation="nearest")

    torch.testing.assert_close(vmap(at_points)(labels), torch.stack([*map(at_points, labels)]))


def test_bad_points_are_refused(device: torch.device) -> None:
    """Where values are to be had: below the transforms."""
    inputs = made(device)
    points = inputs.points.clone()
    points[1, 2, 0] = float("nan")
    if device.type == "cpu":
        with pytest.raises(ValueError, match=r"points\[5\] .*must be finite"):
            vmap(lambda p: sparse_hypercolumn(**inputs.arguments(points=p)))(points[None])


class TestTensorsWithoutValues:
    @pytest.mark.parametrize("activation", [None, "relu", "gelu"])
    @pytest.mark.parametrize("kind", ["meta", "fake"])
    def test_shapes_of_values_and_gradients(self, kind: str, activation: str | None) -> None:
        case = Case("shapes", CASE.layers, points=7, image_size=(12, 16), out_features=6)
        device = "meta" if kind == "meta" else "cpu"
        with FakeTensorMode() if kind == "fake" else torch.device("meta"):
            layers = [torch.empty(2, *layer, device=device) for layer in case.layers]
            points, weight = torch.empty(2, 7, 2, device=device), torch.empty(6, 13, device=device)
            tensors = [t.requires_grad_() for t in (*layers, points, weight)]
            options = {"activation": activation, "weight": weight}
            value = sparse_hypercolumn(layers, points, case.image_size, **options)
            assert (value.shape, value.device.type) == ((2, 7, 6), device)
            value.sum().backward()
            assert all(t.grad.shape == t.shape for t in tensors)
            labels = torch.zeros(2, 1, 3, 4, dtype=torch.uint8, device=device)
            label = sparse_hypercolumn([labels], points, (12, 16), interpolation="nearest")
            assert (label.shape, label.dtype) == ((2, 7, 1), torch.uint8)


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # torch's own
def test_linearize(device: torch.device) -> None:
    inputs = made(device)

    def called(points: Tensor) -> Tensor:
        return sparse_hypercolumn(**inputs.arguments(points=points))

    tangent = torch.randn_like(inputs.points)
    value, linear = linearize(called, inputs.points)
    expected = jvp(called, (inputs.points,), (tangent,))
    torch.testing.assert_close((value, linear(tangent)), expected)


def test_tensors_that_a_transform_left_behind(device: torch.device) -> None:
    """They are what they hold: no graph of the transform hangs on the result."""
    left: list[Tensor] = []

    def leaking(x: Tensor) -> Tensor:
        left.append(x)
        return x.sum()

    given = made(device)
    for tensor in (*given.features, given.points):
        grad(leaking)(tensor.detach().float())
    *maps, points = left
    found = sparse_hypercolumn(maps, points, given.case.image_size, plan="two_step")
    assert not found.requires_grad
    *maps, points = [tensor.detach().float() for tensor in (*given.features, given.points)]
    expected = sparse_hypercolumn(maps, points, given.case.image_size, plan="two_step")
    assert torch.equal(found, expected)
