"""Backbone and head together: gradients against dense upsampling, and other people's backbones."""

from __future__ import annotations

import copy
import doctest
import importlib
import io
import pickle
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
from pixelnet_triton.models.backbones import feature_maps
from pixelnet_triton.reference import dense_linear

from .tolerances import assert_close_to_reference

LAYERS = ("conv1_2", "conv2_1", "conv3_3", "conv7")


def network(**options: Any) -> PixelNet:
    backbone = VGG16(LAYERS, width=1 / 16, **options)
    head = PixelMLP(backbone.channels, (8, 6), out_features=4, init="kaiming", dropout=0.0)
    return PixelNet(backbone, head)


def random_points(images: Tensor, count: int) -> Tensor:
    batch, _, height, width = images.shape
    shape = (batch, count)
    return torch.stack([torch.randint(width, shape), torch.randint(height, shape)], dim=-1)


def dense_scores(model: PixelNet, images: Tensor) -> Tensor:
    """Every map upsampled to every pixel, then the MLP as 1x1 convolutions: (B, H, W, K)."""
    first = model.head.first
    hidden = dense_linear(
        model.backbone(images),
        (images.shape[2], images.shape[3]),
        first.weight,
        first.bias,
        first.activation,
        strides=model.backbone.strides,
    )
    return model.head.rest(hidden.permute(0, 2, 3, 1))


@pytest.mark.parametrize("size", [(32, 64), (45, 71)], ids=["even", "odd"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_gradient_is_that_of_the_dense_network(size: tuple[int, int], batch_norm: bool) -> None:
    """Gradients of every parameter and of the images, for a loss on the same pixels; float64.

    conv7 is 1 x 2 or, with a remainder of 13 and 7 pixels, 1 x 2 again.
    """
    model = network(batch_norm=batch_norm).double()
    model.backbone.eval()  # frozen statistics: those of a batch do not depend on the pixels
    images = torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True)
    points = random_points(images, 300)
    scores = model(images, points)
    image = torch.arange(2)[:, None]
    expected = dense_scores(model, images)[image, points[..., 1], points[..., 0]]
    names, parameters = zip(*model.named_parameters(), strict=True)
    upstream = torch.randn_like(scores)
    gradients = torch.autograd.grad(scores, (images, *parameters), upstream)
    plain = torch.autograd.grad(expected, (images, *parameters), upstream)
    pairs = zip(("scores", "images", *names), (scores, *gradients), (expected, *plain), strict=True)
    for name, one, other in pairs:
        assert other.count_nonzero() > 0, f"{name}: compares zeros"
        assert_close_to_reference(one, other, other, dtype=torch.float64, name=name)


def test_points_are_placed_by_the_strides() -> None:
    """On 45 x 71 pixels a cell of stride 4 covers 4 pixels, not 45 / 11."""
    model = network().eval()
    images = torch.rand(1, 3, 45, 71)
    points = random_points(images, 50)
    scores = model(images, points)
    model.head.first.strides = None
    assert not torch.allclose(model(images, points), scores, rtol=1e-3)


def test_ragged_points() -> None:
    model = network().eval()
    images = torch.rand(3, 3, 32, 32)
    points, image = torch.randint(32, (11, 2)), torch.tensor([2, 0, 0, 2, 2, 0, 2, 2, 2, 0, 0])
    ragged = model(images, points, image)
    for b in (0, 2):
        alone = model(images[b : b + 1], points[image == b][None])[0]
        torch.testing.assert_close(ragged[image == b], alone)


def test_trains() -> None:
    torch.manual_seed(0)
    model = network(batch_norm=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    images = torch.rand(4, 3, 32, 32)
    labels = (images[:, 0] > 0.5).long()
    losses = []
    for _ in range(30):
        points = random_points(images, 200)
        target = labels[torch.arange(4)[:, None], points[..., 1], points[..., 0]]
        loss = nn.functional.cross_entropy(model(images, points).flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("output", [None, "softmax"])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_compute_the_same(
    duplicate: Callable[[PixelNet], PixelNet], output: str | None
) -> None:
    model = network().eval()
    model.output = output
    images = torch.rand(1, 3, 32, 32)
    twin = duplicate(model)
    expected = model.predict(images)
    with torch.no_grad():
        model.head.first.weight.zero_()  # the twin has its own
    assert torch.equal(twin.predict(images), expected)


def test_state_dict_round_trip() -> None:
    model, other = network(batch_norm=True), network(batch_norm=True)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(model.predict(images), other.predict(images))


class Maps(nn.Module):
    """A small backbone that returns its two maps as `form` puts them."""

    def __init__(self, form: Callable[[list[Tensor]], Any]) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 4, 3, padding=1)
        self.coarse = nn.Conv2d(4, 6, 4, stride=4)
        self.form = form

    def forward(self, images: Tensor) -> Any:
        fine = self.fine(images)
        return self.form([fine, self.coarse(fine)])


FORMS: dict[str, Callable[[list[Tensor]], Any]] = {
    "list": lambda maps: maps,
    "tuple": tuple,
    "dict": lambda maps: {"fine": maps[0], "coarse": maps[1]},
    "feature_maps": lambda maps: types.SimpleNamespace(feature_maps=tuple(maps)),
    "NHWC": lambda maps: [m.permute(0, 2, 3, 1).contiguous() for m in maps],
}


@pytest.mark.parametrize("form", FORMS)
def test_any_backbone(form: str) -> None:
    """Same scores and gradients from every form of output; strides are the ratio of the sizes."""
    torch.manual_seed(0)
    backbone = Maps(FORMS[form])
    head = PixelMLP([4, 6], (8,), out_features=2, init="kaiming", dropout=0.0)
    model = PixelNet(backbone, head, layout="NHWC" if form == "NHWC" else "NCHW")
    images = torch.rand(2, 3, 16, 24)
    points = random_points(images, 30)
    scores = model(images, points)
    fine = backbone.fine(images)
    expected = head([fine, backbone.coarse(fine)], points, (16, 24))
    torch.testing.assert_close(scores, expected)
    gradient = torch.autograd.grad(scores.sum(), list(backbone.parameters()))
    plain = torch.autograd.grad(expected.sum(), list(backbone.parameters()))
    for one, other in zip(gradient, plain, strict=True):
        torch.testing.assert_close(one, other)
    assert model.predict(images).shape == (2, 2, 16, 24)


def test_transformers_backbone() -> None:
    """A randomly initialised ResNet of a few channels; nothing is fetched."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4, 6, 8, 10],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage1", "stage3"],
    )
    backbone = transformers.AutoBackbone.from_config(config)
    with pytest.raises(ValueError, match=r"gives maps with \(4, 8\) channels"):
        PixelNet(backbone, PixelMLP([4, 10], (8,), out_features=2))
    model = PixelNet(backbone, PixelMLP(backbone.channels, (8,), out_features=2)).eval()
    images = torch.rand(1, 3, 64, 96)
    points = random_points(images, 30)
    maps = backbone(images).feature_maps
    assert torch.equal(model(images, points), model.head(maps, points, (64, 96)))


def test_timm_s_feature_info_is_asked_for_channels() -> None:
    backbone = Maps(FORMS["list"])
    backbone.feature_info = types.SimpleNamespace(channels=lambda: [4, 6])  # type: ignore
    PixelNet(backbone, PixelMLP([4, 6], (), out_features=2))
    with pytest.raises(ValueError, match=r"Maps gives maps with \(4, 6\) channels.*PixelMLP.*\(4,"):
        PixelNet(backbone, PixelMLP([4], (), out_features=2))


def test_channels_are_compared_before_anything_is_computed() -> None:
    backbone = VGG16(("conv1_1", "conv2_1"), width=1 / 16)
    with pytest.raises(
        ValueError, match=r"VGG16 gives maps with \(4, 8\) channels but the head PixelMLP was made"
    ):
        PixelNet(backbone, PixelMLP([8, 4], out_features=2))
    late = PixelNet(Maps(FORMS["list"]), PixelMLP([4, 5], (), out_features=2))
    with pytest.raises(ValueError, match=r"Maps gives maps with \(4, 6\).*in_channels=\(4, 5\)"):
        late(torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 2))


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        (torch.rand(1, 10), TypeError, "returned a Tensor; expected a list.*features_only=True"),
        (None, TypeError, "returned a NoneType"),
        ([], ValueError, "returned no maps"),
        ([torch.rand(1, 3, 4, 4), None], TypeError, "map 1 of the backbone is a NoneType"),
        ([torch.rand(1, 49, 64)], ValueError, r"map 0 .* shape \(1, 49, 64\).*maps_of_tokens"),
    ],
)
def test_outputs_that_are_not_maps(output: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        feature_maps(output)


def test_strides_of_the_backbone_reach_the_head() -> None:
    backbone = VGG16(("conv1_1", "conv2_1"), width=1 / 16)
    head = PixelMLP(backbone.channels, (), out_features=2)
    PixelNet(backbone, head)
    assert head.first.strides == (1, 2)
    PixelNet(backbone, PixelMLP(backbone.channels, (), out_features=2, strides=[1, 2]))
    with pytest.raises(ValueError, match=r"head has strides \(1, 4\) but backbone has \(1, 2\)"):
        PixelNet(backbone, PixelMLP(backbone.channels, (), out_features=2, strides=[1, 4]))


def test_strides_of_another_length_are_refused() -> None:
    backbone = Maps(FORMS["list"])
    backbone.strides = [4]  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"backbone\.strides=\(4,\) has 1 entries.* takes 2 maps"):
        PixelNet(backbone, PixelMLP([4, 6], (), out_features=2))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 8, 8), r"images is \(3, 8, 8\); expected .*images\[None\]"),
        (None, r"images is NoneType; expected one tensor \(B, C, H, W\)"),
    ],
    ids=["one-image", "none"],
)
def test_what_is_no_batch_of_images(images: Any, message: str) -> None:
    model = PixelNet(Maps(FORMS["list"]), PixelMLP([4, 6], (), out_features=2))
    with pytest.raises(ValueError, match=message):
        model(images, torch.rand(1, 5, 2))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"output": "probability"}, ValueError, "output='probability' is unknown.*'softmax'"),
        ({"output": "normals"}, ValueError, "needs 3 values a pixel but head.out_features is 2"),
        ({"output": "depth"}, ValueError, "needs 1 values a pixel"),
        ({"layout": "NWHC"}, ValueError, "layout='NWHC' is unknown"),
        ({"head": nn.Linear(4, 4)}, TypeError, "head is a Linear; expected a .*PixelMLP"),
        ({"backbone": "vgg16"}, TypeError, "backbone is a str; expected a .*Module"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    parts = {"backbone": Maps(FORMS["list"]), "head": PixelMLP([4, 6], (), out_features=2)}
    with pytest.raises(error, match=message):
        PixelNet(**{**parts, **options})


@pytest.mark.parametrize(
    "module",
    [
        "inference.prediction",
        "inference.tiles",
        "models.backbones",
        "models.head",
        "models.normalization",
        "models.pixelnet",
        "models.vgg",
    ],
)
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"pixelnet_triton.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
