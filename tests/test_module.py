from __future__ import annotations

import copy
import io
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pixelnet_triton import HypercolumnLinear, sparse_hypercolumn
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from .cases import Case, Inputs, build

# One at a time: together, one could hide that another is not passed on.
OPTIONS: dict[str, dict[str, Any]] = {
    "relu": {"activation": "relu"},
    "gelu": {"activation": "gelu"},
    "strides": {"strides": [2, (4, 5.0)]},
    "nearest": {"interpolation": "nearest"},
    "corners": {"align_corners": True},
    "zeros": {"padding_mode": "zeros"},
    "unit": {"coordinates": "unit"},
}


@pytest.fixture
def inputs(device: torch.device) -> Inputs:
    return build(
        Case("module", ((8, 6, 8), (5, 3, 4)), image_size=(12, 16), spread="outside"), device
    )


def call(layer: HypercolumnLinear, inputs: Inputs, **changes: Tensor) -> Tensor:
    arguments = {"features": inputs.features, "points": inputs.points, **changes}
    return layer(image_size=inputs.case.image_size, **arguments)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_is_the_function(options: dict[str, Any], inputs: Inputs, device: torch.device) -> None:
    layer = HypercolumnLinear([8, 5], 6, device=device, **options)
    arguments = inputs.arguments() | {"weight": layer.weight, "bias": layer.bias}
    value = call(layer, inputs)
    assert torch.equal(value, sparse_hypercolumn(**arguments | options))
    assert not torch.equal(value, sparse_hypercolumn(**arguments)), "the option shows nowhere"


def test_plan_is_passed_on(inputs: Inputs, device: torch.device) -> None:
    layer = HypercolumnLinear([8, 5], 6, device=device)
    layer.plan = "fastest"
    with pytest.raises(ValueError, match="plan='fastest' is unknown"):
        call(layer, inputs)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"activation": "silu"}, ValueError, r"activation='silu' is unknown; use one of \(None,"),
        ({"strides": [1]}, ValueError, r"strides=\[1\]; expected one entry for each of the 2"),
        ({"strides": [1, 0]}, ValueError, r"strides\[1\]=0; a stride must be positive"),
        ({"strides": [1, "2"]}, TypeError, r"strides\[1\]='2'; expected a number of image pixels"),
        ({"strides": [1, 2], "align_corners": True}, ValueError, "strides cannot be combined with"),
        ({"plan": "fastest"}, ValueError, "plan='fastest' is unknown"),
        ({"padding_mode": "reflect"}, ValueError, "padding_mode='reflect' is unknown"),
        ({"coordinates": "uv"}, ValueError, "coordinates='uv' is unknown"),
        ({"interpolation": "bicubic"}, ValueError, "interpolation='bicubic' is unknown"),
    ],
)
def test_options_are_checked_when_it_is_made(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        HypercolumnLinear([3, 5], 4, **options)


def test_takes_ragged_points(inputs: Inputs, device: torch.device) -> None:
    layer = HypercolumnLinear([8, 5], 6, device=device)
    image = torch.arange(2, device=device).repeat_interleave(inputs.points.shape[1])
    ragged = call(layer, inputs, points=inputs.points.flatten(0, 1), batch_index=image)
    torch.testing.assert_close(ragged, call(layer, inputs).flatten(0, 1))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_trained_linear_layers_load(bias: bool, inputs: Inputs, device: torch.device) -> None:
    linear = nn.Linear(8 + 5, 6, bias=bias, device=device)
    layer = HypercolumnLinear([8, 5], 6, bias=bias, device=device)
    layer.load_state_dict(linear.state_dict())
    hypercolumns = sparse_hypercolumn(inputs.features, inputs.points, inputs.case.image_size)
    torch.testing.assert_close(call(layer, inputs), linear(hypercolumns))
    linear.load_state_dict(layer.state_dict())  # and back


class TestEnsemble:
    @pytest.mark.parametrize("kind", ["uniform", "ragged", "expanded", "frozen"])
    @pytest.mark.parametrize("plan", ["auto", "project"])
    def test_is_its_members(self, plan: str, kind: str, device: torch.device) -> None:
        """Values and all gradients of three layers, one by one, by the plain expression."""
        layout = "expanded" if kind == "expanded" else "nchw"
        case = Case("e", ((8, 6, 8), (5, 3, 4)), image_size=(12, 16), layout=layout)
        inputs = build(replace(case, ragged=kind == "ragged", points=40), device)
        members = [HypercolumnLinear([8, 5], 6, activation="relu", device=device) for _ in "abc"]
        state, _ = torch.func.stack_module_state(members)
        ensemble = HypercolumnLinear([8, 5], (3, 6), activation="relu", plan=plan, device=device)
        ensemble.load_state_dict(state)
        moving = [*inputs.features, inputs.points]
        for tensor in moving:
            tensor.requires_grad_(kind != "frozen")
        value = call(ensemble, inputs, batch_index=inputs.batch_index)
        assert value.shape == (*inputs.points.shape[:-1], 3, 6)
        expected = torch.stack(
            [
                reference_hypercolumn(
                    **inputs.arguments(weight=m.weight, bias=m.bias, activation="relu")
                )
                for m in members
            ],
            -2,
        )
        torch.testing.assert_close(value, expected)
        grad = torch.randn_like(value)
        value.backward(grad)
        gradients = [tensor.grad for tensor in moving]
        for tensor in moving:
            tensor.grad = None
        expected.backward(grad)
        for actual, tensor in zip(gradients, moving, strict=True):
            torch.testing.assert_close(actual, tensor.grad)
        for name in ("weight", "bias"):
            each = torch.stack([getattr(m, name).grad for m in members])
            torch.testing.assert_close(getattr(ensemble, name).grad, each)

    def test_is_initialised_as_its_members(self) -> None:
        layer = HypercolumnLinear([300, 100], (2, 200))
        assert 0.99 / 20 < layer.weight.abs().max() <= 1 / 20
        assert layer.bias.shape == (2, 200)

    def test_is_compiled_and_autocast(self, inputs: Inputs, device: torch.device) -> None:
        layer = HypercolumnLinear([8, 5], (3, 6), activation="gelu", device=device)
        expected = call(layer, inputs)
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(call(compiled, inputs), expected)
        with torch.autocast(device.type, torch.bfloat16):
            low = call(layer, inputs)
        assert low.dtype == torch.bfloat16
        assert low.shape == (2, 17, 3, 6)


def test_is_initialised_as_a_linear_layer() -> None:
    """Uniform within 1 / sqrt(fan in), weight and bias."""
    layer, linear = HypercolumnLinear([300, 100], 200), nn.Linear(400, 200)
    for name, parameter in layer.named_parameters():
        like = linear.get_parameter(name)
        assert parameter.shape == like.shape
        assert parameter.abs().max() <= 1 / 20
        assert parameter.std().item() == pytest.approx(like.std().item(), rel=0.2)


def test_parameters_are_trained(inputs: Inputs, device: torch.device) -> None:
    layer = HypercolumnLinear([8, 5], 6, activation="relu", device=device)
    target = torch.rand(2, inputs.points.shape[1], 6, device=device)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (call(layer, inputs) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def through_pickle(layer: HypercolumnLinear) -> HypercolumnLinear:
    return pickle.loads(pickle.dumps(layer))


def through_torch_save(layer: HypercolumnLinear) -> HypercolumnLinear:
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle, through_torch_save])
@pytest.mark.parametrize("options", [{}, {"bias": False}, *OPTIONS.values()], ids=str)
def test_copies_compute_the_same(
    duplicate: Any, options: dict[str, Any], inputs: Inputs, device: torch.device
) -> None:
    layer = HypercolumnLinear([8, 5], 6, device=device, **options)
    twin = duplicate(layer)
    expected = call(layer, inputs)
    with torch.no_grad():
        layer.weight.zero_()  # the twin has its own
    assert torch.equal(call(twin, inputs), expected)


def test_dtype_and_device() -> None:
    layer = HypercolumnLinear([3, 4], 5, dtype=torch.float64, device="meta")
    assert layer.weight.dtype == torch.float64
    assert layer.bias.device.type == "meta"
    assert HypercolumnLinear([3, 4], 5).to(torch.float16).weight.dtype == torch.float16


def test_repr_names_what_matters() -> None:
    layer = HypercolumnLinear([64, 256], 128, activation="relu")
    assert repr(layer) == (
        "HypercolumnLinear(in_channels=[64, 256], out_features=128, bias=True, activation=relu)"
    )


@pytest.mark.parametrize("channels", [[5, 8], [13], [8, 4], [6, 6, 1]], ids=str)
def test_maps_of_other_channels_or_order_are_refused(
    channels: list[int], inputs: Inputs, device: torch.device
) -> None:
    """Also where their sum, and with it the weight, is the same."""
    layer = HypercolumnLinear(channels, 6, device=device)
    said = rf"features have \[8, 5\] channels but in_channels=\[{', '.join(map(str, channels))}\]"
    with pytest.raises(ValueError, match=said):
        call(layer, inputs)
    compiled = torch.compile(layer, backend="eager")
    with pytest.raises(Exception, match=r"features have \[8, 5\] channels"):
        call(compiled, inputs)


def test_what_are_no_maps_is_named_as_ever(inputs: Inputs) -> None:
    layer = HypercolumnLinear([8, 5], 6)
    for features, said in (
        (inputs.features[0], "features is a Tensor; expected a list"),
        ([f[0] for f in inputs.features], r"features\[0\] has shape \(8, 6, 8\); expected 4"),
    ):
        with pytest.raises((TypeError, ValueError), match=said):
            layer(features, inputs.points, inputs.case.image_size)


def test_numbers_of_numpy_are_numbers() -> None:
    layer = HypercolumnLinear(np.array([8, 5]), np.int64(6))
    assert layer.in_channels == (8, 5)
    assert type(layer.out_features) is int
    assert layer.weight.shape == (6, 13)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((256, 6), TypeError, r"in_channels=256; .*For a single map pass \[256\]"),
        (([], 6), ValueError, "in_channels is empty"),
        (([8, 0], 6), ValueError, r"in_channels\[1\]=0; expected an integer of at least 1"),
        (([8, 5.0], 6), ValueError, r"in_channels\[1\]=5.0; expected an integer"),
        (([8], True), ValueError, "out_features=True; expected an integer"),
        (([8], 6.0), ValueError, "out_features=6.0; expected an integer"),
        (([8], (2, 3, 4)), ValueError, r"out_features=\(2, 3, 4\); expected D, or \(E, D\)"),
    ],
)
def test_bad_sizes_are_refused(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        HypercolumnLinear(*arguments)
