"""VGG-16: its maps against a network built as torchvision builds it, and torchvision's weights."""

from __future__ import annotations

import copy
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelnet_triton.models import VGG16, ImageNormalization

WIDTH = 1 / 16
NAMES = tuple(
    f"conv{block}_{n}"
    for block, count in enumerate((2, 2, 3, 3, 3), 1)
    for n in range(1, count + 1)
)
EVERY_LAYER = (*NAMES, "conv6", "conv7")


def torchvision_vgg(batch_norm: bool) -> tuple[nn.Sequential, nn.Sequential]:
    """(features, classifier) as torchvision.models.vgg16 and vgg16_bn, at WIDTH, 10 classes."""
    features: list[nn.Module] = []
    before = 3
    for channels, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            now = round(WIDTH * channels)
            features.append(nn.Conv2d(before, now, 3, padding=1))
            features += [nn.BatchNorm2d(now)] if batch_norm else []
            features.append(nn.ReLU(inplace=False))
            before = now
        features.append(nn.MaxPool2d(2, 2))
    wide = round(WIDTH * 4096)
    classifier = [nn.Linear(before * 49, wide), nn.ReLU(), nn.Dropout()]
    classifier += [nn.Linear(wide, wide), nn.ReLU(), nn.Dropout(), nn.Linear(wide, 10)]
    parts = nn.Sequential(*features), nn.Sequential(*classifier)
    for part in parts:
        for module in part.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.normal_(module.bias, std=0.1)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        part.double().eval()
    return parts


def state_dict_of(features: nn.Module, classifier: nn.Module) -> dict[str, Tensor]:
    return {f"features.{name}": t for name, t in features.state_dict().items()} | {
        f"classifier.{name}": t for name, t in classifier.state_dict().items()
    }


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "batch-norm"])
def batch_norm(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module")
def theirs(batch_norm: bool) -> tuple[nn.Sequential, nn.Sequential]:
    torch.manual_seed(0)
    return torchvision_vgg(batch_norm)


@pytest.fixture(scope="module")
def weights(theirs: tuple[nn.Sequential, nn.Sequential]) -> dict[str, Tensor]:
    return state_dict_of(*theirs)


@pytest.fixture(scope="module")
def small_weights() -> dict[str, Tensor]:
    """Weights without batch normalisation, for tests that do not depend on it."""
    torch.manual_seed(0)
    return state_dict_of(*torchvision_vgg(False))


@torch.no_grad()
def test_every_map_is_torchvisions(
    theirs: tuple[nn.Sequential, nn.Sequential], weights: dict[str, Tensor], batch_norm: bool
) -> None:
    """The thirteen maps after their ReLU, and fc6, fc7 of a 224 x 224 image at the centre cell.

    pool5 is 7 x 7 there: the window of conv6's centre cell is all of it, without padding.
    """
    features, classifier = theirs
    backbone = VGG16(EVERY_LAYER, width=WIDTH, batch_norm=batch_norm).double().eval()
    backbone.load_torchvision(weights)
    image = torch.rand(1, 3, 224, 224, dtype=torch.float64)
    maps = dict(zip(EVERY_LAYER, backbone(image), strict=True))
    x, expected = image, []
    for module in features:
        x = module(x)
        if isinstance(module, nn.ReLU):
            expected.append(x)
    for name, plain in zip(NAMES, expected, strict=True):
        torch.testing.assert_close(maps[name], plain, msg=name)
    fc6 = classifier[1](classifier[0](x.flatten(1)))
    fc7 = classifier[4](classifier[3](fc6))
    assert maps["conv6"].shape[2:] == maps["conv7"].shape[2:] == (7, 7)
    torch.testing.assert_close(maps["conv6"][:, :, 3, 3], fc6)
    torch.testing.assert_close(maps["conv7"][:, :, 3, 3], fc7)
    assert fc7.count_nonzero() > 0


def save_torch(weights: dict[str, Tensor], folder: Path) -> Path:
    torch.save(weights, folder / "vgg16.pth")
    return folder / "vgg16.pth"


def save_safetensors(weights: dict[str, Tensor], folder: Path) -> Path:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(weights, folder / "vgg16.safetensors")
    return folder / "vgg16.safetensors"


@pytest.mark.parametrize("save", [save_torch, save_safetensors])
def test_loads_files(
    save: Callable[..., Path], small_weights: dict[str, Tensor], tmp_path: Path
) -> None:
    backbone = VGG16(("conv7",), width=WIDTH)
    backbone.load_torchvision(save(small_weights, tmp_path))
    torch.testing.assert_close(
        backbone.conv7.weight.flatten(1).double(), small_weights["classifier.3.weight"]
    )


def test_asks_torchvision(
    monkeypatch: pytest.MonkeyPatch, batch_norm: bool, weights: dict[str, Tensor]
) -> None:
    """torchvision itself is not needed for this test: a stand-in with its interface."""
    asked = []

    def constructor(name: str) -> Callable[..., Any]:
        def construct(*, weights: str) -> Any:
            asked.append((name, weights))
            return types.SimpleNamespace(state_dict=lambda: state)

        return construct

    state = weights
    fake = types.ModuleType("torchvision")
    fake.models = types.SimpleNamespace(  # type: ignore[attr-defined]
        vgg16=constructor("vgg16"), vgg16_bn=constructor("vgg16_bn")
    )
    monkeypatch.setitem(sys.modules, "torchvision", fake)
    backbone = VGG16(("conv1_1",), width=WIDTH, batch_norm=batch_norm).load_torchvision()
    assert asked == [("vgg16_bn" if batch_norm else "vgg16", "IMAGENET1K_V1")]
    torch.testing.assert_close(backbone.conv1_1.weight.double(), weights["features.0.weight"])


def test_without_torchvision_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs torchvision.*pip install torchvision"):
        VGG16(("conv1_1",)).load_torchvision()


def test_old_files_without_counters_load(weights: dict[str, Tensor], batch_norm: bool) -> None:
    """vgg16_bn's file is older than num_batches_tracked."""
    old = {name: t for name, t in weights.items() if not name.endswith("num_batches_tracked")}
    backbone = VGG16(width=WIDTH, batch_norm=batch_norm).load_torchvision(old)
    expected = weights["features.0.weight"].float()
    assert torch.equal(backbone.conv1_1.weight, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("features.2.bias"), r"missing features\.2\.bias \(for conv1_2\.bias\)"),
        (lambda w: w.update(extra=torch.ones(1)), r"unexpected extra"),
        (
            lambda w: w.update({"features.0.weight": torch.ones(4, 3, 5, 5)}),
            r"features\.0\.weight has shape \(4, 3, 5, 5\), conv1_1\.weight needs \(4, 3, 3, 3\)",
        ),
        (
            lambda w: w.update({"classifier.0.weight": torch.ones(256, 31)}),
            r"classifier\.0\.weight has shape \(256, 31\), conv6\.weight needs \(256, 1568\)",
        ),
        (
            lambda w: w.update({"classifier.3.bias": torch.full((256,), torch.nan)}),
            r"classifier\.3\.bias is not finite",
        ),
    ],
    ids=["missing", "unexpected", "shape", "classifier-shape", "nan"],
)
def test_what_does_not_fit_is_named(
    change: Callable[[dict[str, Tensor]], Any], message: str, small_weights: dict[str, Tensor]
) -> None:
    weights = dict(small_weights)
    change(weights)
    backbone = VGG16(EVERY_LAYER, width=WIDTH)
    before = backbone.conv1_1.bias.clone()
    with pytest.raises(ValueError, match=message):
        backbone.load_torchvision(weights)
    assert torch.equal(backbone.conv1_1.bias, before), "something was loaded all the same"


def test_the_other_variant_is_refused(batch_norm: bool, weights: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"batch_norm=False"):
        VGG16(width=WIDTH, batch_norm=not batch_norm).load_torchvision(weights)


def _written(path: Path, content: Any) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"hello", r"a\.pth cannot be read: .*; expected a state dict"),
        ("a.safetensors", b"hello", r"a\.safetensors cannot be read: SafetensorError: .*expected"),
        ("a.pth", nn.Linear(1, 1), r"a\.pth cannot be read: it holds more than tensors and plain"),
        ("a.pth", [1, 2], r"a\.pth holds a list; expected a state dict"),
        ("a.pth", {"epoch": 3, "state_dict": {}}, r"holds \['epoch', 'state_dict'\], which are no"),
    ],
)
def test_other_files_are_named(name: str, content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        VGG16(("conv1_1",)).load_torchvision(_written(tmp_path / name, content))


def test_deeper_weights_are_not_needed(small_weights: dict[str, Tensor]) -> None:
    few = {name: t for name, t in small_weights.items() if name.split(".")[1] in ("0", "2")}
    few = {name: t for name, t in few.items() if name.startswith("features")}
    backbone = VGG16(("conv1_2",), width=WIDTH).load_torchvision(few)
    assert torch.equal(backbone.conv1_2.weight, few["features.2.weight"])


def test_builds_and_computes_no_deeper_than_asked() -> None:
    backbone = VGG16(("conv3_1", "conv1_1"), width=WIDTH)
    convolutions = [name for name, m in backbone.named_children() if isinstance(m, nn.Conv2d)]
    assert convolutions == ["conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"]
    maps = backbone(torch.rand(1, 3, 16, 16))
    assert [m.shape[1] for m in maps] == [16, 4], "in the order asked"
    assert (backbone.channels, backbone.strides) == ((16, 4), (4, 1))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_sizes_round_down_with_the_strides(batch_norm: bool) -> None:
    backbone = VGG16(EVERY_LAYER, width=WIDTH, batch_norm=batch_norm).eval()
    maps = backbone(torch.rand(1, 3, 77, 103))
    for one, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert one.shape == (1, channels, 77 // stride, 103 // stride)
    assert sorted(set(backbone.strides)) == [1, 2, 4, 8, 16, 32]


def test_whole_network_has_vggs_channels() -> None:
    with torch.device("meta"):
        backbone = VGG16(("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3", "conv7"))
    assert backbone.channels == (64, 128, 256, 512, 512, 4096)
    assert sum(backbone.channels) == 5568  # the paper's hypercolumn with conv-7
    assert backbone.conv6.weight.shape == (4096, 512, 7, 7)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_channels_last_is_kept(batch_norm: bool) -> None:
    backbone = VGG16(width=WIDTH, batch_norm=batch_norm)
    images = torch.rand(2, 3, 32, 32)
    expected = backbone.eval()(images)
    backbone = backbone.to(memory_format=torch.channels_last)
    maps = backbone(images.contiguous(memory_format=torch.channels_last))
    for one, plain in zip(maps, expected, strict=True):
        assert one.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(one, plain)


def test_dropout_of_the_last_two_in_training_only() -> None:
    backbone = VGG16(("conv5_3", "conv6", "conv7"), width=1 / 4, dropout=0.5)
    images = torch.rand(1, 3, 32, 32)
    conv5, *dropped = backbone(images)
    for layer, one in zip(("conv6", "conv7"), dropped, strict=True):
        share = (one == 0).double().mean().item()  # half by the ReLU, half of the others dropped
        assert 0.6 < share < 0.9, layer
    backbone.eval()
    again, *whole = backbone(images)
    assert torch.equal(again, conv5)
    assert all((one == 0).double().mean() < 0.6 for one in whole)


def test_is_initialised_as_he_et_al_say() -> None:
    backbone = VGG16(("conv3_3",))
    deviation = backbone.conv3_3.weight.std().item()
    assert deviation == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert backbone.conv3_3.bias.count_nonzero() == 0


def test_normalization_is_applied_first() -> None:
    images = torch.rand(2, 3, 8, 8)
    for name, module in (
        ("torchvision", ImageNormalization.torchvision()),
        ("caffe", ImageNormalization.caffe()),
    ):
        backbone = VGG16(("conv1_1",), width=WIDTH, normalization=name)
        plain = VGG16(("conv1_1",), width=WIDTH)
        plain.load_state_dict(backbone.state_dict())  # constants are not in it
        torch.testing.assert_close(backbone(images)[0], plain(module(images))[0])


def test_caffe_is_blue_green_red_around_zero() -> None:
    mean = torch.tensor([123.68, 116.779, 103.939])[None, :, None, None] / 255  # red, green, blue
    normalized = ImageNormalization.caffe()(mean)
    torch.testing.assert_close(normalized, torch.zeros_like(mean), atol=1e-4, rtol=0)
    brighter_red = mean + torch.tensor([0.1, 0, 0])[None, :, None, None]
    assert ImageNormalization.caffe()(brighter_red).flatten().argmax() == 2


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_compute_the_same(duplicate: Callable[[VGG16], VGG16]) -> None:
    backbone = VGG16(("conv2_2", "conv1_1"), width=WIDTH, normalization="caffe")
    images = torch.rand(1, 3, 8, 8)
    for one, other in zip(backbone(images), duplicate(backbone)(images), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ("conv3_4",)}, r"'conv3_4' is unknown; use names from \['conv1_1'"),
        ({"layers": "conv1_1"}, r"layers='conv1_1'; expected a sequence"),
        ({"layers": ()}, r"layers=\(\); expected a sequence"),
        ({"layers": ("conv6", "conv6")}, "repeats a name"),
        ({"width": 0}, "width=0; expected a positive factor"),
        ({"dropout": 1.0}, r"dropout=1\.0; expected a probability"),
        ({"normalization": "imagenet"}, r"normalization='imagenet' is unknown.*'torchvision'"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VGG16(**options)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 64, 64), r"images is \(3, 64, 64\); expected a tensor \(B, C, H, W\)"),
        (torch.rand(1, 1, 64, 64), r"expected \(B, 3, H, W\).*expand"),
        (torch.rand(1, 3, 31, 64), r"31 x 64 pixels; conv7 has a stride of 32.*Enlarge"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), r"torch\.uint8; .*images\.float\(\) / 255"),
    ],
)
def test_bad_images(images: Tensor, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        VGG16(("conv7",), width=WIDTH)(images)
