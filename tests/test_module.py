from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelnet_triton import HypercolumnLinear, sparse_hypercolumn

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
