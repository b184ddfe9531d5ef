"""VGG-16 as a fully convolutional backbone whose maps are returned by name."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..tools.images import check_images
from .normalization import named_normalization
from .vgg_weights import load_torchvision

__all__ = ["VGG16"]

# (channels, convolutions) of the five blocks; all but the first begin with a pooling.
_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


@dataclass(frozen=True)
class _Layer:
    """One convolution: its channels at width 1, kernel size, and image pixels per cell."""

    name: str
    channels: int
    kernel: int
    stride: int


_LAYERS = tuple(
    _Layer(f"conv{block}_{n}", channels, 3, 2 ** (block - 1))
    for block, (channels, convolutions) in enumerate(_BLOCKS, start=1)
    for n in range(1, convolutions + 1)
) + (_Layer("conv6", 4096, 7, 32), _Layer("conv7", 4096, 1, 32))


class VGG16(nn.Module):
    r"""VGG-16 (Simonyan and Zisserman, arXiv 1409.1556), fully convolutional, several outputs.

    Thirteen 3x3 convolutions with padding 1 in five blocks, 2x2 poolings between them, and the
    classifier's first two layers as convolutions: ``conv6`` is 7x7 with padding 3, ``conv7``
    1x1 (PixelNet, arXiv 1609.06694, section 4, where the padding keeps the maps aligned). Every
    map is taken after its ReLU, the last one of a block before its pooling. Only what the
    deepest of `layers` needs is built and computed.

    Poolings round down, so that cell i of a map with stride s covers the pixels s * i to
    s * i + s - 1 whatever the image's size. :class:`PixelNet` therefore places points by
    ``strides`` rather than by the ratio of the sizes; on a remainder at the right or bottom edge
    the outermost cell is repeated.

    Initialisation is that of He et al. (arXiv 1502.01852, eq. 10): normal with deviation
    sqrt(2 / fan_in), biases 0. Sixteen layers trained from scratch need `batch_norm` as well;
    for pretrained weights see :meth:`load_torchvision`.

    Args:
        layers: names of the maps to return, in this order, from conv1_1 conv1_2 conv2_1 conv2_2
            conv3_1 ... conv3_3 conv4_1 ... conv4_3 conv5_1 ... conv5_3 conv6 conv7.
        batch_norm: whether batch normalisation follows every convolution.
        width: multiplies every number of channels; for small networks.
        dropout: probability of a channel's cell to be dropped from conv6 and conv7, in training.
        normalization: ``"torchvision"`` or ``"caffe"`` for images that are RGB in [0, 1], as
            the datasets of this library give them (:class:`ImageNormalization`); None takes them as
            they come; images of other than three channels need None.
        in_channels: of the images; 1 for grey ones, 4 for RGB and depth, and so on.

    Attributes:
        layers, channels, strides: name, C_i and image pixels per cell of each map returned.

    Raises:
        ValueError: an unknown or repeated layer, a width or dropout out of range.

    Example:
        >>> import torch
        >>> from pixelnet_triton.models import VGG16
        >>> backbone = VGG16(("conv1_2", "conv3_3", "conv7"), width=1 / 16)
        >>> [tuple(m.shape) for m in backbone(torch.rand(2, 3, 64, 96))]
        [(2, 4, 64, 96), (2, 16, 16, 24), (2, 256, 2, 3)]
        >>> backbone.channels, backbone.strides
        ((4, 16, 256), (1, 4, 32))
    """

    def __init__(
        self,
        layers: Sequence[str] = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"),
        *,
        batch_norm: bool = False,
        width: float = 1.0,
        dropout: float = 0.0,
        normalization: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        _check_options(layers, width, dropout, normalization, in_channels)
        by_name = {layer.name: layer for layer in _LAYERS}
        deepest = max(_LAYERS.index(by_name[name]) for name in layers)
        self._built = _LAYERS[: deepest + 1]
        self.layers = tuple(layers)
        self.channels = tuple(_scaled(by_name[name].channels, width) for name in layers)
        self.strides = tuple(by_name[name].stride for name in layers)
        self.batch_norm = batch_norm
        self.dropout = dropout
        self.normalization = named_normalization(normalization)
        self.in_channels = before = in_channels
        for layer in self._built:
            channels = _scaled(layer.channels, width)
            convolution = nn.Conv2d(before, channels, layer.kernel, padding=layer.kernel // 2)
            self.add_module(layer.name, convolution)
            if batch_norm:
                self.add_module(_norm_name(layer.name), nn.BatchNorm2d(channels))
            before = channels
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights with deviation sqrt(2 / fan_in), zero biases; normalisations afresh."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    def load_torchvision(
        self, source: str | os.PathLike[str] | Mapping[str, Tensor] | None = None
    ) -> VGG16:
        """Load the weights of torchvision's ``vgg16`` or ``vgg16_bn``, and return self.

        ``features.N`` become conv1_1 ... conv5_3, ``classifier.0`` (D, 512 * 49), reshaped to
        (D, 512, 7, 7), becomes conv6 and ``classifier.3`` conv7; ``classifier.6``, which names
        the ImageNet classes, and whatever lies deeper than the deepest layer are not needed.
        torchvision has no batch normalisation between its linear layers: with `batch_norm`,
        those after conv6 and conv7 are set to compute the identity in evaluation mode.

        With more than three `in_channels`, conv1_1 gets the kernels for red, green and blue and
        their mean for each further channel; with fewer, their mean for each. All are multiplied by
        3 / in_channels, so that equal channels give what three equal ones gave.

        The weights expect RGB images, normalised: ``normalization="torchvision"``.

        Args:
            source: a file of torch (``.pth``, read with ``weights_only=True``) or safetensors,
                a state dict, or None to let torchvision, if it is installed, fetch them.

        Raises:
            ValueError: names that are missing, unexpected or of another shape; it lists them.
            ModuleNotFoundError: torchvision or safetensors is needed and not installed.

        Example:
            >>> import torch
            >>> from pixelnet_triton.models import VGG16
            >>> backbone = VGG16(("conv1_1",))
            >>> weights = {"features.0.weight": torch.ones(64, 3, 3, 3),
            ...            "features.0.bias": torch.zeros(64)}
            >>> backbone.load_torchvision(weights).conv1_1.weight.sum()
            tensor(1728., grad_fn=<SumBackward0>)
        """
        load_torchvision(self, source)
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps ``(B, C_i, H // s_i, W // s_i)`` of images ``(B, C, H, W)``, as `layers` asks.

        Raises:
            ValueError: images of another shape, or too small for the deepest layer's stride.
        """
        self._check(images)
        x = images if self.normalization is None else self.normalization(images)
        maps: dict[str, Tensor] = {}
        stride = 1
        for layer in self._built:
            if layer.stride > stride:
                x = F.max_pool2d(x, 2)
                stride = layer.stride
            x = self.get_submodule(layer.name)(x)
            if self.batch_norm:
                x = self.get_submodule(_norm_name(layer.name))(x)
            x = F.relu(x, inplace=True)
            if layer.name in ("conv6", "conv7"):
                x = F.dropout(x, self.dropout, self.training)
            if layer.name in self.layers:
                maps[layer.name] = x
        return [maps[name] for name in self.layers]

    def _check(self, images: Tensor) -> None:
        check_images(images)
        if images.shape[1] != self.in_channels:
            raise ValueError(
                f"images has shape {tuple(images.shape)}; expected (B, {self.in_channels}, H, W). "
                "Repeat a grey image with "
                "expand(-1, 3, -1, -1), or build VGG16(in_channels=...) for other channels"
            )
        if not images.is_floating_point():
            raise TypeError(
                f"images is {images.dtype}; expected a floating dtype. Convert 8-bit images with "
                "images.float() / 255"
            )
        deepest = self._built[-1]
        if min(images.shape[2:]) < deepest.stride:
            raise ValueError(
                f"images is {images.shape[2]} x {images.shape[3]} pixels; {deepest.name} has a "
                f"stride of {deepest.stride} and needs at least as many in height and width. "
                "Enlarge the images, or ask for shallower layers"
            )

    def extra_repr(self) -> str:
        return f"layers={self.layers}, batch_norm={self.batch_norm}, dropout={self.dropout}"


def _norm_name(layer: str) -> str:
    return layer.replace("conv", "norm")


def _scaled(channels: int, width: float) -> int:
    return max(1, round(width * channels))


def _check_options(
    layers: Sequence[str], width: float, dropout: float, normalization: str | None, channels: int
) -> None:
    known = [layer.name for layer in _LAYERS]
    if isinstance(layers, str) or len(layers) == 0:
        raise ValueError(f"layers={layers!r}; expected a sequence of names from {known}")
    for name in layers:
        if name not in known:
            raise ValueError(f"layers: {name!r} is unknown; use names from {known}")
    if len(set(layers)) < len(layers):
        raise ValueError(f"layers={tuple(layers)} repeats a name; ask for each map once")
    if not isinstance(width, (int, float)) or not 0 < width < math.inf:
        raise ValueError(f"width={width!r}; expected a positive factor, 1 for the whole network")
    if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout!r}; expected a probability in [0, 1)")
    if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
        raise ValueError(f"in_channels={channels!r}; expected an integer of at least 1")
    if normalization is not None and channels != 3:
        raise ValueError(
            f"normalization={normalization!r} has the mean of three channels but "
            f"in_channels={channels}; pass normalization=None and normalise the images before, for "
            "example with ImageNormalization(mean, std)"
        )
