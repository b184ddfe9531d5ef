from __future__ import annotations

import copy
import io
import pickle
from dataclasses import replace
from typing import Any

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
    layer = HypercolumnLinear([8, 5], 6, plan="fastest", device=device)
    with pytest.raises(ValueError, match="plan='fastest' is unknown"):
        call(layer, inputs)


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


def test_wrong_channels_are_refused(inputs: Inputs, device: torch.device) -> None:
    layer = HypercolumnLinear([8, 4], 6, device=device)
    with pytest.raises(ValueError, match=r"weight has shape \(6, 12\); expected \(D, 13\)"):
        call(layer, inputs)
