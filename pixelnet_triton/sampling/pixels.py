"""What a sampler returns, and what all samplers share: how many points, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..tools.values import values_at_hand
from .checks import check_settings, check_take, indexable
from .draw import nth_cyclic, z_order

__all__ = ["SampledPixels", "SamplerSettings", "pixels_of_images"]


class SampledPixels(NamedTuple):
    """Pixels drawn from each image of a batch.

    Attributes:
        points: ``(B, N, 2)`` int64, (x, y) in pixels: what `sparse_hypercolumn` takes.
        valid: ``(B, N)`` bool, False at every point of an image that has no valid pixel: the
            points of such an image lie on it, but nothing can be learned there.
        image_size: ``(H, W)`` of the images, or None where it is not known.
        ignore_index: of the sampler; what :meth:`take` puts at points that are not valid.
    """

    points: Tensor
    valid: Tensor
    image_size: tuple[int, int] | None = None
    ignore_index: int | None = None

    def take(self, target: Tensor, fill: float | None = None) -> Tensor:
        """The target at the points: its labels, normals, depths.

        Args:
            target: ``(B, H, W)`` or ``(B, K, H, W)``, of the sampled images' size.
            fill: what stands at points that are not valid. None is what the losses ignore: for
                integer targets the sampler's `ignore_index` (255 if that is None), 0 for floating
                ones. Integer and bool targets have to be able to hold it.

        Returns:
            ``(B, N)`` or ``(B, N, K)``, in the target's dtype; int64 for uint16, uint32, uint64.

        Raises:
            TypeError, ValueError: the target has other pixels than the sampled images, or a dtype
                that cannot hold `fill`, or what marks points as ignored.

        Example:
            >>> import torch
            >>> from pixelnet_triton.sampling import UniformSampler
            >>> labels = torch.randint(0, 21, (2, 32, 48))
            >>> pixels = UniformSampler(100)(labels)
            >>> pixels.take(labels).shape, pixels.take(torch.zeros(2, 3, 32, 48)).shape
            (torch.Size([2, 100]), torch.Size([2, 100, 3]))
        """
        target = indexable(target)
        fill = check_take(target, self.points, self.image_size, fill, self.ignore_index)
        index = self.points[..., 1] * target.shape[-1] + self.points[..., 0]  # (B, N)
        flat = target.flatten(-2)  # (B, HW) or (B, K, HW)
        if target.dim() == 3:
            return flat.gather(1, index).masked_fill(~self.valid, fill)
        index = index[:, None].expand(-1, target.shape[1], -1)  # (B, K, N)
        return flat.gather(2, index).transpose(1, 2).masked_fill(~self.valid[..., None], fill)


@dataclass(frozen=True)
class SamplerSettings:
    """What all samplers share.

    Args:
        n: pixels drawn from each image.
        ignore_index: label of pixels that are never drawn; None draws them all.
        order: of the points of an image. None is whatever the draw gave; ``"rows"`` is row by
            row and ``"morton"`` along the Z-order curve, where neighbours in the list are
            neighbours on the image, so that they read the same cells of the maps from cache.
    """

    n: int
    _: KW_ONLY
    ignore_index: int | None = 255
    order: str | None = None

    def __post_init__(self) -> None:
        check_settings(self)

    def pixels(self, rank: Tensor, valid: Tensor) -> SampledPixels:
        """The n points of a ranking ``(B, k)`` of pixel indices."""
        height, width = valid.shape[1:]
        count = valid.flatten(1).sum(1)
        index = nth_cyclic(rank, count, self.n)
        if self.order == "rows":
            index = index.sort(dim=1).values
        x, y = index % width, index // width
        if self.order == "morton":
            along = z_order(x, y).argsort(dim=1)
            x, y = x.gather(1, along), y.gather(1, along)
        valid_points = (count > 0)[:, None].expand(-1, self.n)
        points = torch.stack([x, y], dim=-1)
        return SampledPixels(points, valid_points, (height, width), self.ignore_index)


def pixels_of_images(
    image_sizes: Tensor | Sequence[tuple[int, int]], canvas: tuple[int, int]
) -> Tensor:
    """Which pixels of a canvas belong to its image, of images padded on the right and below.

    For the argument `valid` of a sampler; combine it with other masks by ``&``.

    Args:
        image_sizes: ``(B, 2)``, height and width of each image, as a tensor or pairs.
        canvas: ``(H, W)``.

    Returns:
        ``(B, H, W)`` bool, on the device of the sizes.

    Raises:
        ValueError: the sizes are not (B, 2), or (on the CPU) negative or larger than the canvas.
            On a GPU, where looking at them would wait for the device, they are taken as they are;
            ``PIXELNET_TRITON_STRICT=1`` asks for the exception.

    Example:
        >>> from pixelnet_triton.sampling import UniformSampler, pixels_of_images
        >>> valid = pixels_of_images([(32, 40), (21, 17)], (32, 40))
        >>> valid.sum((1, 2)).tolist()
        [1280, 357]
        >>> UniformSampler(100)(valid=valid).points.shape
        torch.Size([2, 100, 2])
    """
    if not isinstance(image_sizes, Tensor):
        image_sizes = torch.tensor(image_sizes, device="cpu")
    if image_sizes.dim() != 2 or image_sizes.shape[1] != 2:
        raise ValueError(
            f"image_sizes has shape {tuple(image_sizes.shape)}; expected (B, 2), height and width "
            "of each image"
        )
    if values_at_hand(image_sizes):
        wrong = (image_sizes < 0) | (image_sizes > torch.tensor(canvas, device=image_sizes.device))
        if bool(wrong.any()):
            raise ValueError(
                f"image_sizes has {tuple(image_sizes[wrong.any(1)][0].tolist())}, which is not "
                f"within canvas={tuple(canvas)}; expected height and width of each image before it "
                "was padded to the canvas. Pass the padded size as canvas, and sizes as "
                "(height, width)"
            )
    inside = [
        torch.arange(length, device=image_sizes.device) < image_sizes[:, axis, None]
        for axis, length in enumerate(canvas)
    ]
    return inside[0].unsqueeze(2) & inside[1].unsqueeze(1)
