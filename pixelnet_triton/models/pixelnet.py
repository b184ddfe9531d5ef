"""`PixelNet`: a backbone, hypercolumns at sparse points, and an MLP on them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..inference import OUTPUTS, predict
from ..tools.images import check_images, padded
from .backbones import (
    LAYOUTS,
    backbone_channels,
    backbone_strides,
    check_patches,
    feature_maps,
)
from .checkpoint import load, save
from .head import PixelMLP

if TYPE_CHECKING:
    from .config import NetworkConfig

__all__ = ["PixelNet"]


class PixelNet(nn.Module):
    r"""PixelNet (Bansal et al., arXiv 1609.06694): :math:`f_p(X) = g(h_p(X))` at chosen pixels.

    Calling the model predicts at points, as training does; :meth:`predict` predicts at every
    pixel of an image, in bounded memory. The two agree at every pixel.

    Points are in pixels of the images given, pixel centres at integers. The authors embed every
    image in a canvas with 100 pixels of zeros on each side, since their sampling layer aborts at
    the far edge; here points beyond the outermost cell centres take the outermost cells, so no
    canvas is needed; it would cost 3.6 times the convolutions at 224 x 224. The maps differ near
    the image's edges, where they see one ring of zeros in every layer instead of a wide one. For
    weights trained with the canvas, pad the normalised images with ``F.pad(images, (100,) * 4)``
    and add 100 to the points.

    Args:
        backbone: a module from images to several maps: :class:`VGG16`, or whatever
            :func:`~pixelnet_triton.models.backbones.feature_maps` understands. Its attribute
            ``strides``, or a vision transformer's patch size, places the points on the maps where
            there is one; otherwise the ratio of the sizes does.
        head: the MLP on the maps, in their order. If it has no strides it is given the
            backbone's.
        output: what the scores become in :meth:`predict`: None (raw scores), ``"softmax"``,
            ``"sigmoid"``, ``"normals"`` (3 scores, divided by their length), or ``"depth"``
            (1 score, the logarithm of the depth: its exponential).
        layout: ``"NCHW"``, or ``"NHWC"`` for backbones that return channels last as a shape.
        config: what :meth:`save` writes beside the weights; :func:`build` gives it. Without one the
            model cannot be saved by itself.

    Raises:
        ValueError: backbone and head do not fit, or the output does not fit the head.

    Example:
        >>> import torch
        >>> from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
        >>> backbone = VGG16(("conv1_2", "conv3_3", "conv5_3"), width=1 / 16)
        >>> head = PixelMLP(backbone.channels, (64, 64), out_features=11, init="kaiming")
        >>> model = PixelNet(backbone, head, output="softmax")
        >>> images = torch.rand(2, 3, 48, 64)
        >>> model(images, torch.randint(0, 48, (2, 100, 2))).shape
        torch.Size([2, 100, 11])
        >>> model.predict(images, scales=(0.5, 1.0), flip=True).shape
        torch.Size([2, 11, 48, 64])
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: PixelMLP,
        *,
        output: str | None = None,
        layout: str = "NCHW",
        config: NetworkConfig | None = None,
    ) -> None:
        super().__init__()
        _check_parts(backbone, head, output, layout)
        self.backbone = backbone
        self.head = head
        self.output = output
        self.layout = layout
        self.config = config
        strides = backbone_strides(backbone)
        # Strides concluded from a patch size are compared with the maps once there are any.
        concluded = getattr(backbone, "strides_concluded", not hasattr(backbone, "strides"))
        self._patches = strides if concluded else None
        if head.first.strides is None:
            head.first.strides = strides
        elif self._patches is not None:
            self._patches = None  # the head's are what the user wants
        elif strides is not None and tuple(head.first.strides) != strides:
            raise ValueError(
                f"head has strides {tuple(head.first.strides)} but backbone has {strides}; leave "
                "the head's out, and it is given the backbone's"
            )

    def forward(
        self,
        images: Tensor | Sequence[Tensor],
        points: Tensor,
        batch_index: Tensor | None = None,
    ) -> Tensor:
        """Raw scores ``(B, N, K)`` of images ``(B, 3, H, W)`` at points ``(B, N, 2)``.

        With `batch_index` (P,) and points (P, 2), which may be differently many for each image,
        ``(P, K)``. Arguments as for :func:`pixelnet_triton.sparse_hypercolumn`.

        A list of images ``(3, H_b, W_b)`` is padded with zeros on the right and below; the points
        of each keep to its own cells. What the backbone makes of the last cells differs a little
        from an image alone, as in every padded batch: its layers see the padding beside them.

        Raises:
            ValueError: a list of several sizes, and neither backbone nor head has strides.
        """
        if isinstance(images, Tensor) or not isinstance(images, Sequence):
            check_images(images)
            size = (images.shape[2], images.shape[3])
            return self.head(self.features(images), points, size, batch_index)
        canvas, sizes = padded(images)
        maps = self.features(canvas)
        if all(size == canvas.shape[2:] for size in sizes):
            return self.head(maps, points, sizes[0], batch_index)
        if self.head.first.strides is None:
            raise ValueError(
                f"images have the sizes {sizes}, and neither backbone nor head has strides, by "
                "which the cells of each image are known. Set backbone.strides, the image pixels "
                "per cell of each map, or give them to PixelMLP(..., strides=...)"
            )
        return self.head(maps, points, sizes, batch_index)

    def features(self, images: Tensor) -> list[Tensor]:
        """The backbone's maps ``(B, C_i, H_i, W_i)``, checked against the head.

        Raises:
            ValueError: their channels are not those the head was made for, or their sizes not
                those that the backbone's patch size leads to.
        """
        check_images(images)
        maps = feature_maps(self.backbone(images), self.layout)
        _check_channels(self.backbone, self.head, tuple(m.shape[1] for m in maps), self.layout)
        if self._patches is not None:
            check_patches(maps, self._patches, (images.shape[-2], images.shape[-1]), self.layout)
        return maps

    def predict(
        self,
        images: Tensor,
        *,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        memory_budget: int = 256 << 20,
        progress: bool = False,
    ) -> Tensor:
        """Outputs ``(B, K, H, W)`` at every pixel, in evaluation mode and without gradients.

        See :func:`pixelnet_triton.inference.predict`, which this calls.
        """
        return predict(
            self,
            images,
            scales=scales,
            flip=flip,
            memory_budget=memory_budget,
            progress=progress,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and configuration to a file of safetensors, from which :meth:`load` reads.

        A frozen backbone's weights are in it too. The file is replaced as a whole.

        Raises:
            ValueError: the model has no `config`, or its weights are spread over processes.
            ModuleNotFoundError: safetensors is not installed.
        """
        save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> PixelNet:
        """The network of a file, in evaluation mode and the dtypes it was saved in.

        Nothing is downloaded.

        Args:
            path: a file of :meth:`save`, or a checkpoint of
                :class:`pixelnet_triton.training.PixelNetModule`, read with ``weights_only=True``.
            device: where the network goes.

        Raises:
            ValueError: the file has no configuration or weights that do not fit it, or is
                something else; the message says what to do.
            ModuleNotFoundError: the backbone's package, or safetensors, is not installed.

        Example:
            >>> import tempfile
            >>> from pixelnet_triton.models import NetworkConfig, PixelNet, build
            >>> model = build(NetworkConfig("vgg16", {"width": 1 / 16}, {"out_features": 2}))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.save(f"{folder}/model.safetensors")
            ...     PixelNet.load(f"{folder}/model.safetensors").config == model.config
            True
        """
        return load(path, device)

    def extra_repr(self) -> str:
        return f"output={self.output!r}, layout={self.layout!r}"


def _check_parts(backbone: Any, head: Any, output: str | None, layout: str) -> None:
    for name, part, expected in (("backbone", backbone, nn.Module), ("head", head, PixelMLP)):
        if not isinstance(part, expected):
            raise TypeError(
                f"{name} is a {type(part).__name__}; expected a {expected.__module__}."
                f"{expected.__qualname__}"
            )
    if output is not None and output not in OUTPUTS:
        raise ValueError(f"output={output!r} is unknown; use None or one of {tuple(OUTPUTS)}")
    needed = {"normals": 3, "depth": 1}.get(output or "")
    if needed is not None and head.out_features != needed:
        raise ValueError(
            f"output={output!r} needs {needed} values a pixel but head.out_features is "
            f"{head.out_features}"
        )
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r} is unknown; use one of {LAYOUTS}")
    channels = backbone_channels(backbone)
    if channels is not None:
        _check_channels(backbone, head, channels, layout)
    strides = backbone_strides(backbone)
    if strides is not None and len(strides) != len(head.in_channels):
        raise ValueError(
            f"backbone.strides={strides} has {len(strides)} entries but the head takes "
            f"{len(head.in_channels)} maps; expected the image pixels per cell of each map"
        )


def _check_channels(
    backbone: nn.Module, head: PixelMLP, channels: tuple[int, ...], layout: str
) -> None:
    if channels != head.in_channels:
        hint = "" if layout == "NHWC" else ' (or layout="NHWC", if it returns channels last)'
        raise ValueError(
            f"the backbone {type(backbone).__name__} gives maps with {channels} channels but the "
            f"head {type(head).__name__} was made for in_channels={head.in_channels}; make it "
            f"with PixelMLP({list(channels)}, ...){hint}"
        )
