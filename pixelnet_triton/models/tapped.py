"""`TappedBackbone`: the outputs of named modules inside any network, as a backbone's maps."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..call import Stride
from ..tools.images import check_images
from .probe import probe
from .wrapped import WrappedBackbone

__all__ = ["TappedBackbone"]

# torch 2.6 cannot tell, and compiles no exceptions.
_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


class _AllMapsSeen(BaseException):
    """Ends a network's forward pass after the last tap; no `except Exception` in it takes it."""


class TappedBackbone(WrappedBackbone):
    r"""Any network, in the place of :class:`VGG16`: its maps are outputs of modules inside it.

    The network stays as it is. Hooks on the named modules keep what these return, and an exception
    that is caught here ends the forward pass after the last of them: what lies behind, a
    classifier for example, is not computed. Outside this backbone the network gives what it
    always gave. One thread at a time may call the backbone, or others that tap the same network.

    **Placement.** Point x falls on cell t = (x - (s - 1) / 2) / s of a map of stride s, as
    everywhere in this library: cell i stands for the pixels s i to s i + s - 1. Convolutions that
    halve a map with odd kernels place cells elsewhere, half a cell off in the deepest maps:

    =============================================  ===================  ========================
    padding of each stride-2 layer, kernel k       centre of cell i     its distance to the above
    =============================================  ===================  ========================
    (k - 1) / 2 on both sides (torchvision, timm)  s i                  -(s - 1) / 2 pixels
    one less in front (TensorFlow's "same")        s i + s - 1          (s - 1) / 2 pixels
    none, k = 2 (VGG's poolings, ConvNeXt)         s i + (s - 1) / 2    0
    =============================================  ===================  ========================

    `shift` p moves the cells of stride s by |p| mod s pixels, another distance in each map: to the
    left and up if p is positive, to the right and down if it is negative. For strides of 2, 4, 8,
    16 and 32 a shift of 10 leaves distances of at most s / 4 in networks of the second row, -10 in
    those of the first. It is done by rows and columns of zeros in front of the normalised images,
    and by cutting the cells over them off the maps.

    Args:
        network: takes images ``(B, 3, H, W)``; its output is not used.
        layers: names of modules, as in ``network.named_modules()``, in the order of the maps. Each
            returns a map, and is called once in a forward pass.
        channels, strides: C_i and image pixels per cell of each map, a number or (vertical,
            horizontal). Without them the network is run, in evaluation mode, on zeros of 128 x 128,
            1472 x 128 and 128 x 1472 pixels; and parameters that no map depends on cease to require
            gradients, for which ``DistributedDataParallel`` would wait. With both nothing is run.
        normalization: a module for images that are RGB in [0, 1], such as
            ``ImageNormalization.torchvision()``; None takes them as they come.
        frozen: whether the network is a fixed function: no gradients, no graph, and evaluation mode
            even after ``.train()``.
        fixed_statistics: whether batch normalisation stays in evaluation mode even after
            ``.train()``, for fine-tuning with few images in a mini-batch.
        shift: p above.
        layout: ``"NCHW"``, or ``"NHWC"`` for modules that return channels last as a shape.

    Attributes:
        layers, channels, strides: name, C_i and image pixels per cell of each map returned.

    Raises:
        ValueError: an unknown layer; a layer that is called more than once, or whose output is
            changed in place later, or is no map of the image.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from pixelnet_triton.models import TappedBackbone
        >>> network = nn.Sequential(
        ...     nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(),
        ...     nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        ...     nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
        ... )
        >>> backbone = TappedBackbone(network, ("1", "3"), frozen=True)
        >>> backbone.channels, backbone.strides
        ((8, 16), (2, 4))
        >>> [tuple(m.shape) for m in backbone(torch.rand(1, 3, 48, 64))]
        [(1, 8, 24, 32), (1, 16, 12, 16)]
    """

    channels: tuple[int, ...]
    strides: tuple[Stride, ...]

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        *,
        channels: Sequence[int] | None = None,
        strides: Sequence[Stride] | None = None,
        normalization: nn.Module | None = None,
        frozen: bool = False,
        fixed_statistics: bool = False,
        shift: int = 0,
        layout: str = "NCHW",
    ) -> None:
        _check_options(network, layers, channels, strides, shift)
        if frozen:
            network.requires_grad_(False)
        if channels is None or strides is None:
            found = probe(network, layers, layout, normalization)
            channels = found.channels if channels is None else channels
            strides = found.strides if strides is None else strides
            for parameter in found.unused:
                parameter.requires_grad_(False)
        super().__init__(
            network,
            normalization,
            frozen=frozen,
            fixed_statistics=fixed_statistics,
            layout=layout,
        )
        self.layers = tuple(layers)
        self.channels = tuple(channels)
        self.strides = tuple(strides)
        self.strides_concluded = False
        self.shift = shift
        self._padding, self._cuts = _shifting(shift, self.strides)
        self._graph = False  # whether the network is run for gradients
        self._maps: dict[str, Tensor] | None = None  # None while the network is not run from here
        for name in self.layers:
            network.get_submodule(name).register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._maps is None:
            return
        self._maps.setdefault(name, output)
        # torch.export has to see every module return; and a reentrant checkpoint, within which
        # gradients are off, gives its output a graph after its modules have returned.
        in_checkpoint = self._graph and not torch.is_grad_enabled()
        if len(self._maps) == len(self.layers) and not _exporting() and not in_checkpoint:
            raise _AllMapsSeen

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps ``(B, C_i, H_i, W_i)`` of images ``(B, 3, H, W)``, as `layers` asks.

        Raises:
            ValueError: images of another shape, or smaller than a cell of the deepest map.
        """
        check_images(images)
        for stride in self.strides:
            vertical, horizontal = stride if isinstance(stride, tuple) else (stride, stride)
            if images.shape[2] < vertical or images.shape[3] < horizontal:
                raise ValueError(
                    f"images is {images.shape[2]} x {images.shape[3]} pixels; a map has a stride "
                    f"of {stride} and needs at least as many in height and width. Enlarge the "
                    "images, or ask for shallower layers"
                )
        maps = super().forward(images)
        if not self.shift:
            return maps
        cut_maps: list[Tensor] = []
        for one, stride, cut in zip(maps, self.strides, self._cuts, strict=True):
            assert isinstance(stride, int)
            rows, columns = (-(-size // stride) for size in images.shape[2:])
            cut_maps.append(one[:, :, cut : cut + rows, cut : cut + columns])
        return cut_maps

    def _normalized(self, images: Tensor) -> Tensor:
        x = super()._normalized(images)
        return F.pad(x, self._padding * 2) if self.shift else x

    def _output(self, images: Tensor) -> list[Tensor]:
        """The outputs of the layers, with the cells of the shift."""
        maps: dict[str, Tensor] = {}
        self._maps, self._graph = maps, torch.is_grad_enabled()
        try:
            self.network(images)
        except _AllMapsSeen:
            pass
        finally:
            self._maps = None
        missing = [name for name in self.layers if name not in maps]
        if missing:
            raise ValueError(
                f"layers: the network does not call {missing} in its forward pass; name modules "
                "that it calls"
            )
        return [maps[name] for name in self.layers]

    def extra_repr(self) -> str:
        return (
            f"layers={self.layers}, channels={self.channels}, strides={self.strides}, "
            f"frozen={self.frozen}, shift={self.shift}"
        )


def _shifting(shift: int, strides: Sequence[Any]) -> tuple[tuple[int, int], list[int]]:
    """Pixels in front of the images and behind, and cells to cut off each map, for a shift."""
    if shift == 0:
        return (0, 0), [0] * len(strides)
    if not all(isinstance(stride, int) for stride in strides):
        raise ValueError(
            f"shift={shift} with strides={tuple(strides)}; expected whole strides, one for both "
            "axes of a map. Leave shift at 0"
        )
    if shift > 0:
        return (shift, 0), [shift // stride for stride in strides]
    # A shift of the other sign, modulo every stride. What is cut in front is more than what is put
    # there, so that the last cell needs room behind.
    common = math.lcm(*strides)
    front = shift % common
    return (front, common - front), [-(-front // stride) for stride in strides]


def _check_options(
    network: nn.Module,
    layers: Sequence[str],
    channels: Sequence[int] | None,
    strides: Sequence[Stride] | None,
    shift: int,
) -> None:
    if not isinstance(network, nn.Module):
        raise TypeError(f"network is a {type(network).__name__}; expected a torch.nn.Module")
    if isinstance(layers, str) or len(layers) == 0:
        raise ValueError(f"layers={layers!r}; expected a sequence of names of modules")
    if len(set(layers)) < len(layers):
        raise ValueError(f"layers={tuple(layers)} repeats a name; ask for each map once")
    known = [name for name, _ in network.named_modules() if name]
    for name in layers:
        if name not in known:
            similar = difflib.get_close_matches(name, known, n=3, cutoff=0) or known[:3]
            raise ValueError(
                f"layers: {name!r} is no module of {type(network).__name__}; expected names of "
                f"network.named_modules(), such as {similar}"
            )
    for what, numbers in (("channels", channels), ("strides", strides)):
        if numbers is None:
            continue
        flat = [m for n in numbers for m in (n if isinstance(n, tuple) else (n,))]
        if len(numbers) != len(layers) or not all(m > 0 for m in flat):
            raise ValueError(
                f"{what}={numbers!r}; expected a positive number for each of the {len(layers)} "
                "layers, or None to find them out"
            )
    if isinstance(shift, bool) or not isinstance(shift, int):
        raise ValueError(f"shift={shift!r}; expected a whole number of pixels")
