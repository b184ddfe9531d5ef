"""The MLP at sparse points against hypercolumns, batch normalisation and linear layers by name."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelnet_triton.models import GaussianInit, PixelMLP
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

CHANNELS, SIZE, STRIDES = (5, 7), (12, 18), (1, 4)
HIDDEN: dict[str, tuple[int, ...]] = {"fc-1": (), "fc-2": (6,), "fc-3": (6, 9)}


@pytest.fixture
def maps() -> list[Tensor]:
    return [
        torch.randn(2, 5, 12, 18, dtype=torch.float64),
        4 + 10 * torch.randn(2, 7, 3, 4, dtype=torch.float64),
    ]


@pytest.fixture
def points() -> Tensor:
    return torch.stack([torch.randint(18, (2, 40)), torch.randint(12, (2, 40))], dim=-1)


def head_of(hidden: tuple[int, ...], **options: Any) -> PixelMLP:
    options = {"init": "kaiming", "strides": STRIDES, "dropout": 0.0} | options
    head = PixelMLP(CHANNELS, hidden, out_features=3, **options).double()
    for name, parameter in head.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter)
    if head.norm is not None:
        nn.init.uniform_(head.norm.weight, 0.5, 1.5)
    return head


def by_name(head: PixelMLP, maps: list[Tensor], points: Tensor, norm: Any = None) -> Tensor:
    """g(h_p), with every layer a torch operator of its own; scores (B * N, K)."""
    values = reference_hypercolumn(maps, points, SIZE, strides=head.first.strides).flatten(0, 1)
    if norm is not None:
        values = norm(values)
    layers = [head.first, *(m for m in head.rest if isinstance(m, nn.Linear))]
    for layer in layers[:-1]:
        values = F.relu(F.linear(values, layer.weight, layer.bias))
    return F.linear(values, layers[-1].weight, layers[-1].bias)


def assert_same_gradients(
    head: PixelMLP, values: Tensor, expected: Tensor, *inputs: Tensor
) -> None:
    torch.testing.assert_close(values, expected)
    upstream = torch.randn_like(values)
    wanted = [*head.parameters(), *inputs]
    actual = torch.autograd.grad(values, wanted, upstream)
    plain = torch.autograd.grad(expected, wanted, upstream)
    for one, other in zip(actual, plain, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_values_and_gradients(hidden: tuple[int, ...], maps: list[Tensor], points: Tensor) -> None:
    head = head_of(hidden)
    for one in maps:
        one.requires_grad_()
    values = head(maps, points, SIZE)
    assert values.shape == (2, 40, 3)
    assert_same_gradients(head, values.flatten(0, 1), by_name(head, maps, points), *maps)


@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_batch_norm_in_training(
    hidden: tuple[int, ...], maps: list[Tensor], points: Tensor
) -> None:
    """Values, gradients and running statistics are those of BatchNorm1d on the hypercolumns."""
    head = head_of(hidden, batch_norm=True)
    assert head.norm is not None
    other = copy.deepcopy(head.norm)
    values = head(maps, points, SIZE).flatten(0, 1)
    other.weight, other.bias = head.norm.weight, head.norm.bias
    expected = by_name(head, maps, points, other)
    assert_same_gradients(head, values, expected)
    torch.testing.assert_close(head.norm.running_mean, other.running_mean)
    torch.testing.assert_close(head.norm.running_var, other.running_var)
    assert head.norm.running_var.max() > 5, "the statistics were not updated"


@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_batch_norm_folds_in_evaluation(
    hidden: tuple[int, ...], maps: list[Tensor], points: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradients agree too, those of a frozen normalisation's scale and shift among them."""
    head = head_of(hidden, batch_norm=True)
    assert head.norm is not None
    for _ in range(20):
        head(maps, points, SIZE)
    head.norm.eval()  # frozen: the rest may train on
    values = head(maps, points, SIZE).flatten(0, 1)
    assert_same_gradients(head, values, by_name(head, maps, points, head.norm))
    # fused: hypercolumns are never made
    monkeypatch.setattr(PixelMLP, "_normalized", None)
    assert torch.equal(head.eval()(maps, points, SIZE).flatten(0, 1), values)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_ragged_points(batch_norm: bool, maps: list[Tensor], points: Tensor) -> None:
    head = head_of((6,), batch_norm=batch_norm)
    image = torch.arange(2).repeat_interleave(40)
    ragged = head(maps, points.flatten(0, 1), SIZE, image)
    torch.testing.assert_close(ragged, head(maps, points, SIZE).flatten(0, 1))


def test_dropout_after_each_hidden_layer(maps: list[Tensor], points: Tensor) -> None:
    head = head_of((64, 64), dropout=0.5)
    zeros = []
    for module in head.rest:
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(
                lambda _, inputs, output: zeros.append((inputs[0] != 0) & (output == 0))
            )
    head(maps, points, SIZE)
    assert len(zeros) == 2
    assert all(0.15 < z.double().mean() < 0.35 for z in zeros)  # half of the half that is not 0
    head.eval()
    assert torch.equal(head(maps, points, SIZE), head(maps, points, SIZE))


@pytest.mark.parametrize(
    ("init", "deviation", "last_deviation", "last_bias"),
    [
        ("gaussian", 1e-3, 1e-3, 0.0),
        ("normals", 1e-3, 5e-4, 0.1),
        (GaussianInit(0.02, last_std=0.01, last_bias=-3.0), 0.02, 0.01, -3.0),
        ("kaiming", (2 / 400) ** 0.5, (1 / 500) ** 0.5, 0.0),
    ],
    ids=str,
)
def test_initialisation(
    init: str | GaussianInit, deviation: float, last_deviation: float, last_bias: float
) -> None:
    head = PixelMLP([300, 100], (500,), out_features=400, init=init)
    last = head.rest[-1]
    assert head.first.weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert last.weight.std().item() == pytest.approx(last_deviation, rel=0.02)
    assert head.first.bias.count_nonzero() == 0
    torch.testing.assert_close(last.bias, torch.full((400,), last_bias))


def test_initialisation_of_a_linear_predictor_is_that_of_a_last_layer() -> None:
    head = PixelMLP([1000], (), out_features=300, init="normals")
    assert head.first.weight.std().item() == pytest.approx(5e-4, rel=0.02)
    torch.testing.assert_close(head.first.bias, torch.full((300,), 0.1))


def test_paper_s_head_has_the_paper_s_sizes() -> None:
    with torch.device("meta"):
        head = PixelMLP((64, 128, 256, 512, 512), out_features=60)
    shapes = [tuple(p.shape) for name, p in head.named_parameters() if "weight" in name]
    assert shapes == [(4096, 1472), (4096, 4096), (60, 4096)]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_autocast(batch_norm: bool, training: bool, maps: list[Tensor], points: Tensor) -> None:
    head = head_of((6,), batch_norm=batch_norm).float().train(training)
    single = [one.float() for one in maps]
    with torch.autocast("cpu", torch.bfloat16):
        values = head(single, points, SIZE)
    assert values.dtype == torch.bfloat16
    torch.testing.assert_close(values.float(), head(single, points, SIZE), atol=0.5, rtol=0.1)


def test_features_dtype(maps: list[Tensor], points: Tensor) -> None:
    head = head_of((6,)).bfloat16()
    assert head([one.bfloat16() for one in maps], points, SIZE).dtype == torch.bfloat16
    with pytest.raises(TypeError, match=r"weight is torch\.bfloat16 but the features are"):
        head(maps, points, SIZE)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_copies_compute_the_same(
    duplicate: Callable[[PixelMLP], PixelMLP],
    batch_norm: bool,
    maps: list[Tensor],
    points: Tensor,
) -> None:
    head = head_of((6,), batch_norm=batch_norm)
    assert torch.equal(duplicate(head)(maps, points, SIZE), head(maps, points, SIZE))


def test_plan_reaches_the_first_layer(maps: list[Tensor], points: Tensor) -> None:
    for batch_norm in (False, True):
        head = head_of((6,), batch_norm=batch_norm).eval()
        head.first.plan = "fastest"
        with pytest.raises(ValueError, match="plan='fastest' is unknown"):
            head(maps, points, SIZE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_channels": []}, "in_channels is empty"),
        ({"in_channels": [3, 0]}, r"in_channels\[1\]=0; expected an integer of at least 1"),
        ({"hidden_features": (4.5,)}, r"hidden_features\[0\]=4\.5; expected an integer"),
        ({"out_features": 0}, r"out_features=0; expected an integer of at least 1"),
        ({"dropout": 1.5}, r"dropout=1\.5; expected a probability"),
        ({"dropout": "0.5"}, r"dropout='0\.5'; expected a probability"),
        ({"init": "xavier"}, r"init='xavier' is unknown; use one of \('gaussian'"),
        ({"in_channels": 3}, r"in_channels=3; expected a list, the channels of each map"),
        ({"hidden_features": 4}, r"hidden_features=4; expected a list or tuple of integers"),
        ({"strides": [1, 2]}, r"strides=\[1, 2\]; expected one for each of the 1 maps"),
    ],
    ids=str,
)
def test_bad_options(change: dict[str, Any], message: str) -> None:
    options = {"in_channels": [3], "hidden_features": (4,), "out_features": 2} | change
    with pytest.raises((TypeError, ValueError), match=message):
        PixelMLP(**options)
