"""Maps of integers or flags, such as labels and masks, at the nearest cells.

    h[p] = [X_1[round(t_1(p))] | ... | X_M[round(t_M(p))]]

Nothing is multiplied, so that nothing has to be planned: plain indexing on any device. What lies
outside a zero-padded map is 0, or False. So is, on a GPU, the row of a point that is not finite or
whose image does not exist: integers have no NaN to show it with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..call import LayerAffine, Options, layer_geometry
from ..call.check_options import check_names
from ..call.checks import check_call, check_maps, check_values
from ..call.geometry import quotient
from ..tools.values import values_at_hand

__all__ = ["SIGNED", "are_labels", "labels_at"]

#: torch does little with the former; as the latter their bits are moved alike.
SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
_DTYPES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, *SIGNED)


def are_labels(features: Sequence[Tensor], weight: Tensor | None) -> bool:
    """Are all maps of one dtype of integers or flags?"""
    if weight is not None or not isinstance(features, (list, tuple)):
        return False
    dtypes = {f.dtype for f in features if isinstance(f, Tensor)}
    return len(dtypes) == 1 and dtypes.pop() in _DTYPES


def labels_at(
    features: Sequence[Tensor], points: Tensor, batch_index: Tensor | None, options: Options
) -> Tensor:
    """(B, N, sum C_i) or (P, sum C_i) in the maps' dtype."""
    options = options.in_plain_numbers()
    check_names(options, None)
    check_maps(features)
    dtype = features[0].dtype
    if dtype in SIGNED:
        bits = [f.view(SIGNED[dtype]) for f in features]
        return labels_at(bits, points, batch_index, options).view(dtype)
    # All but the dtype is checked of numbers that take no memory.
    stand_ins = [torch.empty((), device=f.device).float().expand(f.shape) for f in features]
    check_call(stand_ins, points, batch_index, None, None, options)
    height, width = options.image_size
    geometry = layer_geometry(
        [(f.shape[2], f.shape[3]) for f in features],
        (height, width),
        strides=options.strides,
        align_corners=options.align_corners,
        padding_mode=options.padding_mode,
        coordinates=options.coordinates,
    )
    batch = features[0].shape[0]
    rows, image = points.detach().reshape(-1, 2), batch_index
    if image is None:
        images = torch.arange(batch, device=points.device)[:, None]
        image = images.expand(batch, points.shape[1]).reshape(-1)
    image = image.long()
    valid = None
    if values_at_hand(rows):
        check_values(rows, batch_index, batch)
    else:
        valid = rows.isfinite().all(1) & (image >= 0) & (image < batch)
        rows, image = rows.masked_fill(~valid[:, None], 0), image.clamp(0, batch - 1)
    layers = zip(features, geometry.affine, strict=True)
    columns = [_nearest(f, rows, image, affine, geometry.border) for f, affine in layers]
    value = torch.cat(columns, 1)
    if valid is not None:
        value = value.masked_fill(~valid[:, None], 0)
    return value.reshape(*points.shape[:-1], value.shape[1])


def _nearest(
    feature: Tensor, points: Tensor, image: Tensor, affine: LayerAffine, border: bool
) -> Tensor:
    """(P, C)."""
    inside = torch.ones((), dtype=torch.bool, device=points.device)
    cells = []
    for axis, size in ((0, feature.shape[3]), (1, feature.shape[2])):
        a, b, c = quotient(*affine[2 * axis : 2 * axis + 2])
        x = points[:, axis]
        x = x if x.dtype == torch.float64 else x.float()
        cell = ((x * a + b) / c).clamp(-2, size + 1).round().long()  # ties to even
        clamped = cell.clamp(0, size - 1)
        inside = inside & (cell == clamped)
        cells.append(clamped)
    values = feature.permute(0, 2, 3, 1)[image, cells[1], cells[0]]
    return values if border else values.masked_fill(~inside.unsqueeze(-1), 0)
