"""Weights from Caffe's files (``.caffemodel``): the authors' networks, and VGG-16 as published.

Caffe is not needed: :func:`read_caffemodel` reads the file by its wire format (extra ``caffe``).
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from .normalization import ImageNormalization
from .pixelnet import PixelNet
from .vgg import VGG16

__all__ = ["load_caffe", "read_caffemodel"]

Model = TypeVar("Model", PixelNet, VGG16)

# What the classifier's layers are called: in VGG-16 as published, in the authors' networks that go
# on from it, and in those from scratch.
_ALIASES = {
    "conv6": ("fc6", "fc6o", "fc6_conv"),
    "conv7": ("fc7", "fc7o", "fc7_conv"),
}
_CLASSIFIER = ("fc8",)

# The part of caffe.proto that holds weights: (message, field, number, type, repeated).
_FIELDS = (
    ("BlobShape", "dim", 1, "int64", True),
    ("BlobProto", "num", 1, "int32", False),
    ("BlobProto", "channels", 2, "int32", False),
    ("BlobProto", "height", 3, "int32", False),
    ("BlobProto", "width", 4, "int32", False),
    # Packed floats lie in the file as one run of bytes, and are read as such.
    ("BlobProto", "data", 5, "bytes", True),
    ("BlobProto", "shape", 7, "BlobShape", False),
    ("BlobProto", "double_data", 8, "bytes", True),
    ("V1LayerParameter", "name", 4, "string", False),
    ("V1LayerParameter", "blobs", 6, "BlobProto", True),
    ("LayerParameter", "name", 1, "string", False),
    ("LayerParameter", "blobs", 7, "BlobProto", True),
    ("NetParameter", "layers", 2, "V1LayerParameter", True),
    ("NetParameter", "layer", 100, "LayerParameter", True),
)


def read_caffemodel(path: str | os.PathLike[str]) -> dict[str, list[Tensor]]:
    """The weights of each layer that has any, in the order of the file.

    Args:
        path: a ``.caffemodel``, with layers in the field ``layer`` (since 2015) or ``layers``.

    Returns:
        The blobs by name of the layer, float32: usually weight and bias. Blobs of before 2015 have
        four dimensions, whatever they hold: a matrix is ``(1, 1, N, K)``, a bias ``(1, 1, 1, N)``.

    Raises:
        ModuleNotFoundError: protobuf is not installed.
        ValueError: the file is no network of Caffe's, or a blob is cut off.
    """
    net = _net_parameter()()
    try:
        net.ParseFromString(Path(path).read_bytes())
    except _decode_error() as error:
        raise ValueError(
            f"{path} is no file of Caffe's: {error}; expected a .caffemodel"
        ) from error
    found = {
        layer.name: [_tensor(blob, layer.name) for blob in layer.blobs]
        for layer in (*net.layers, *net.layer)
        if layer.blobs
    }
    if not found:
        raise ValueError(
            f"{path} has no layers with weights; expected a .caffemodel of the fields layer or "
            "layers. Networks of before 2014 are upgraded by Caffe's upgrade_net_proto_binary"
        )
    return found


def load_caffe(
    model: Model,
    source: str | os.PathLike[str] | Mapping[str, Sequence[Tensor]],
    *,
    head_layers: Sequence[str] | None = None,
) -> Model:
    """Load a Caffe network into a :class:`VGG16`, or a :class:`PixelNet` on one; return it.

    conv1_1 ... conv5_3 have their names; fc6 and fc7 (the authors' fc6o and fc7o), matrices over
    the flattened 7x7 window or convolutions, become conv6 and conv7. Of a PixelNet the head is
    loaded too: the authors' fc6n, fc7n and cls_score. Layers that the model does not have, VGG's
    fc8 among them, are not needed.

    The weights expect BGR images with the mean 103.939, 116.779, 123.68 subtracted:
    ``VGG16(normalization="caffe")``. Caffe's poolings round up, those here down, so that the
    maps are the same where 32 divides the image. For the authors' canvas see :class:`PixelNet`.

    Args:
        model: without batch normalisation in the backbone and at width 1, or as wide as the file.
        source: a ``.caffemodel``, or what :func:`read_caffemodel` made of one.
        head_layers: names of the head's layers, first to last; None takes the layers of the file
            that are none of VGG's, in its order.

    Returns:
        The model.

    Raises:
        TypeError: the model has no VGG16.
        ValueError: a layer is missing, of another shape, or not finite; all are listed, and nothing
            is loaded. Or the backbone normalises its images otherwise.

    Example:
        >>> import torch
        >>> from pixelnet_triton.models import VGG16
        >>> from pixelnet_triton.models.caffe import load_caffe
        >>> blobs = {"conv1_1": [torch.ones(64, 3, 3, 3), torch.zeros(64)]}
        >>> backbone = load_caffe(VGG16(("conv1_1",), normalization="caffe"), blobs)
        >>> backbone.conv1_1.weight.sum().item()
        1728.0
    """
    backbone = model.backbone if isinstance(model, PixelNet) else model
    if not isinstance(backbone, VGG16):
        raise TypeError(
            f"model has a backbone {type(backbone).__name__}; expected a VGG16, or a PixelNet on "
            "one"
        )
    _check_backbone(backbone)
    blobs = source if isinstance(source, Mapping) else read_caffemodel(source)
    names = {layer: _name_of(layer, blobs) for layer, _ in backbone.named_children()
             if layer.startswith("conv")}  # fmt: skip
    targets: dict[str, nn.Module] = {
        name: backbone.get_submodule(layer) for layer, name in names.items()
    }
    if isinstance(model, PixelNet):
        targets.update(_head_targets(model, blobs, head_layers))
    _load(targets, blobs)
    return model


def _check_backbone(backbone: VGG16) -> None:
    if backbone.batch_norm:
        raise ValueError(
            "model.backbone has batch normalisation, which is not read from Caffe's files; build "
            "VGG16(batch_norm=False)"
        )
    normalization = backbone.normalization
    if isinstance(normalization, ImageNormalization) and not normalization.bgr:
        raise ValueError(
            f"model normalises its images by {normalization}, but Caffe's weights expect BGR from "
            '0 to 255 less its mean; build VGG16(normalization="caffe")'
        )


def _name_of(layer: str, blobs: Mapping[str, Any]) -> str:
    """What the file calls a layer of :class:`VGG16`."""
    aliases = _ALIASES.get(layer, (layer,))
    return next((name for name in aliases if name in blobs), aliases[0])


def _head_targets(
    model: PixelNet, blobs: Mapping[str, Any], head_layers: Sequence[str] | None
) -> dict[str, nn.Module]:
    """The layers of the file for each layer of the head."""
    head: list[nn.Module] = [model.head.first]
    head += [module for module in model.head.rest if isinstance(module, nn.Linear)]
    if model.head.norm is not None:
        raise ValueError(
            "model.head normalises its hypercolumns, for which the file has no statistics; build "
            "PixelMLP(batch_norm=False)"
        )
    if head_layers is None:
        vgg = {*_CLASSIFIER, *(name for names in _ALIASES.values() for name in names)}
        head_layers = [n for n in blobs if n not in vgg and not n.startswith("conv")]
    if len(head_layers) != len(head):
        raise ValueError(
            f"head_layers={list(head_layers)} has {len(head_layers)} names but the head has "
            f"{len(head)} layers; expected one name each, of the layers {list(blobs)}"
        )
    return dict(zip(head_layers, head, strict=True))


def _load(targets: Mapping[str, nn.Module], blobs: Mapping[str, Sequence[Tensor]]) -> None:
    """Copy weight and bias of each layer, once all of them are known to fit."""
    problems, copies = [], []
    for name, module in targets.items():
        if name not in blobs:
            problems.append(f"missing {name}")
            continue
        parameters = [module.get_parameter("weight"), module.get_parameter("bias")]
        if len(blobs[name]) != 2:
            problems.append(f"{name} has {len(blobs[name])} blobs, expected weight and bias")
            continue
        for what, blob, parameter in zip(("weight", "bias"), blobs[name], parameters, strict=True):
            if not _same_weights(tuple(blob.shape), tuple(parameter.shape)):
                problems.append(
                    f"{name}'s {what} has shape {tuple(blob.shape)}, expected "
                    f"{tuple(parameter.shape)}"
                )
            elif not bool(torch.isfinite(blob).all()):
                problems.append(f"{name}'s {what} is not finite")
            else:
                copies.append((parameter, blob))
    if problems:
        listed = "; ".join(problems[:12]) + ("; ..." if len(problems) > 12 else "")
        raise ValueError(
            f"source does not fit this model: {len(problems)} entries: {listed}. Expected Caffe's "
            f"VGG-16 or a PixelNet on it; the file has the layers {list(blobs)}"
        )
    with torch.no_grad():
        for parameter, blob in copies:
            parameter.copy_(blob.reshape(parameter.shape))


def _same_weights(given: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Is a blob of that shape this parameter: but for ones around it, or a flattened window?"""
    matrix = (expected[0], math.prod(expected[1:]))
    return _without_ones(given) in (_without_ones(expected), _without_ones(matrix))


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without ones at either end."""
    while shape and shape[0] == 1:
        shape = shape[1:]
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _tensor(blob: Any, layer: str) -> Tensor:
    """One blob, in its own shape."""
    legacy = (blob.num, blob.channels, blob.height, blob.width)
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else legacy
    if blob.double_data:
        values = np.frombuffer(b"".join(blob.double_data), dtype="<f8").astype(np.float32)
    else:
        values = np.frombuffer(b"".join(blob.data), dtype="<f4").astype(np.float32)
    if values.size != math.prod(shape):
        raise ValueError(
            f"layer {layer!r} has a blob of shape {shape} and {values.size} values; expected "
            f"{math.prod(shape)}. The file may be cut off: fetch it again"
        )
    return torch.from_numpy(values).reshape(shape)


@functools.lru_cache(maxsize=1)
def _net_parameter() -> Any:
    """The message class NetParameter, of the fields above."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "reading a .caffemodel needs protobuf, which is not installed: "
            "pip install 'pixelnet-triton[caffe]'"
        ) from error
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="weights.proto", package="caffe")
    names = dict.fromkeys(message for message, *_ in _FIELDS)
    messages = {name: file.message_type.add(name=name) for name in names}
    for message, name, number, kind, repeated in _FIELDS:
        added = messages[message].field.add(name=name, number=number)
        added.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
        if kind in messages:
            added.type, added.type_name = kinds.TYPE_MESSAGE, f".caffe.{kind}"
        else:
            added.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


def _decode_error() -> type[Exception]:
    from google.protobuf.message import DecodeError

    return DecodeError
