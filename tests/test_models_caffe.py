"""Caffe's files, written here byte by byte as its protocol says, and what becomes of them."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("google.protobuf")

from pixelnet_triton.models import VGG16, NetworkConfig, PixelMLP, PixelNet, build
from pixelnet_triton.models import caffe as caffe_module
from pixelnet_triton.models.caffe import load_caffe, read_caffemodel

LAYERS = ("conv1_2", "conv2_2", "conv7")
WIDTH = 1 / 32

Blobs = dict[str, list[Tensor]]


def varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


def field(number: int, payload: bytes | int) -> bytes:
    """One field on the wire: a varint, or a run of bytes with its length."""
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def blob_bytes(tensor: Tensor, *, legacy: bool, double: bool = False) -> bytes:
    """BlobProto: the shape in field 7, or before 2015 in four numbers; packed values in 5 or 8."""
    if legacy:
        shape = (1,) * (4 - tensor.dim()) + tuple(tensor.shape)
        head = b"".join(field(number, size) for number, size in enumerate(shape, start=1))
    else:
        head = field(7, field(1, b"".join(varint(size) for size in tensor.shape)))
    values = tensor.flatten().tolist()
    if double:
        return head + field(8, struct.pack(f"<{len(values)}d", *values))
    return head + field(5, struct.pack(f"<{len(values)}f", *values))


def caffemodel(blobs: Blobs, *, legacy: bool, double: bool = False) -> bytes:
    """NetParameter: layers in field 100 (name 1, type 2, blobs 7), or in field 2 (4, 5, 6)."""
    net = field(1, b"VGG_ILSVRC_16_layers-NoDC")
    for name, tensors in {"data": [], **blobs}.items():
        encoded = [blob_bytes(t, legacy=legacy, double=double) for t in tensors]
        if legacy:
            layer = field(4, name.encode()) + field(5, 4)  # CONVOLUTION
            net += field(2, layer + b"".join(field(6, one) for one in encoded))
        else:
            layer = field(1, name.encode()) + field(2, b"Convolution")
            net += field(100, layer + b"".join(field(7, one) for one in encoded))
    return net


def network(hidden: Sequence[int] = (6, 5)) -> PixelNet:
    backbone = VGG16(LAYERS, width=WIDTH, normalization="caffe")
    head = PixelMLP(backbone.channels, hidden, out_features=1, init="kaiming")
    return PixelNet(backbone, head, output="sigmoid").eval()


def blobs_of(model: PixelNet, *, convolutions: bool) -> Blobs:
    """As Caffe would have this network; fc6 and fc7 as convolutions, or as matrices."""
    blobs = {}
    for name, module in model.backbone.named_children():
        if not isinstance(module, nn.Conv2d):
            continue
        weight = module.weight.detach()
        end = "o" if convolutions else ""  # as the authors call them, and as VGG-16 does
        theirs = {"conv6": "fc6" + end, "conv7": "fc7" + end}.get(name, name)
        if theirs != name and not convolutions:
            weight = weight.flatten(1)
        blobs[theirs] = [weight, module.bias.detach()]
    blobs["fc8"] = [torch.ones(10, 4), torch.ones(10)]
    head = [model.head.first, *(m for m in model.head.rest if isinstance(m, nn.Linear))]
    for name, layer in zip(["fc6n", "fc7n", "cls_score"][-len(head) :], head, strict=True):
        blobs[name] = [layer.weight.detach(), layer.bias.detach()]
    return blobs


@pytest.mark.parametrize("legacy", [False, True], ids=["layer", "layers"])
@pytest.mark.parametrize("convolutions", [False, True], ids=["matrices", "convolutions"])
@pytest.mark.parametrize("double", [False, True], ids=["float", "double"])
def test_a_file_gives_the_network_it_was_made_of(
    legacy: bool, convolutions: bool, double: bool, tmp_path: Path
) -> None:
    model, other = network(), network()
    blobs = blobs_of(model, convolutions=convolutions)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffemodel(blobs, legacy=legacy, double=double))
    assert load_caffe(other, path) is other
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    images, points = torch.rand(1, 3, 64, 64), torch.rand(1, 5, 2) * 63
    assert torch.equal(other(images, points), model(images, points))


def test_the_maps_are_caffes() -> None:
    """The network written out: BGR of 0 to 255 without the mean, convolutions, max poolings."""
    model = network()
    blobs = blobs_of(model, convolutions=False)
    images = torch.rand(1, 3, 32, 64)
    x = images[:, [2, 1, 0]] * 255 - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
    for block, count in enumerate((2, 2, 3, 3, 3), start=1):
        for n in range(1, count + 1):
            weight, bias = blobs[f"conv{block}_{n}"]
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
        x = F.max_pool2d(x, 2)
    weight, bias = blobs["fc6"]
    kernels = weight.reshape(weight.shape[0], -1, 7, 7)  # the order of Caffe's flattening
    x = F.relu(F.conv2d(x, kernels, bias, padding=3))
    weight, bias = blobs["fc7"]
    x = F.relu(F.conv2d(x, weight[:, :, None, None], bias))
    loaded = load_caffe(VGG16(("conv7",), width=WIDTH, normalization="caffe"), blobs).eval()
    torch.testing.assert_close(loaded(images)[0], x)


def test_reads_layers_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    blobs = {"b": [torch.arange(6.0).reshape(2, 3)], "a": [torch.ones(2, 1, 3, 3), torch.zeros(2)]}
    for legacy in (False, True):
        path.write_bytes(caffemodel(blobs, legacy=legacy))
        read = read_caffemodel(path)
        assert list(read) == ["b", "a"]
        shape = (1, 1, 2, 3) if legacy else (2, 3)
        assert read["b"][0].shape == shape
        assert read["b"][0].dtype == torch.float32
        assert torch.equal(read["b"][0].reshape(2, 3), blobs["b"][0])


def test_heads_by_name_and_of_other_depths() -> None:
    model = network(hidden=())
    blobs = blobs_of(model, convolutions=True)
    blobs["loss3"] = [torch.ones(3, 3), torch.ones(3)]
    with pytest.raises(
        ValueError, match=r"\['cls_score', 'loss3'\] has 2 names but the head has 1"
    ):
        load_caffe(network(hidden=()), blobs)
    other = load_caffe(network(hidden=()), blobs, head_layers=["cls_score"])
    assert torch.equal(other.head.first.weight, model.head.first.weight)


def test_a_configuration_names_the_file(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "vgg.caffemodel"
    path.write_bytes(caffemodel(blobs_of(model, convolutions=False), legacy=True))
    options = {"layers": LAYERS, "width": WIDTH, "normalization": "caffe", "weights": str(path)}
    built = build(NetworkConfig("vgg16", options, {"out_features": 1}))
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(built.backbone.state_dict()[name], tensor), name


def test_deeper_layers_are_not_needed() -> None:
    blobs = blobs_of(network(), convolutions=True)
    backbone = load_caffe(VGG16(("conv1_2",), width=WIDTH, normalization="caffe"), blobs)
    assert torch.equal(backbone.conv1_2.weight, blobs["conv1_2"][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.pop("conv2_1"), "missing conv2_1"),
        (lambda b: b.pop("fc7o"), "missing fc7"),
        (
            lambda b: b.update(conv1_1=[torch.ones(2, 3, 5, 5), torch.ones(2)]),
            r"conv1_1's weight has shape \(2, 3, 5, 5\), expected \(2, 3, 3, 3\)",
        ),
        (
            lambda b: b["conv1_2"].__setitem__(1, torch.ones(1, 1, 1, 3)),
            r"conv1_2's bias has shape \(1, 1, 1, 3\), expected \(2,\)",
        ),
        (lambda b: b["fc7n"].pop(), "fc7n has 1 blobs, expected weight and bias"),
        (
            lambda b: b["cls_score"].__setitem__(0, torch.full((1, 5), torch.nan)),
            "cls_score's weight is not finite",
        ),
    ],
    ids=["conv", "fc7", "kernel", "bias", "no-bias", "nan"],
)
def test_what_does_not_fit_is_named_and_nothing_loaded(change: object, message: str) -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    blobs = {name: list(one) for name, one in blobs_of(network(), convolutions=True).items()}
    change(blobs)  # type: ignore[operator]
    with pytest.raises(ValueError, match=rf"source does not fit.*{message}"):
        load_caffe(model, blobs)
    assert all(map(torch.equal, model.state_dict().values(), before.values()))


def test_models_that_cannot_take_them() -> None:
    blobs = blobs_of(network(), convolutions=True)
    with pytest.raises(ValueError, match=r"expect BGR.*normalization=\"caffe\""):
        load_caffe(VGG16(("conv1_1",), width=WIDTH, normalization="torchvision"), blobs)
    with pytest.raises(ValueError, match="batch normalisation, which is not read"):
        load_caffe(VGG16(("conv1_1",), width=WIDTH, batch_norm=True), blobs)
    with pytest.raises(TypeError, match="backbone Linear; expected a VGG16"):
        load_caffe(nn.Linear(1, 1), blobs)  # type: ignore[type-var]
    backbone = VGG16(("conv1_1",), width=WIDTH)
    normal = PixelNet(backbone, PixelMLP(backbone.channels, (), out_features=1, batch_norm=True))
    with pytest.raises(ValueError, match=r"PixelMLP\(batch_norm=False\)"):
        load_caffe(normal, blobs)


def test_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.caffemodel"
    whole = caffemodel({"a": [torch.ones(4, 5)]}, legacy=False)
    path.write_bytes(whole[:-7])
    with pytest.raises(ValueError, match="is no file of Caffe's"):
        read_caffemodel(path)
    short = field(100, field(1, b"a") + field(7, field(7, field(1, varint(9))) + field(5, b"1234")))
    path.write_bytes(short)
    with pytest.raises(
        ValueError, match=r"'a' has a blob of shape \(9,\) and 1 values; expected 9"
    ):
        read_caffemodel(path)
    path.write_bytes(caffemodel({}, legacy=False))
    with pytest.raises(ValueError, match="has no layers with weights"):
        read_caffemodel(path)
    caffe_module._net_parameter.cache_clear()
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pixelnet-triton\[caffe\]'"):
        read_caffemodel(path)
