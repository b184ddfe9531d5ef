"""Dense prediction: every pixel of an image, several scales and mirrored, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tools.images import check_images
from ..tools.modes import evaluation_mode
from ..tools.progress import progress_bar
from .tiles import head_at_every_pixel

if TYPE_CHECKING:
    from ..models.pixelnet import PixelNet

__all__ = ["OUTPUTS", "predict"]

# What raw scores (B, K, ...) stand for; each keeps that shape.
OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda scores: torch.softmax(scores, dim=1),
    "sigmoid": torch.sigmoid,
    "normals": lambda scores: F.normalize(scores, dim=1),
    "depth": torch.exp,
}


@torch.no_grad()
def predict(
    model: PixelNet,
    images: Tensor,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    memory_budget: int = 256 << 20,
    progress: bool = False,
) -> Tensor:
    r"""Outputs at every pixel, averaged over scales and mirror images.

    .. math:: \frac{1}{|S|} \sum_{s \in S} \mathrm{resize}(\mathrm{output}(f(\mathrm{resize}_s X)))

    At scale s images are resized (bilinear, antialiased) to round(s H) x round(s W) pixels, at
    least 1, and predicted at each of their pixels; the outputs (probabilities, normals, depths:
    after `model.output`) are resized back bilinearly and averaged, as the paper does with the
    scales 0.25, 0.5 and 1 (section 4.1, Analysis-4). Averaged normals are brought to length 1
    again. Every image is computed by itself, with the model in evaluation mode; each of its
    modules is put back into the mode it was in.

    Args:
        model: a :class:`~pixelnet_triton.models.PixelNet`.
        images: ``(B, 3, H, W)``, as the backbone takes them.
        scales: factors for the images' size.
        flip: whether to average with the mirror image's output, mirrored back. The x component of a
            mirrored normal also changes its sign, so ``output="normals"`` must be set for normals
            (raw scores are mirrored as they are).
        memory_budget: bytes that the head may allocate at once. Not part of it are the weights, the
            result, the maps of one image, which the backbone makes as a whole, and, where several
            scales or mirror images are averaged, the output of one of them beside two copies. Too
            small a budget makes tiles so small that beginning them takes longer than computing.
        progress: whether to show a bar (needs tqdm).

    Returns:
        ``(B, K, H, W)``, float32 (float64 for a float64 model), on the images' device.

    Raises:
        ValueError: a scale or budget that is not positive, images the backbone cannot take.
        ModuleNotFoundError: `progress` without tqdm.

    Example:
        >>> import torch
        >>> from pixelnet_triton.inference import predict
        >>> from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
        >>> backbone = VGG16(("conv1_2", "conv3_3"), width=1 / 16)
        >>> head = PixelMLP(backbone.channels, (32,), out_features=3)
        >>> model = PixelNet(backbone, head, output="normals")
        >>> normals = predict(model, torch.rand(1, 3, 33, 47), scales=(0.5, 1.0), flip=True)
        >>> normals.shape, bool(torch.allclose(normals.norm(dim=1), torch.ones(1, 33, 47)))
        (torch.Size([1, 3, 33, 47]), True)
    """
    _check(images, scales, memory_budget)
    size = (images.shape[2], images.shape[3])
    sizes = [_scaled(size, scale) for scale in scales]
    double = model.head.first.weight.dtype == torch.float64
    out = torch.zeros(
        (images.shape[0], model.head.out_features, *size),
        dtype=torch.float64 if double else torch.float32,
        device=images.device,
    )
    views = len(sizes) * (2 if flip else 1)
    pixels = sum(h * w for h, w in sizes) * views // len(sizes) * images.shape[0]
    with evaluation_mode(model), progress_bar(pixels, progress, unit="px", unit_scale=True) as done:
        for b in range(images.shape[0]):
            image, total = images[b : b + 1], out[b : b + 1]
            if sizes == [size] and not flip:
                _output(model, image, memory_budget, done, total)
                continue
            for view_size in sizes:
                for mirrored in (False, True)[: 2 if flip else 1]:
                    view = _view(image, view_size, mirrored)
                    output = _unmirror(_output(model, view, memory_budget, done), model, mirrored)
                    total += _resized(output, size)
                    del output
            total /= views
            if model.output == "normals":
                total.copy_(OUTPUTS["normals"](total))
    return out


def _output(
    model: PixelNet,
    image: Tensor,
    memory_budget: int,
    done: Callable[[int], object],
    out: Tensor | None = None,
) -> Tensor:
    """The model's output (1, K, H, W) on one image as it is, in `out` if there is one."""
    return head_at_every_pixel(
        model.head,
        model.features(image),
        (image.shape[2], image.shape[3]),
        memory_budget=memory_budget,
        output=None if model.output is None else OUTPUTS[model.output],
        out=None if out is None else out[0],
        done=done,
    )[None]


def _view(image: Tensor, size: tuple[int, int], mirrored: bool) -> Tensor:
    resized = _resized(image, size)
    return resized.flip(3) if mirrored else resized


def _unmirror(output: Tensor, model: PixelNet, mirrored: bool) -> Tensor:
    if not mirrored:
        return output
    output = output.flip(3)
    if model.output == "normals":
        output[:, 0].neg_()  # what pointed to the right in the mirror points to the left
    return output


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[2:] == size:
        return images
    # In half precision it is less exact, and on a CPU not there.
    exact = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
    return F.interpolate(exact, size, mode="bilinear", antialias=True).to(images.dtype)


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _check(images: Tensor, scales: Sequence[float], memory_budget: int) -> None:
    check_images(images)
    if not isinstance(scales, Sequence) or isinstance(scales, str) or len(scales) == 0:
        raise ValueError(f"scales={scales!r}; expected a sequence of factors, such as (0.5, 1.0)")
    if not all(isinstance(s, (int, float)) and 0 < s < math.inf for s in scales):
        raise ValueError(f"scales={tuple(scales)}; expected positive, finite factors")
    if not isinstance(memory_budget, int) or memory_budget <= 0:
        raise ValueError(f"memory_budget={memory_budget!r}; expected a positive number of bytes")
