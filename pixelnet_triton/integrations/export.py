"""`torch.export` and ONNX: the library's operator replaced by plain ATen operators.

A traced model holds one node `pixelnet_triton::sparse_hypercolumn` for each call, which only a
process that has imported this package can run. :func:`export` decomposes that node into
`index_select`, products and sums:

    z = sum over layers of  S_i X_i W_i^T  +  b,    (S_i X)[p] = sum over four corners of  w X[row]

A layer that is known while tracing to have fewer cells than there are points is projected first and
then sampled, as in the eager call. The result is for inference, runs wherever ATen or ONNX does,
and contains neither planner nor kernels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import statically_known_true

from ..call import Geometry, LayerAffine
from ..call.geometry import quotient
from ..call.placing import place

__all__ = ["AtEveryPixel", "export", "export_onnx", "plain_sparse_hypercolumn"]


def export(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> torch.export.ExportedProgram:
    """``torch.export.export`` of `model` for inference, in ATen operators alone.

    Args:
        model: a module that calls :func:`pixelnet_triton.sparse_hypercolumn` somewhere inside;
            exported as it stands, so call ``model.eval()`` first where dropout or batch norm are.
        args, kwargs: example inputs. dynamic_shapes: as for :func:`torch.export.export`.
            Batch and number of points may be dynamic; height and width, too, where the layer was
            given `strides`: otherwise the ratio of the sizes is a constant of the program.

    Returns:
        A program to run, save (`torch.export.save`), lower or convert to ONNX.

    Example:
        >>> import torch
        >>> from pixelnet_triton.integrations import PointHead
        >>> from pixelnet_triton.integrations.export import export
        >>> head = PointHead([8], channels=16, num_classes=3).eval()
        >>> inputs = ([torch.randn(1, 8, 16, 16)], torch.randn(1, 3, 8, 8), torch.rand(1, 50, 2))
        >>> program = export(head, inputs)
        >>> torch.allclose(program.module()(*inputs), head(*inputs), atol=1e-6)
        True
    """
    with torch.no_grad():
        program = torch.export.export(
            model, args, dict(kwargs or {}), dynamic_shapes=dynamic_shapes, strict=False
        )
        operator = torch.ops.pixelnet_triton.sparse_hypercolumn.default
        with _quiet_copies():
            return program.run_decompositions({operator: plain_sparse_hypercolumn})


def export_onnx(
    model: nn.Module,
    args: tuple[Any, ...],
    path: str | PathLike[str],
    *,
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> None:
    """Write `model` as an ONNX file of standard operators.

    Args:
        model, args, dynamic_shapes: as for :func:`export`. path: the file to write.
        input_names, output_names: of the ONNX graph.

    Raises:
        ImportError: onnx or onnxscript is missing: ``pip install 'pixelnet-triton[onnx]'``.

    Example:
        >>> import torch
        >>> from pixelnet_triton.integrations import PointHead
        >>> from pixelnet_triton.integrations.export import export_onnx
        >>> head = PointHead([8], channels=16, num_classes=3).eval()
        >>> inputs = ([torch.randn(1, 8, 16, 16)], torch.randn(1, 3, 8, 8), torch.rand(1, 50, 2))
        >>> export_onnx(head, inputs, "head.onnx")  # doctest: +SKIP
    """
    try:
        import onnxscript  # noqa: F401 - torch.onnx imports it late, with a longer message
    except ImportError as error:
        raise ImportError(
            f"ONNX needs {error.name}, which is not installed: pip install 'pixelnet-triton[onnx]'"
        ) from error
    program = export(model, args, dynamic_shapes=dynamic_shapes)
    with _quiet_copies():
        torch.onnx.export(
            program,
            args,
            str(path),
            input_names=input_names,
            output_names=output_names,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextmanager
def _quiet_copies() -> Iterator[None]:
    """Suppress the warning that torch 2.13 gives of itself when it copies a program."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
        yield


class AtEveryPixel(nn.Module):
    """`model` at the centre of every pixel: dense inference as a module that can be exported.

    All pixels are taken at once, so the hidden layers hold H x W rows. Where that is too much,
    export `model` itself with a dynamic number of points and call it for some pixels at a time.

    Args:
        model: called as ``model(images, points)`` with images ``(B, 3, H, W)`` and points
            ``(B, N, 2)`` in pixels, it returns ``(B, N, K)``, as
            :class:`pixelnet_triton.models.PixelNet` does.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from pixelnet_triton import sparse_hypercolumn
        >>> from pixelnet_triton.integrations.export import AtEveryPixel
        >>> class Identity(nn.Module):
        ...     def forward(self, images, points):
        ...         return sparse_hypercolumn([images], points, tuple(images.shape[2:]))
        >>> images = torch.randn(2, 3, 6, 8)
        >>> torch.allclose(AtEveryPixel(Identity())(images), images, atol=1e-5)
        True
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Scores ``(B, K, H, W)`` of images ``(B, 3, H, W)``."""
        batch, _, height, width = images.shape
        x = torch.arange(width, device=images.device).expand(height, width)
        y = torch.arange(height, device=images.device)[:, None].expand(height, width)
        pixels = torch.stack([x, y], dim=-1).reshape(1, height * width, 2)
        scores = self.model(images, pixels.expand(batch, -1, -1))  # (B, H W, K)
        return scores.transpose(1, 2).unflatten(2, (height, width))


def plain_sparse_hypercolumn(
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    features: list[Tensor],
    affine: list[float],
    interpolation: str,
    padding_mode: str,
    activation: str | None,
    plan: str,
    training: bool,
    moving_points: bool,
) -> Tensor:
    """The operator `pixelnet_triton::sparse_hypercolumn` in plain ATen: its signature and result.

    Points are ``(P, 2)``, equally many for each image where `batch_index` is None. `plan` and
    `training` have no effect.
    """
    dtype = features[0].dtype
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    geometry = Geometry.from_flat(affine, interpolation, padding_mode)
    image = _image_of_each(points, batch_index, features[0].shape[0])
    if points.dtype != torch.float64:  # whose range is wider
        points = points.to(compute)
    slices: Sequence[Tensor | None] = [None] * len(features)
    if weight is not None:
        slices = weight.to(compute).split([f.shape[1] for f in features], dim=1)
    parts = []
    for feature, layer, columns in zip(features, geometry.affine, slices, strict=True):
        cells = feature.permute(0, 2, 3, 1).flatten(0, 2).to(compute)  # (B H_i W_i, C_i)
        height, width = feature.shape[2:]
        corners = _corners(points, image, layer, height, width, compute, geometry)
        if columns is None:
            parts.append(_sampled(cells, corners))
        elif statically_known_true(cells.shape[0] < points.shape[0]):
            parts.append(_sampled(cells @ columns.T, corners))
        else:
            parts.append(_sampled(cells, corners) @ columns.T)
    if weight is None:
        return torch.cat(parts, dim=1).to(dtype)
    z = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
    if bias is not None:
        z = z + bias.to(compute)
    return _ACTIVATIONS[activation](z).to(dtype)


_ACTIVATIONS: dict[str | None, Any] = {None: lambda z: z, "relu": F.relu, "gelu": F.gelu}

Corners = list[tuple[Tensor, Tensor | None]]  # rows (P,) of the cells, and their shares (P,)


def _image_of_each(points: Tensor, batch_index: Tensor | None, batch: int) -> Tensor:
    if batch_index is not None:
        return batch_index.long()
    images = torch.arange(batch, device=points.device)[:, None]
    return images.expand(batch, points.shape[0] // batch).reshape(-1)


def _corners(
    points: Tensor,
    image: Tensor,
    layer: LayerAffine,
    height: int,
    width: int,
    dtype: torch.dtype,
    geometry: Geometry,
) -> Corners:
    """The cells a point's value is made of, four or one for the nearest; shares in `dtype`."""
    scale_x, offset_x, scale_y, offset_y = layer
    axes_x = _axis(_position(points[:, 0], scale_x, offset_x), width, dtype, geometry)
    axes_y = _axis(_position(points[:, 1], scale_y, offset_y), height, dtype, geometry)
    corners: Corners = []
    for row, share_y in axes_y:
        for column, share_x in axes_x:
            share = None if share_x is None or share_y is None else share_x * share_y
            rows, columns = _onto_map(row, height), _onto_map(column, width)
            if geometry.padding_mode == "zeros":
                inside = ((rows == row) & (columns == column)).to(dtype)
                share = inside if share is None else share * inside
            corners.append(((image * height + rows.long()) * width + columns.long(), share))
    return corners


def _onto_map(cell: Tensor, cells: int) -> Tensor:
    """clamp, but onnxscript's optimiser loses one of two clamps; sizes may be symbols."""
    return torch.minimum(F.relu(cell), cell.new_full((), cells - 1))


def _position(x: Tensor, scale: float, offset: float) -> Tensor:
    """t of x on one axis."""
    a, b, c = quotient(scale, offset)
    return x * a + b if c == 1 else (x * a + b) / c


def _axis(
    t: Tensor, cells: int, dtype: torch.dtype, geometry: Geometry
) -> list[tuple[Tensor, Tensor | None]]:
    """The cells of one axis around each position, and their shares."""
    # Shares are zero beyond two cells outside the map, and far-off points must not overflow.
    lowest, highest = (0, cells - 1) if geometry.border else (-2, cells + 1)
    if t.dtype != dtype:
        t = t.clamp(lowest, highest).to(dtype)
    if not geometry.bilinear:
        return [(t.clamp(lowest, highest).round(), None)]
    low, upper = place(t, lowest, highest)
    return [(low, 1 - upper), (low + 1, upper)]


def _sampled(table: Tensor, corners: Corners) -> Tensor:
    """(P, columns): the table's rows at the corners, weighted and summed."""
    terms = []
    for rows, share in corners:
        values = table.index_select(0, rows)
        if share is not None:  # a share of 0 takes nothing, of infinity neither
            values = values.masked_fill((share == 0)[:, None], 0) * share[:, None]
        terms.append(values)
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
