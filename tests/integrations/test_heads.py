"""FusedLinear and PointHead against the modules they stand for."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.integrations import FusedLinear, PointHead

from .transcribed import detectron2_point_sample

CHANNELS = (5, 3)
SIZE = (12, 16)


def maps() -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, 5, 6, 8, generator=random), torch.randn(2, 3, 3, 4, generator=random)]


def pixels(count: int = 7) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.rand(2, count, 2, generator=random) * torch.tensor([16.0, 12.0]) - 0.5


LINEAR: dict[str, Any] = {
    "linear": lambda: nn.Linear(8, 6),
    "conv1d": lambda: nn.Conv1d(8, 6, 1),
    "conv2d": lambda: nn.Conv2d(8, 6, 1, bias=False),
    "spectral": lambda: nn.utils.parametrizations.spectral_norm(nn.Conv1d(8, 6, 1)),
}


@pytest.mark.parametrize("make", LINEAR.values(), ids=LINEAR)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_is_the_module_on_hypercolumns(make: Any, activation: str | None) -> None:
    """Value and gradients, of the module's own parameters."""
    linear = make().eval()  # spectral norm iterates in training mode, and two layers are called
    layer = FusedLinear(linear, activation)
    h = sparse_hypercolumn(maps(), pixels(), SIZE)  # (B, N, C)
    if isinstance(linear, nn.Linear):
        expected = linear(h)
    elif isinstance(linear, nn.Conv1d):
        expected = linear(h.transpose(1, 2)).transpose(1, 2)
    else:
        expected = linear(h.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
    if activation:
        expected = F.relu(expected)
    actual = layer(maps(), pixels(), SIZE)
    torch.testing.assert_close(actual, expected)
    parameters = list(linear.parameters())
    assert all(any(p is q for q in layer.parameters()) for p in parameters)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual, parameters, upstream),
        torch.autograd.grad(expected, parameters, upstream),
    )


def test_the_optimiser_of_the_old_module_goes_on() -> None:
    conv = nn.Conv1d(8, 6, 1)
    optimizer = torch.optim.AdamW(conv.parameters(), lr=0.01)
    layer = FusedLinear(conv, "relu")
    target = torch.rand(2, 7, 6)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (layer(maps(), pixels(), SIZE) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_options_and_ragged_points_are_passed_on() -> None:
    linear = nn.Linear(8, 6)
    layer = FusedLinear(linear, "gelu", padding_mode="zeros", strides=[2, 4])
    points, image = 20 * torch.rand(5, 2), torch.tensor([1, 0, 1, 1, 0])
    expected = sparse_hypercolumn(
        maps(),
        points,
        SIZE,
        weight=linear.weight,
        bias=linear.bias,
        activation="gelu",
        batch_index=image,
        padding_mode="zeros",
        strides=[2, 4],
    )
    assert torch.equal(layer(maps(), points, SIZE, image), expected)
    assert "activation=gelu, padding_mode=zeros, strides=[2, 4]" in repr(layer)
    assert torch.equal(copy.deepcopy(layer)(maps(), points, SIZE, image), expected)


class _Adapted(nn.Linear):
    """A layer with more than a weight and a bias."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.sum(-1, keepdim=True)


def _replaced() -> nn.Module:
    """As accelerate does it: a forward of the object alone."""
    linear = nn.Linear(8, 6)
    linear.forward = lambda x: 2 * x  # type: ignore[method-assign]
    return linear


BAD_LINEAR = [
    (nn.Conv2d(8, 6, 3), ValueError, r"Conv2d with kernel_size=\(3, 3\); .*needs kernel_size=1"),
    (nn.Conv1d(8, 6, 1, stride=2), ValueError, r"Conv1d with stride=\(2,\); .*needs stride=1"),
    (nn.Conv2d(8, 6, 1, padding=1), ValueError, r"Conv2d with padding=\(1, 1\)"),
    (nn.Conv1d(8, 8, 1, groups=2), ValueError, r"Conv1d with groups=2; expected groups=1"),
    (nn.Sequential(nn.Linear(8, 6)), TypeError, r"container\.Sequential; expected torch\.nn\.L"),
    (nn.LazyLinear(6), ValueError, r"LazyLinear has no shape yet"),
    (_Adapted(8, 6), TypeError, r"linear is a _Adapted, whose forward is its own"),
    (_replaced(), TypeError, r"linear is a Linear, whose forward is its own"),
    (
        prune.identity(nn.Linear(8, 6), "weight"),
        ValueError,
        r"Linear whose weight is made by a hook",
    ),
    (
        prune.identity(nn.Linear(8, 6), "bias"),
        ValueError,
        r"Linear whose bias is made by a hook.*prune\.remove\(linear, 'bias'\)",
    ),
]


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize(("linear", "error", "message"), BAD_LINEAR, ids=lambda v: str(v)[:25])
def test_what_is_no_pointwise_layer_is_refused(
    linear: nn.Module, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        FusedLinear(linear)


def test_hooks_of_the_layer_are_warned_of() -> None:
    linear = nn.Linear(sum(CHANNELS), 6)
    layer, at = FusedLinear(linear), pixels()
    expected = layer(maps(), at, SIZE)
    linear.register_forward_hook(lambda *_: 0)
    with pytest.warns(UserWarning, match="linear has 1 forward hooks, which are not") as warned:
        assert torch.equal(layer(maps(), at, SIZE), expected)
    assert warned[0].filename == __file__, "the line to mend is the caller's"


def test_unknown_options_are_refused_at_once() -> None:
    linear = nn.Linear(8, 6)
    with pytest.raises(TypeError, match=r"FusedLinear has no option 'stride'; use one of \('strid"):
        FusedLinear(linear, stride=[4])
    with pytest.raises(TypeError, match="has no option 'weight'"):
        FusedLinear(linear, weight=linear.weight)
    with pytest.raises(ValueError, match=r"activation='tanh' is unknown; use one of"):
        FusedLinear(linear, "tanh")
    with pytest.raises(ValueError, match=r"padding_mode='wrap' is unknown; use one of"):
        FusedLinear(linear, padding_mode="wrap")


class _Counted(nn.Module):
    """A parametrisation like spectral norm's, which changes with each evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def forward(self, tensor: Tensor) -> Tensor:
        self.times += 1
        return tensor * 1


def test_a_parametrisation_is_evaluated_once_a_call() -> None:
    linear, count = nn.Linear(sum(CHANNELS), 6), _Counted()
    parametrize.register_parametrization(linear, "weight", count)
    before = count.times
    layer = FusedLinear(linear)
    assert count.times == before, "not by wrapping it"
    layer(maps(), pixels(), SIZE)
    assert count.times == before + 1


def test_spectral_norm_iterates_as_in_the_layer_itself() -> None:
    plain = nn.utils.parametrizations.spectral_norm(nn.Linear(sum(CHANNELS), 6))
    layer = FusedLinear(copy.deepcopy(plain))
    h = sparse_hypercolumn(maps(), pixels(), SIZE)
    for _ in range(3):
        torch.testing.assert_close(layer(maps(), pixels(), SIZE), plain(h))


def test_parametrisations_are_taken() -> None:
    linear = nn.utils.parametrizations.weight_norm(nn.Linear(sum(CHANNELS), 6))
    layer, at = FusedLinear(linear), pixels()
    before = layer(maps(), at, SIZE)
    with torch.no_grad():
        linear.parametrizations.weight.original0.mul_(3)  # type: ignore[union-attr]
        bias = linear.bias
    torch.testing.assert_close(layer(maps(), at, SIZE) - bias, 3 * (before - bias))


def test_padding_by_name_is_taken() -> None:
    assert FusedLinear(nn.Conv1d(8, 6, 1, padding="same")).linear.padding == "same"


class MMSegPointHead(nn.Module):
    """mmseg/models/decode_heads/point_head.py: its layers and its forward, without norms."""

    def __init__(
        self, in_channels: tuple[int, ...], channels: int, k: int, coarse_each_layer: bool
    ) -> None:
        super().__init__()
        width = sum(in_channels) + k
        self.coarse_each_layer = coarse_each_layer
        self.fcs = nn.ModuleList()
        for _ in range(3):
            fc = nn.Module()
            fc.conv = nn.Conv1d(width, channels, 1)
            self.fcs.append(fc)
            width = channels + (k if coarse_each_layer else 0)
        self.fc_seg = nn.Conv1d(width, k, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        x = torch.cat([fine, coarse], dim=1)
        for fc in self.fcs:
            x = F.relu(fc.conv(x))
            if self.coarse_each_layer:
                x = torch.cat((x, coarse), dim=1)
        return self.fc_seg(x)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("coarse_each_layer", [True, False], ids=["each-layer", "first-layer"])
def test_point_head_is_that_of_mmsegmentation(coarse_each_layer: bool, align_corners: bool) -> None:
    """A checkpoint of the one loads into the other; values and all gradients agree."""
    theirs = MMSegPointHead(CHANNELS, 16, 4, coarse_each_layer).double()
    ours = PointHead(CHANNELS, 16, 4, 3, coarse_each_layer, align_corners).double()
    ours.load_state_dict(theirs.state_dict())
    features = [f.double().requires_grad_() for f in maps()]
    logits = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    points = torch.rand(2, 9, 2, dtype=torch.float64)

    def sample(feature: Tensor) -> Tensor:
        return detectron2_point_sample(feature, points, align_corners=align_corners)

    expected = theirs(torch.cat([sample(f) for f in features], dim=1), sample(logits))
    actual = ours(features, logits, points)
    torch.testing.assert_close(actual, expected)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual, [*features, logits, *ours.parameters()], upstream),
        torch.autograd.grad(expected, [*features, logits, *theirs.parameters()], upstream),
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_fcs": 0}, ValueError, "num_fcs=0; expected an integer of at least 1"),
        ({"num_fcs": 2.0}, ValueError, "num_fcs=2.0; expected an integer"),
        ({"in_channels": 5}, TypeError, r"in_channels=5; .*For a single map pass \[5\]"),
        ({"in_channels": []}, ValueError, "in_channels is empty"),
        ({"channels": "16"}, ValueError, "channels='16'; expected an integer"),
        ({"num_classes": -1}, ValueError, "num_classes=-1; expected an integer"),
    ],
)
def test_point_heads_of_no_size(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    good: dict[str, Any] = {"in_channels": CHANNELS, "channels": 16, "num_classes": 4}
    with pytest.raises(error, match=message):
        PointHead(**good | changes)


def test_point_head_refuses_maps_in_another_order() -> None:
    head = PointHead(CHANNELS, 16, 4)
    said = r"features have \[3, 5\] channels but in_channels=\[5, 3\]"
    with pytest.raises(ValueError, match=said):
        head(maps()[::-1], torch.randn(2, 4, 3, 4), torch.rand(2, 9, 2))


@pytest.mark.parametrize("name", ["fcs.1.conv", "fc_seg"])
def test_hooks_of_layers_of_the_point_head_are_warned_of(name: str) -> None:
    head = PointHead(CHANNELS, 16, 4)
    head.get_submodule(name).register_forward_hook(lambda *_: 0)
    with pytest.warns(UserWarning, match=f"{name} has 1 forward hooks, .*on the PointHead") as said:
        head(maps(), torch.randn(2, 4, 3, 4), torch.rand(2, 9, 2))
    assert said[0].filename == __file__


def test_point_head_under_autocast() -> None:
    head = PointHead(CHANNELS, 16, 4)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(maps(), torch.randn(2, 4, 3, 4), torch.rand(2, 9, 2))
    assert logits.dtype == torch.bfloat16
    logits.float().sum().backward()
    assert all(p.grad is not None for p in head.parameters())
