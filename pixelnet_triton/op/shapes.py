"""The question that is put to the planner: `sparse_hypercolumn` and `plan_hypercolumn` both ask it.

It is made here alone, so that the same call gets the same answer from both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..call import Backend, CallShape, Geometry, LayerShape, Sampling
from ..call.grids import integers_are_exact
from ..call.shape import bucket, layer_shape

__all__ = ["call_shape", "shape_of"]


def shape_of(
    s: Sampling,
    weight: Tensor | None,
    backend: Backend,
    *,
    training: bool,
    moving_points: bool,
    may_keep: bool = False,
) -> CallShape:
    """What the planner sees of a call."""
    return call_shape(
        [layer_shape(feature) for feature in s.features],
        s.batch,
        s.total,
        0 if weight is None else weight.shape[:-1].numel(),
        s.features[0].dtype,
        s.geometry,
        backend,
        integers=not s.points.is_floating_point(),
        ragged=s.batch_index is not None,
        training=training,
        moving_points=moving_points,
        may_keep=may_keep,
    )


def call_shape(
    layers: Sequence[LayerShape],
    batch: int,
    points: int,
    out_features: int,
    dtype: torch.dtype,
    geometry: Geometry,
    backend: Backend,
    *,
    integers: bool,
    ragged: bool,
    training: bool,
    moving_points: bool,
    may_keep: bool,
) -> CallShape:
    """The same of shapes alone; points are of three significant bits only.

    Args:
        points: P, of all images. integers: their coordinates are. ragged: with a batch_index.
        geometry: where they fall on the maps.
    """
    sizes = [(layer.rows, layer.columns) for layer in layers]
    own = geometry.torch_coordinates(sizes) is not None
    return CallShape(
        tuple(
            [
                replace(layer, exact=True) if geometry.is_exact(i, integers) else layer
                for i, layer in enumerate(layers)
            ]
        ),
        batch,
        bucket(points),
        out_features,
        dtype.itemsize,
        # To the CPU points of one image are nothing special; kernels are checked against bounds.
        ragged and (backend.name == "gpu" or batch > 1),
        training,
        backend.multiplies(dtype),
        not geometry.bilinear,
        moving_points,
        may_keep,
        own,
        own or (integers and integers_are_exact(geometry, sizes)),
    )
