"""Table 4 of the paper: memory, model size and updates per second of training, sparse and dense.

VGG-16 on one 224 x 224 image, an MLP of fc-1 to fc-3 on conv-{1_2, 3_3, 5_3}, 2,000 sampled
pixels or all 50,176. An update is a forward and a backward pass, as the paper counts. Memory is
all that training needs, model and gradients included: on a GPU the peak of torch's allocator in an
update, on a CPU the high-water mark of a process of its own beyond that of the idle process.

    dense    every layer upsampled to every pixel, the MLP as 1x1 convolutions at all of them, as
             a fully convolutional network is trained
    masked   every layer upsampled to every pixel, then only the sampled pixels through the MLP
    sparse   this library: hypercolumns at the sampled pixels alone
    backbone VGG-16 alone, its maps the output: what all three have in common

They share one set of parameters, those of :class:`pixelnet_triton.models.PixelNet`. The paper gives
1,056 features for these layers; their channels are 64 + 256 + 512 = 832.

All arithmetic of a row is alike: float32, as the paper's was, or TF32. PyTorch's own defaults are
not: on a GPU convolutions take TF32, and the MLP is made of convolutions in the dense rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
from pixelnet_triton.reference import dense_hypercolumn, dense_linear

from .accuracy import arithmetic
from .memory import high_water_mark
from .results import Line


@dataclass(frozen=True)
class Sizes:
    """One square image, how many of its pixels are sampled, and the widths: the paper's.

    `classes`: 60 as in PASCAL-Context with background, which the paper's model sizes agree with.
    """

    side: int = 224
    samples_per_image: int = 2000
    hidden: int = 4096
    classes: int = 60
    width: float = 1.0


@dataclass(frozen=True)
class Network:
    """A mode of training, with `fc` fully connected layers on conv-{1_2, 3_3, 5_3}, and conv-7.

    `tf32`: convolutions and products round their operands to TF32, where the device has it.
    """

    mode: str
    fc: int
    conv7: bool = False
    tf32: bool = False


#: By kind of device: among other benchmarks a CPU takes a quarter of everything.
SIZES = {"cuda": Sizes(), "cpu": Sizes(side=112, samples_per_image=500, hidden=1024)}


class Paper(NamedTuple):
    """A row of the paper's table: measured on a Titan X, with Caffe."""

    memory_mb: int
    size_mb: int
    updates_per_second: float


_TABLE = (
    ("dense fc-1", Network("dense", 1), Paper(2267, 1150, 6.5)),
    ("dense fc-2", Network("dense", 2), Paper(3066, 1165, 4.2)),
    ("dense fc-3", Network("dense", 3), Paper(3914, 1232, 1.4)),
    ("masked fc-1", Network("masked", 1), Paper(2092, 1150, 5.5)),
    ("masked fc-2", Network("masked", 2), Paper(2138, 1165, 5.4)),
    ("masked fc-3", Network("masked", 3), Paper(2234, 1232, 5.1)),
    ("sparse fc-1", Network("sparse", 1), Paper(322, 60, 43.3)),
    ("sparse fc-2", Network("sparse", 2), Paper(368, 74, 38.7)),
    ("sparse fc-3", Network("sparse", 3), Paper(465, 144, 24.5)),
    ("sparse conv-7 fc-3", Network("sparse", 3, conv7=True), Paper(1024, 686, 8.8)),
)
PAPER = {name: paper for name, _, paper in _TABLE}
ROWS = {name: network for name, network, _ in _TABLE} | {
    "backbone": Network("backbone", 1),
    "dense fc-3 TF32": Network("dense", 3, tf32=True),
    "sparse fc-3 TF32": Network("sparse", 3, tf32=True),
}


def rows_on(device: torch.device) -> list[str]:
    """The rows of a device: a CPU has no TF32."""
    return [name for name, network in ROWS.items() if device.type == "cuda" or not network.tf32]


class Training:
    """A network in training on one image; `update` is the forward and backward pass.

    Args:
        device: on a CPU, whose memory is that of the process, this should be in one of its own.

    Raises:
        AssertionError: a small network of this mode differs from the sparse one.
    """

    def __init__(self, network: Network, sizes: Sizes, device: torch.device) -> None:
        self._error = error_of(network, device)
        if not self._error < 1e-4:
            raise AssertionError(f"{network} differs from the sparse one by {self._error:.2g}")
        self._network, self._device, self._before = network, device, high_water_mark()
        if device.type == "cuda":
            self._before = torch.cuda.memory_allocated(device)
        self._model = _model(network, sizes, device)
        self._image, _, self._points = _drawn(sizes, device)
        count = sizes.side**2 if network.mode == "dense" else sizes.samples_per_image
        self._labels = torch.randint(sizes.classes, (count,), device=device)

    def update(self) -> None:
        """Gradients are cleared first."""
        if self._device.type == "cuda":  # the timing's buffer, between two updates, does not count
            torch.cuda.reset_peak_memory_stats(self._device)
        with arithmetic(self._network.tf32):
            self._model.zero_grad(set_to_none=True)
            self._loss().backward()

    def _loss(self) -> Tensor:
        if self._network.mode == "backbone":
            return torch.stack([m.mean() for m in self._model.backbone(self._image)]).sum()
        scores = SCORES[self._network.mode](self._model, self._image, self._points)
        return F.cross_entropy(scores, self._labels)

    def figures(self) -> Line:
        """All but times. The memory is what an update needs, with model and gradients: on a GPU the
        last one, on a CPU the largest."""
        on_gpu = self._device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self._device) if on_gpu else high_water_mark()
        trained = self._model.backbone if self._network.mode == "backbone" else self._model
        return {
            "error": self._error,
            "features": sum(self._model.head.in_channels),
            "parameters": sum(p.numel() for p in trained.parameters()),
            "memory_bytes": peak - self._before,
        }


def _model(network: Network, sizes: Sizes, device: torch.device) -> PixelNet:
    """Backbone and head, randomly initialised; the same for every mode."""
    torch.manual_seed(0)
    layers = ("conv1_2", "conv3_3", "conv5_3", "conv7")[: 4 if network.conv7 else 3]
    backbone = VGG16(layers, width=sizes.width)
    hidden = (sizes.hidden,) * (network.fc - 1)
    head = PixelMLP(backbone.channels, hidden, out_features=sizes.classes, init="kaiming")
    return PixelNet(backbone, head).to(device)


def _drawn(sizes: Sizes, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """An image (1, 3, H, W); numbers (N,) of sampled pixels, and the same as points (1, N, 2)."""
    image = torch.rand(1, 3, sizes.side, sizes.side, device=device)
    pixels = torch.randperm(sizes.side**2, device=device)[: sizes.samples_per_image]
    return image, pixels, torch.stack([pixels % sizes.side, pixels // sizes.side], dim=1)[None]


def _dense(model: PixelNet, image: Tensor, points: Tensor) -> Tensor:
    """(pixels, K) of all pixels, row by row; of the others (N, K)."""
    first, size = model.head.first, (image.shape[2], image.shape[3])
    maps = model.backbone(image)
    z = dense_linear(maps, size, first.weight, first.bias, strides=first.strides)
    x = _activated(model, z)
    for module in model.head.rest:
        if isinstance(module, nn.Linear):
            x = F.conv2d(x, module.weight[:, :, None, None], module.bias)
        else:
            x = module(x)
    return x.flatten(2)[0].T


def _masked(model: PixelNet, image: Tensor, points: Tensor) -> Tensor:
    first, size = model.head.first, (image.shape[2], image.shape[3])
    x, y = points[0].unbind(dim=1)
    h = dense_hypercolumn(model.backbone(image), size, strides=first.strides)[0, :, y, x].T
    return model.head.rest(_activated(model, F.linear(h, first.weight, first.bias)))


def _sparse(model: PixelNet, image: Tensor, points: Tensor) -> Tensor:
    return model(image, points)[0]


def _activated(model: PixelNet, x: Tensor) -> Tensor:
    return F.relu(x, inplace=True) if model.head.first.activation == "relu" else x


SCORES = {"dense": _dense, "masked": _masked, "sparse": _sparse}


@torch.no_grad()
def error_of(network: Network, device: torch.device) -> float:
    """Largest relative difference of a small network's scores from the sparse ones, without TF32.

    Small, so that a process that has made this check has touched next to no memory. 32-pixel
    images would do; 64 gives conv-7 more than one cell.
    """
    if network.mode == "backbone":
        return 0.0
    sizes = Sizes(side=64, samples_per_image=100, hidden=32, classes=7, width=1 / 16)
    model = _model(network, sizes, device).eval()
    image, pixels, points = _drawn(sizes, device)
    with arithmetic(tf32=False):
        expected, scores = (SCORES[mode](model, image, points) for mode in ("sparse", network.mode))
    if network.mode == "dense":
        scores = scores[pixels]
    return ((scores - expected).abs().max() / expected.abs().max()).item()
