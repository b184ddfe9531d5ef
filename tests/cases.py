"""Cases: what a call can look like, as data, and the tensors made from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["CASES", "DTYPE_CASES", "Case", "Inputs", "build", "case_id"]

Layer = tuple[int, int, int]  # channels, rows, columns


@dataclass(frozen=True)
class Case:
    """One call of `sparse_hypercolumn`, without its numbers.

    spread: where the points lie: "inside" the image, "outside" (over three times its extent),
        "edges" (on and near its borders and corners), "integer" (pixel centres) or "duplicates"
        (three positions only), or "far" (a half of them at up to 1e30 times the image's extent).
    layout: strides of the maps: "nchw", "channels_last", "sliced" (every second channel and a
        window of a larger map), "chunk" (some channels of a larger map), "batch" (every second
        image of a larger batch), "transposed" (columns outermost) or "expanded" (all images
        share one map's memory).
    contiguous: False also permutes the memory of points, weight, batch_index and of the
        gradient that arrives.
    ragged: points (P, 2) with an unsorted batch_index instead of (B, N, 2); `points` then
        counts all of them.
    """

    name: str
    layers: tuple[Layer, ...] = ((24, 9, 11), (3, 5, 6))
    batch: int = 2
    points: int = 17
    image_size: tuple[int, int] = (18, 22)
    out_features: int | None = None
    bias: bool = True
    activation: str | None = None
    dtype: torch.dtype = torch.float32
    point_dtype: torch.dtype = torch.float32
    index_dtype: torch.dtype = torch.int64
    spread: str = "inside"
    layout: str = "nchw"
    contiguous: bool = True
    ragged: bool = False
    strides: tuple[Any, ...] | None = None
    interpolation: str = "bilinear"
    align_corners: bool = False
    padding_mode: str = "border"
    coordinates: str = "pixel"

    @property
    def channels(self) -> int:
        """sum C_i"""
        return sum(channels for channels, _, _ in self.layers)

    def linear(self, out_features: int = 40, **changes: Any) -> Case:
        """The same case with a first linear layer."""
        return replace(self, name=f"{self.name}-linear", out_features=out_features, **changes)

    def with_dtype(self, dtype: torch.dtype) -> Case:
        """The same case in another dtype."""
        point_dtype = torch.float64 if dtype == torch.float64 else self.point_dtype
        name = f"{self.name}-{str(dtype).removeprefix('torch.')}"
        return replace(self, name=name, dtype=dtype, point_dtype=point_dtype)


@dataclass
class Inputs:
    """The tensors of a case. `tensors()` names those that may want a gradient."""

    case: Case
    features: list[Tensor]
    points: Tensor
    weight: Tensor | None
    bias: Tensor | None
    batch_index: Tensor | None
    options: dict[str, Any] = field(default_factory=dict)
    moving_points: bool = True  # want a gradient, if they are floating

    def tensors(self) -> dict[str, Tensor]:
        """Everything differentiable, by name."""
        named = {f"features[{i}]": feature for i, feature in enumerate(self.features)}
        if self.weight is not None:
            named["weight"] = self.weight
        if self.bias is not None:
            named["bias"] = self.bias
        if self.points.is_floating_point() and self.moving_points:
            named["points"] = self.points
        return named

    def double(self) -> Inputs:
        """The same numbers in float64, as new leaves."""

        def widen(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.detach().double()

        return replace(
            self,
            features=[feature.detach().double() for feature in self.features],
            points=widen(self.points) if self.points.is_floating_point() else self.points,
            weight=widen(self.weight),
            bias=widen(self.bias),
        )

    def arguments(self, **changes: Any) -> dict[str, Any]:
        """Keyword arguments of `sparse_hypercolumn`."""
        return {
            "features": self.features,
            "points": self.points,
            "image_size": self.case.image_size,
            "weight": self.weight,
            "bias": self.bias,
            "batch_index": self.batch_index,
            **self.options,
            **changes,
        }


def case_id(case: Case) -> str:
    """For `pytest.mark.parametrize(..., ids=case_id)`."""
    return case.name


def build(case: Case, device: torch.device | str = "cpu", seed: int = 0) -> Inputs:
    """The tensors of a case: the same numbers on every device."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    def place(tensor: Tensor, dtype: torch.dtype) -> Tensor:
        tensor = tensor.to(device, dtype)
        return tensor if case.contiguous else _permuted_memory(tensor)

    features = [
        _with_layout(
            normal(case.batch, *layer).to(device, case.dtype),
            case.layout,
        )
        for layer in case.layers
    ]
    rows = case.points if case.ragged else case.batch * case.points
    points = _points(case, rows, random)
    batch_index = None
    if case.ragged:
        batch_index = torch.randint(max(case.batch, 1), (rows,), generator=random)
        batch_index = place(batch_index, case.index_dtype)
    else:
        points = points.reshape(case.batch, case.points, 2)
    weight = bias = None
    if case.out_features is not None:
        weight = place(normal(case.out_features, case.channels) / case.channels**0.5, case.dtype)
        bias = place(normal(case.out_features), case.dtype) if case.bias else None
    options: dict[str, Any] = {
        "activation": case.activation,
        "strides": case.strides,
        "interpolation": case.interpolation,
        "align_corners": case.align_corners,
        "padding_mode": case.padding_mode,
        "coordinates": case.coordinates,
    }
    points = place(points, case.point_dtype)
    return Inputs(case, features, points, weight, bias, batch_index, options)


def _points(case: Case, rows: int, random: torch.Generator) -> Tensor:
    """(rows, 2) of (x, y) in the case's convention, float64."""
    height, width = case.image_size
    size = torch.tensor([width, height], dtype=torch.float64)

    def uniform() -> Tensor:
        return torch.rand((rows, 2), generator=random, dtype=torch.float64)

    # first as the share of the way over the image, from edge to edge
    share = uniform()
    if case.spread == "outside":
        share = 3 * share - 1
    elif case.spread == "duplicates":
        share = share[torch.randint(min(3, rows), (rows,), generator=random)] if rows else share
    elif case.spread == "edges":
        # first, second, last pixel centre or image edge, half of them shifted a little
        ends = torch.tensor([-0.5, 0.0, 1.0], dtype=torch.float64)[:, None].expand(3, 2)
        ends = torch.cat([ends, size - 1 - ends])  # (6, 2) in pixels
        pick = torch.randint(6, (rows, 2), generator=random)
        shift = 0.2 * (uniform() - 0.5) * (uniform() < 0.5)
        share = (ends.gather(0, pick) + shift + 0.5) / size
    elif case.spread == "far":
        most = {torch.float16: 2.0}.get(case.point_dtype, 30.0)
        away = (2 * uniform() - 1).sign() * 10 ** (most * uniform())
        share = share + away * (uniform() < 0.3)  # on one axis, both, or none
    elif case.spread == "integer":
        share = ((share * size).floor() + 0.5) / size
    elif case.spread != "inside":
        raise ValueError(case.spread)
    if case.coordinates == "pixel":
        pixels = share * size - 0.5
        integer = case.spread == "integer" or not case.point_dtype.is_floating_point
        return pixels.round() if integer else pixels
    return share if case.coordinates == "unit" else 2 * share - 1


def _with_layout(feature: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        return feature.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return feature.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "expanded":
        return feature[:1].expand(feature.shape)
    if layout == "chunk":
        room = feature.new_full((feature.shape[0], feature.shape[1] + 3, *feature.shape[2:]), 1e4)
        chunk = room[:, 1:-2]
        chunk.copy_(feature)
        return chunk
    if layout == "batch":
        room = feature.new_full((2 * feature.shape[0], *feature.shape[1:]), 1e4)
        images = room[::2]
        images.copy_(feature)
        return images
    if layout == "sliced":
        batch, channels, rows, columns = feature.shape
        room = feature.new_full((batch, 2 * channels, rows + 3, columns + 2), 1e4)
        window = room[:, ::2, 1:-2, 1:-1]
        window.copy_(feature)
        return window
    assert layout == "nchw", layout
    return feature


def _permuted_memory(tensor: Tensor) -> Tensor:
    """The same tensor over memory in another order, with gaps."""
    room = tensor.new_zeros((*reversed(tensor.shape), 2))[..., 0]
    room.copy_(tensor.permute(*reversed(range(tensor.dim()))))
    return room.permute(*reversed(range(tensor.dim())))


def _layers(*channels: int, top: tuple[int, int] = (16, 20)) -> tuple[Layer, ...]:
    """A pyramid: each layer half as high and wide as the one before."""
    return tuple((c, max(1, top[0] >> i), max(1, top[1] >> i)) for i, c in enumerate(channels))


def _both(cases: Sequence[Case]) -> list[Case]:
    """Each case without and with a linear layer."""
    return [variant for case in cases for variant in (case, case.linear())]


_PYRAMID = ((24, 16, 20), (100, 8, 10), (3, 4, 5))  # a fine, a wide and a thin layer
_ODD = ((24, 7, 13), (8, 3, 5), (3, 1, 1))  # sizes that divide nothing

_SHAPES = [
    Case("one-layer", _layers(24), image_size=(32, 40)),
    Case("two-layers", _layers(24, 100), image_size=(32, 40)),
    Case("three-layers", _PYRAMID, image_size=(32, 40)),
    Case("four-layers", _layers(3, 24, 8, 100), image_size=(32, 40)),
    Case("five-layers", _layers(16, 3, 24, 8, 16), image_size=(32, 40)),
    Case("six-layers", _layers(8, 16, 3, 24, 8, 100), image_size=(32, 40)),
    Case("channels-1", _layers(1, 1), image_size=(32, 40)),
    Case("channels-4096", ((16, 14, 14), (4096, 7, 7)), batch=1, image_size=(28, 28)),
    Case("maps-1x1", ((24, 1, 1), (3, 1, 1)), image_size=(8, 8)),
    Case("maps-1xn", ((24, 1, 9), (3, 9, 1)), image_size=(9, 18)),
    Case("image-1x1", ((24, 3, 4), (3, 1, 1)), image_size=(1, 1)),
    Case("odd-sizes", _ODD, image_size=(15, 27)),
    Case("map-larger-than-image", ((24, 16, 20), (3, 8, 10)), image_size=(8, 10)),
    Case("one-point", _PYRAMID, batch=1, points=1, image_size=(32, 40)),
    Case("many-points", ((24, 9, 11), (3, 5, 6)), batch=1, points=150),
    Case("no-points", _PYRAMID, points=0, image_size=(32, 40)),
    Case("no-images", _PYRAMID, batch=0, image_size=(32, 40)),
    Case("no-ragged-points", _PYRAMID, points=0, ragged=True, image_size=(32, 40)),
]

_POINTS = [
    Case("outside", _ODD, spread="outside", image_size=(15, 27), points=40),
    Case("edges", _ODD, spread="edges", image_size=(15, 27), points=40),
    Case("integer-positions", _ODD, spread="integer", image_size=(15, 27)),
    Case("duplicates", spread="duplicates", points=40),
    Case("int64-points", point_dtype=torch.int64),
    Case("int32-points", point_dtype=torch.int32),
    Case("int16-points", point_dtype=torch.int16),
    Case("uint8-points", point_dtype=torch.uint8),
    Case("float64-points", point_dtype=torch.float64),
    Case("float16-points", point_dtype=torch.float16),
    Case("bfloat16-points", point_dtype=torch.bfloat16),
    Case("ragged", ragged=True, batch=4, points=30),
    Case("ragged-one-image", ragged=True, batch=1),
    Case("ragged-empty-images", ragged=True, batch=9, points=4),
    Case("ragged-int32", ragged=True, index_dtype=torch.int32),
    Case("ragged-uint8", ragged=True, index_dtype=torch.uint8, point_dtype=torch.int64),
    Case("ragged-duplicates", ragged=True, batch=3, points=60, spread="duplicates"),
]

_LAYOUTS = [
    Case(f"layout-{layout}", _PYRAMID, layout=layout, image_size=(32, 40))
    for layout in ("channels_last", "sliced", "transposed", "expanded")
] + [
    Case("non-contiguous", _PYRAMID, contiguous=False, layout="sliced", image_size=(32, 40)),
    Case(
        "non-contiguous-ragged",
        _PYRAMID,
        contiguous=False,
        ragged=True,
        layout="channels_last",
        image_size=(32, 40),
    ),
]

_CONVENTIONS = [
    Case(
        f"{coordinates}-{'corners' if align else 'edges'}-{padding}-{interpolation}",
        _ODD,
        spread="outside",
        points=40,
        image_size=(15, 27),
        coordinates=coordinates,
        align_corners=align,
        padding_mode=padding,
        interpolation=interpolation,
    )
    for coordinates in ("pixel", "unit", "normalized")
    for align in (False, True)
    for padding in ("border", "zeros")
    for interpolation in ("bilinear", "nearest")
]

_STRIDES = [
    Case(  # a 15 x 27 image on a canvas padded to 16 x 28
        "strides-padded-canvas",
        ((24, 16, 28), (8, 8, 14), (3, 4, 7)),
        image_size=(15, 27),
        strides=(1, 2, 4),
    ),
    Case(
        "strides-pairs",
        _ODD,
        image_size=(15, 27),
        strides=((2.0, 2.1), (5, 5.5), 16),
        spread="outside",
        padding_mode="zeros",
    ),
    Case("strides-upsampled-map", image_size=(9, 11), strides=(0.5, 2.5)),
    Case("strides-unit", image_size=(18, 22), strides=(2, 4), coordinates="unit"),
    Case("strides-integer", image_size=(18, 22), strides=(2, 4), point_dtype=torch.int64),
    Case("strides-nearest", strides=(2, 4), interpolation="nearest", point_dtype=torch.int64),
]

_LINEAR = [
    Case("no-bias", out_features=40, bias=False),
    Case("relu", out_features=40, activation="relu"),
    Case("gelu", out_features=40, activation="gelu"),
    Case("relu-no-bias", out_features=24, activation="relu", bias=False),
    Case("gelu-ragged", out_features=24, activation="gelu", ragged=True),
    Case("relu-zeros", out_features=24, activation="relu", padding_mode="zeros", spread="outside"),
    Case("one-output", out_features=1),
    Case("odd-outputs", out_features=37, activation="relu"),
    Case("many-outputs", out_features=300, points=9),
]

# Every case in float32: shapes and conventions both without and with the linear layer.
CASES = _both(_SHAPES + _POINTS + _LAYOUTS + _STRIDES + _CONVENTIONS) + _LINEAR

_IN_OTHER_DTYPES = _both(
    [
        Case("three-layers", _PYRAMID, image_size=(32, 40)),
        Case("channels_last", _PYRAMID, image_size=(32, 40), layout="channels_last"),
        Case("duplicates", spread="duplicates", points=40),
        Case("outside-zeros", _ODD, spread="outside", image_size=(15, 27), padding_mode="zeros"),
        Case("nearest", interpolation="nearest"),
        # 210 cells across: coordinates in half precision would be off by whole cells
        Case("wide-map", ((16, 2, 210), (3, 2, 105)), image_size=(4, 420), batch=1),
        Case("ragged-integer", ragged=True, point_dtype=torch.int64),
        Case("no-points", points=0),
    ]
) + [
    Case("relu", out_features=40, activation="relu"),
    Case("gelu", out_features=40, activation="gelu"),
    Case("channels-4096", ((16, 14, 14), (4096, 7, 7)), batch=1, image_size=(28, 28)).linear(),
]

DTYPE_CASES = [
    case.with_dtype(dtype)
    for dtype in (torch.float64, torch.float16, torch.bfloat16)
    for case in _IN_OTHER_DTYPES
]
