"""Non-maximum suppression of soft edge maps, as in the structured edge toolbox."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tools.values import values_at_hand

__all__ = ["edge_nms"]

ORIENTATION_RADIUS = 4  # of the filter before the second derivatives, in pixels


def edge_nms(
    edges: Tensor, *, smoothing: int = 1, radius: int = 1, tolerance: float = 1.01, border: int = 5
) -> Tensor:
    r"""Keep the crests of an edge map, one pixel wide.

    The convention of the structured edge toolbox (Dollar and Zitnick, arXiv 1406.5549), by which
    papers on BSDS500 and NYUDv2 treat their maps before the benchmark. With T_r the triangle
    filter of radius r, borders mirrored, and subscripts for central differences,

        E = T_1 * edges,      S = T_4 * E
        theta = atan(S_yy sign(-S_xy) / (S_xx + 1e-5)) mod pi                  normal of the edge
        e_d = E at (x + d cos theta, y + d sin theta), bilinear                d = -r ... r, not 0
        result = E where tolerance E >= every e_d, else 0

    and, within `border` pixels of the sides, times the distance to the side over `border`. (For a
    straight edge tan theta is the squared tangent of its normal, at most 12 degrees off. Here
    sign(0) = 1: with the toolbox's 0, an exactly horizontal edge is not thinned.)

    Args:
        edges: floating ``(..., H, W)``, at least 2 x 2 pixels.
        smoothing: the radius of the first triangle filter, in pixels; 0 for none.
        radius: r, in pixels.
        tolerance: above 1 keeps pixels that are slightly lower than a neighbour: lines without
            gaps, two pixels wide in places, which the benchmark thins.
        border: in pixels; 0 for none.

    Returns:
        ``(..., H, W)``, same dtype and device: the smoothed map, 0 off the crests.

    Raises:
        TypeError: `edges` is not a floating tensor.
        ValueError: it has fewer than 2 x 2 pixels, or an option is out of range; or (on the CPU)
            a value is not finite. On a GPU, where looking at values would wait for the device, NaN
            spreads to the pixels around; ``PIXELNET_TRITON_STRICT=1`` asks for the exception.

    Example:
        >>> import torch
        >>> from pixelnet_triton.metrics import edge_nms
        >>> blurred = torch.exp(-((torch.arange(32.0) - 16) ** 2) / 18).expand(1, 32, 32)
        >>> (blurred > 0.5).sum(-1)[0, 16], (edge_nms(blurred) > 0.5).sum(-1)[0, 16]
        (tensor(7), tensor(1))
    """
    _check(edges, smoothing, radius, tolerance, border)
    height, width = edges.shape[-2:]
    maps = edges.reshape(-1, height, width)
    maps = maps if maps.dtype == torch.float64 else maps.float()
    with torch.autocast(maps.device.type, enabled=False):  # its convolutions are in half precision
        maps = _triangle(maps, smoothing)
        theta = _normal(_triangle(maps, ORIENTATION_RADIUS))

    y = torch.arange(height, device=maps.device, dtype=maps.dtype)[:, None]
    x = torch.arange(width, device=maps.device, dtype=maps.dtype)
    crest = torch.ones_like(maps, dtype=torch.bool)
    for d in (d for d in range(-radius, radius + 1) if d != 0):
        neighbour = _bilinear(maps, x + d * theta.cos(), y + d * theta.sin())
        crest &= tolerance * maps >= neighbour
    kept = torch.where(crest, maps, 0)
    kept = kept * _fade(height, border, maps)[:, None] * _fade(width, border, maps)
    return kept.to(edges.dtype).reshape(edges.shape)


def _triangle(maps: Tensor, radius: int) -> Tensor:
    """Convolve ``(N, H, W)`` with 1, 2 ... r + 1 ... 2, 1 over its sum, along both axes."""
    if radius == 0:
        return maps
    up = torch.arange(1, radius + 2, device=maps.device, dtype=maps.dtype)
    kernel = torch.cat([up, up[:-1].flip(0)]) / (radius + 1) ** 2
    padded = _mirrored(_mirrored(maps, radius).mT, radius).mT[:, None]
    rows = F.conv2d(padded, kernel[None, None, None, :])
    return F.conv2d(rows, kernel[None, None, :, None])[:, 0]


def _mirrored(maps: Tensor, radius: int) -> Tensor:
    """Pad the last axis by reflection about the outer side of its end pixels, as often as needed.

    (torch's `reflect` is about their centres.)
    """
    size = maps.shape[-1]
    at = torch.arange(-radius, size + radius, device=maps.device) % (2 * size)
    return maps[..., torch.where(at < size, at, 2 * size - 1 - at)]


def _normal(smooth: Tensor) -> Tensor:
    """The direction across the edge in [0, pi), from the x axis towards growing y."""
    along_y, along_x = torch.gradient(smooth, dim=(-2, -1))
    xy, xx = torch.gradient(along_x, dim=(-2, -1))
    (yy,) = torch.gradient(along_y, dim=-2)
    # The toolbox's sign(0) = 0 would turn a horizontal edge, whose xy is exactly 0, by 90 degrees.
    sign = torch.where(xy > 0, -1, 1)
    return torch.atan(yy * sign / (xx + 1e-5)).remainder(torch.pi)


def _bilinear(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """``(N, H, W)`` at positions of the same shape, clamped to the map."""
    height, width = maps.shape[-2:]
    x, y = x.clamp(0, width - 1.001), y.clamp(0, height - 1.001)
    left, top = x.floor(), y.floor()
    u, v = x - left, y - top
    at = (top * width + left).long().flatten(1)  # (N, H * W)
    flat = maps.flatten(1)
    corners = [flat.gather(1, at + step).view_as(maps) for step in (0, 1, width, width + 1)]
    above = corners[0] * (1 - u) + corners[1] * u
    below = corners[2] * (1 - u) + corners[3] * u
    return above * (1 - v) + below * v


def _fade(size: int, border: int, like: Tensor) -> Tensor:
    """0 at both ends, 1 from `border` pixels on, which is at most half the size."""
    border = min(border, size // 2)
    if border == 0:
        return torch.ones(size, device=like.device, dtype=like.dtype)
    place = torch.arange(size, device=like.device, dtype=like.dtype)
    return (torch.minimum(place, place.flip(0)) / border).clamp(max=1)


def _check(edges: Tensor, smoothing: int, radius: int, tolerance: float, border: int) -> None:
    if not isinstance(edges, Tensor) or not edges.is_floating_point():
        came = edges.dtype if isinstance(edges, Tensor) else type(edges).__name__
        raise TypeError(
            f"edges is {came}; expected a floating torch.Tensor (..., H, W). Convert with "
            "torch.as_tensor(edges, dtype=torch.float32), an 8-bit map divided by 255"
        )
    if edges.dim() < 2 or min(edges.shape[-2:]) < 2:
        raise ValueError(
            f"edges has shape {tuple(edges.shape)}; expected (..., H, W) of at least 2 x 2 pixels"
        )
    if values_at_hand(edges) and not bool(edges.isfinite().all()):
        raise ValueError(
            f"edges is NaN or infinite at {int((~edges.isfinite()).sum())} of {edges.numel()} "
            "pixels; expected finite values, as the filters would spread others. Look for them in "
            "what the model gives, or replace them with edges.nan_to_num()"
        )
    for name, value, least in (
        ("smoothing", smoothing, 0),
        ("radius", radius, 1),
        ("tolerance", tolerance, 1),
        ("border", border, 0),
    ):
        if not value >= least:  # this form refuses NaN too
            raise ValueError(f"{name}={value}; expected at least {least}")
