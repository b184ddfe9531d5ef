"""One table of bad calls: what is wrong, the exception, and what its message must say.

A message names the argument, what came and what was expected; each row's pattern asks for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelnet_triton import Plan, sparse_hypercolumn
from pixelnet_triton.op import backend_for, forget_calls


def good_call() -> dict[str, Any]:
    """Two images, two maps, 8 channels in all."""
    return {
        "features": [torch.randn(2, 3, 6, 8), torch.randn(2, 5, 3, 4)],
        "points": torch.rand(2, 7, 2),
        "image_size": (12, 16),
        "weight": torch.randn(4, 8),
        "bias": torch.randn(4),
    }


def ragged(**changes: Any) -> dict[str, Any]:
    return {"points": torch.rand(5, 2), "batch_index": torch.tensor([0, 1, 1, 0, 1]), **changes}


def second_map(change: Any) -> dict[str, Any]:
    first, second = good_call()["features"]
    return {"features": [first, change(second)]}


def maps(dtype: torch.dtype) -> dict[str, Any]:
    return {"features": [feature.to(dtype) for feature in good_call()["features"]]}


def points_with(value: float) -> Tensor:
    points = torch.rand(2, 7, 2)
    points[1, 2, 0] = value
    return points


@dataclass(frozen=True)
class Bad:
    """`changes` to `good_call()` raise `error` with a message that matches `message`."""

    name: str
    changes: dict[str, Any]
    error: type[Exception]
    message: str


TABLE = [
    # features
    Bad("no-features", {"features": []}, ValueError, r"features is empty; expected at least one"),
    Bad(
        "single-tensor",
        {"features": torch.randn(2, 3, 6, 8)},
        TypeError,
        r"features is a Tensor; expected a list or tuple .* pass \[features\]",
    ),
    Bad(
        "features-generator",
        {"features": (f for f in ())},
        TypeError,
        r"features is a generator; expected a list or tuple",
    ),
    Bad(
        "features-parameter-list",
        {"features": torch.nn.ParameterList([torch.randn(2, 8, 6, 8)])},
        TypeError,
        r"features is a ParameterList; expected a list or tuple .* Pass list\(features\)",
    ),
    Bad(
        "features-dictionary",
        {"features": {"c2": torch.randn(2, 8, 6, 8)}},
        TypeError,
        r"features is a dict; expected a list or tuple .* Pass list\(features.values\(\)\)",
    ),
    Bad(
        "features-pairs",
        {"features": [(torch.randn(2, 8, 6, 8), torch.randn(2, 8))]},
        TypeError,
        r"features\[0\] is a tuple; expected a torch.Tensor .* \[f\[0\] for f in features\]",
    ),
    Bad(
        "features-tokens",
        {"features": [torch.randn(2, 49, 8)]},
        ValueError,
        r"features\[0\] has shape \(2, 49, 8\); expected 4 dimensions .*\.maps_of_tokens",
    ),
    Bad(
        "feature-no-tensor",
        {"features": [[[1.0]]]},
        TypeError,
        r"features\[0\] is a list; expected a torch.Tensor",
    ),
    Bad(
        "feature-rank-3",
        second_map(lambda f: f[0]),
        ValueError,
        r"features\[1\] has shape \(5, 3, 4\); expected 4 dimensions",
    ),
    Bad(
        "feature-rank-5",
        second_map(lambda f: f[None]),
        ValueError,
        r"features\[1\] has shape \(1, 2, 5, 3, 4\); expected 4 dimensions",
    ),
    Bad(
        "batch-mismatch-maps",
        second_map(lambda f: f[:1]),
        ValueError,
        r"features\[1\] has batch size 1 but features\[0\] has 2",
    ),
    Bad(
        "no-channels",
        second_map(lambda f: f[:, :0]),
        ValueError,
        r"features\[1\] has shape \(2, 0, 3, 4\); .* at least one channel",
    ),
    Bad(
        "no-cells",
        second_map(lambda f: f[:, :, :0]),
        ValueError,
        r"features\[1\] has shape \(2, 5, 0, 4\); .* one cell",
    ),
    # dtypes
    Bad(
        "mixed-dtypes-maps",
        second_map(Tensor.half),
        TypeError,
        r"features\[1\] is torch.float16 but features\[0\] is torch.float32; .* one dtype",
    ),
    Bad(
        "int-features",
        maps(torch.int32),
        TypeError,
        r"features\[0\] is torch.int32; expected float32, float16, bfloat16",
    ),
    Bad(
        "bool-features",
        maps(torch.bool),
        TypeError,
        r"features\[0\] is torch.bool; expected float32",
    ),
    Bad(
        "complex-features",
        maps(torch.complex64),
        TypeError,
        r"features\[0\] is torch.complex64; expected float32",
    ),
    Bad(
        "float8-features",
        maps(torch.float8_e4m3fn),
        TypeError,
        r"features\[0\] is torch.float8_e4m3fn; expected float32",
    ),
    Bad(
        "weight-dtype",
        {"weight": torch.randn(4, 8).double()},
        TypeError,
        r"weight is torch.float64 but the features are torch.float32",
    ),
    Bad(
        "bias-dtype",
        {"bias": torch.randn(4).half()},
        TypeError,
        r"bias is torch.float16 but the features are torch.float32",
    ),
    Bad(
        "points-bool",
        {"points": torch.ones(2, 7, 2, dtype=torch.bool)},
        TypeError,
        r"points is torch.bool; expected an integer or floating dtype",
    ),
    Bad(
        "points-complex",
        {"points": torch.ones(2, 7, 2, dtype=torch.complex64)},
        TypeError,
        r"points is torch.complex64; expected an integer or floating dtype",
    ),
    # devices
    Bad(
        "mixed-devices-maps",
        second_map(lambda f: f.to("meta")),
        ValueError,
        r"features\[1\] is on meta but features\[0\] is on cpu",
    ),
    Bad(
        "points-device",
        {"points": torch.rand(2, 7, 2, device="meta")},
        ValueError,
        r"points is on meta but the features are on cpu; move it",
    ),
    Bad(
        "weight-device",
        {"weight": torch.randn(4, 8, device="meta")},
        ValueError,
        r"weight is on meta but the features are on cpu; move it",
    ),
    Bad(
        "bias-device",
        {"bias": torch.randn(4, device="meta")},
        ValueError,
        r"bias is on meta but the features are on cpu; move it",
    ),
    Bad(
        "batch-index-device",
        ragged(batch_index=torch.zeros(5, dtype=torch.int64, device="meta")),
        ValueError,
        r"batch_index is on meta but the features are on cpu; move it",
    ),
    # points
    Bad(
        "points-list",
        {"points": [[[1, 2]]]},
        TypeError,
        r"points is a list; expected a torch.Tensor .* torch.as_tensor",
    ),
    Bad(
        "points-of-3",
        {"points": torch.rand(2, 7, 3)},
        ValueError,
        r"points has shape \(2, 7, 3\); expected \(B, N, 2\)",
    ),
    Bad(
        "points-rank-2",
        {"points": torch.rand(7, 2)},
        ValueError,
        r"points has shape \(7, 2\); expected \(B, N, 2\) .* or \(P, 2\) together with batch_index",
    ),
    Bad(
        "points-grid",
        {"points": torch.rand(2, 7, 7, 2)},
        ValueError,
        r"points has shape \(2, 7, 7, 2\); expected \(B, N, 2\)",
    ),
    Bad(
        "batch-mismatch-points",
        {"points": torch.rand(3, 7, 2)},
        ValueError,
        r"points has shape \(3, 7, 2\) but the features hold 2 images",
    ),
    Bad(
        "points-nan",
        {"points": points_with(float("nan"))},
        ValueError,
        r"points\[9\] .*nan.*must be finite",
    ),
    Bad(
        "points-inf",
        {"points": points_with(float("-inf"))},
        ValueError,
        r"points\[9\] .*-inf.*must be finite",
    ),
    Bad(
        "points-opposite-infs",
        {"points": torch.tensor([[[float("inf"), 0.0]], [[float("-inf"), 0.0]]]).half()},
        ValueError,
        r"points\[0\] .*inf.*must be finite",
    ),
    # batch_index
    Bad(
        "batch-index-list",
        ragged(batch_index=[0, 1, 1, 0, 1]),
        TypeError,
        r"batch_index is a list; expected an integer tensor \(P,\)",
    ),
    Bad(
        "batch-index-float",
        ragged(batch_index=torch.zeros(5)),
        TypeError,
        r"batch_index is torch.float32; expected an integer dtype",
    ),
    Bad(
        "batch-index-bool",
        ragged(batch_index=torch.zeros(5, dtype=torch.bool)),
        TypeError,
        r"batch_index is torch.bool; expected an integer dtype",
    ),
    Bad(
        "batch-index-length",
        ragged(batch_index=torch.zeros(4, dtype=torch.int64)),
        ValueError,
        r"batch_index has shape \(4,\); expected \(5,\)",
    ),
    Bad(
        "batch-index-rank",
        ragged(batch_index=torch.zeros(5, 1, dtype=torch.int64)),
        ValueError,
        r"batch_index has shape \(5, 1\); expected \(5,\)",
    ),
    Bad(
        "batch-index-high",
        ragged(batch_index=torch.tensor([0, 1, 2, 0, 1])),
        ValueError,
        r"batch_index ranges over \[0, 2\] .* 2 images; expected values in \[0, 1\]",
    ),
    Bad(
        "batch-index-negative",
        ragged(batch_index=torch.tensor([0, -1, 1, 0, 1])),
        ValueError,
        r"batch_index ranges over \[-1, 1\] .* expected values in \[0, 1\]",
    ),
    Bad(
        "batch-index-uniform-points",
        {"batch_index": torch.tensor([0, 1])},
        ValueError,
        r"points has shape \(2, 7, 2\); with batch_index expected \(P, 2\)",
    ),
    # image_size
    Bad(
        "image-size-flags",
        {"image_size": (torch.tensor(True), 16)},
        TypeError,
        r"image_size=\(True, 16\); expected two integers",
    ),
    Bad("image-size-int", {"image_size": 12}, TypeError, r"image_size=12; expected \(height"),
    Bad(
        "image-size-3",
        {"image_size": (3, 12, 16)},
        TypeError,
        r"image_size=\(3, 12, 16\); expected \(height, width\)",
    ),
    Bad(
        "image-size-float",
        {"image_size": (12.0, 16.0)},
        TypeError,
        r"image_size=\(12.0, 16.0\); expected two integers",
    ),
    Bad(
        "image-size-zero",
        {"image_size": (0, 16)},
        ValueError,
        r"image_size=\(0, 16\); .* at least 1 pixel",
    ),
    Bad(
        "image-size-negative",
        {"image_size": (12, -16)},
        ValueError,
        r"image_size=\(12, -16\); .* at least 1 pixel",
    ),
    # the linear layer
    Bad(
        "weight-columns",
        {"weight": torch.randn(4, 9)},
        ValueError,
        r"weight has shape \(4, 9\); expected \(D, 8\), .* layers \[3, 5\]",
    ),
    Bad(
        "weight-transposed",
        {"weight": torch.randn(8, 4)},
        ValueError,
        r"weight has shape \(8, 4\); expected \(D, 8\)",
    ),
    Bad(
        "weight-rank",
        {"weight": torch.randn(4, 8, 1, 1)},
        ValueError,
        r"weight has shape \(4, 8, 1, 1\); expected \(D, 8\)",
    ),
    Bad(
        "ensemble-columns",
        {"weight": torch.randn(3, 4, 9), "bias": None},
        ValueError,
        r"weight has shape \(3, 4, 9\); expected \(D, 8\), or \(E, D, 8\)",
    ),
    Bad(
        "ensemble-bias",
        {"weight": torch.randn(3, 4, 8)},
        ValueError,
        r"bias has shape \(4,\); expected \(3, 4\), one entry for each row",
    ),
    Bad("weight-list", {"weight": [[1.0]]}, TypeError, r"weight is a list; expected a torch.Tens"),
    Bad("bias-number", {"bias": 1.0}, TypeError, r"bias is a float; expected a torch.Tensor"),
    Bad(
        "bias-length",
        {"bias": torch.randn(5)},
        ValueError,
        r"bias has shape \(5,\); expected \(4,\)",
    ),
    Bad(
        "bias-rank",
        {"bias": torch.randn(1, 4)},
        ValueError,
        r"bias has shape \(1, 4\); expected \(4,\)",
    ),
    Bad("bias-alone", {"weight": None}, ValueError, r"bias is given without weight; pass both"),
    Bad(
        "activation-alone",
        {"weight": None, "bias": None, "activation": "relu"},
        ValueError,
        r"activation='relu' needs a weight",
    ),
    # names
    Bad(
        "activation-name",
        {"activation": "swish"},
        ValueError,
        r"activation='swish' is unknown; use one of \(None, 'relu', 'gelu'\)",
    ),
    Bad(
        "padding-name",
        {"padding_mode": "reflection"},
        ValueError,
        r"padding_mode='reflection' is unknown; use one of \('border', 'zeros'\)",
    ),
    Bad(
        "coordinates-name",
        {"coordinates": "pixels"},
        ValueError,
        r"coordinates='pixels' is unknown; use one of \('pixel', 'unit', 'normalized'\)",
    ),
    Bad(
        "interpolation-name",
        {"interpolation": "bicubic"},
        ValueError,
        r"interpolation='bicubic' is unknown; use one of \('bilinear', 'nearest'\)",
    ),
    Bad("plan-name", {"plan": "fastest"}, ValueError, r"plan='fastest' is unknown; use one of"),
    Bad(
        "plan-layers",
        {"plan": Plan(("gather",))},
        ValueError,
        r"plan has strategies for 1 layers but features has 2",
    ),
    # strides
    Bad(
        "strides-count",
        {"strides": [2]},
        ValueError,
        r"strides=\[2\]; expected one entry for each of the 2 layers",
    ),
    Bad("strides-number", {"strides": 2}, ValueError, r"strides=2; expected one entry for each"),
    Bad(
        "strides-negative",
        {"strides": [2, -4]},
        ValueError,
        r"strides\[1\]=-4; .* positive and finite",
    ),
    Bad(
        "strides-zero",
        {"strides": [2, (4, 0)]},
        ValueError,
        r"strides\[1\]=\(4, 0\); .* positive and finite",
    ),
    Bad(
        "strides-infinite",
        {"strides": [2, float("inf")]},
        ValueError,
        r"strides\[1\]=inf; .* positive and finite",
    ),
    Bad(
        "strides-triple",
        {"strides": [2, (4, 4, 4)]},
        TypeError,
        r"strides\[1\]=\(4, 4, 4\); expected a number .* or a tuple",
    ),
    Bad("strides-text", {"strides": [2, "4"]}, TypeError, r"strides\[1\]='4'; expected a number"),
    Bad(
        "strides-aligned",
        {"strides": [2, 4], "align_corners": True},
        ValueError,
        r"strides cannot be combined with align_corners=True",
    ),
]


def test_the_call_is_good_unless_changed() -> None:
    assert sparse_hypercolumn(**good_call()).shape == (2, 7, 4)
    assert sparse_hypercolumn(**good_call() | ragged()).shape == (5, 4)


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_is_refused_by_name(bad: Bad) -> None:
    with pytest.raises(bad.error, match=bad.message):
        sparse_hypercolumn(**good_call() | bad.changes)


def test_what_is_remembered_of_a_good_call_does_not_help_a_bad_one() -> None:
    """The same numbers in the same order, but divided otherwise among the arguments."""
    maps, points = [torch.randn(1, 3, 8, 8)], torch.zeros(1, 2, 2)
    sparse_hypercolumn(maps, points, (224, 224), strides=(1,))
    with pytest.raises(TypeError, match=r"image_size=\(224,\); expected \(height, width\)"):
        sparse_hypercolumn(maps, points, (224,), strides=(224, 1))  # type: ignore[arg-type]


def test_no_argument_is_refused_for_want_of_images() -> None:
    """An index into no images at all is out of range too."""
    call = good_call() | ragged(features=[f[:0] for f in good_call()["features"]])
    with pytest.raises(ValueError, match=r"batch_index ranges over \[0, 1\] .* hold 0 images"):
        sparse_hypercolumn(**call)


def test_unknown_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_calls()
    monkeypatch.setenv("PIXELNET_TRITON_BACKEND", "cudnn")
    with pytest.raises(ValueError, match="PIXELNET_TRITON_BACKEND='cudnn'; use auto, torch or"):
        sparse_hypercolumn(**good_call())


def test_unknown_device() -> None:
    with pytest.raises(ValueError, match="features are on xpu; supported are cpu and cuda"):
        backend_for(torch.device("xpu"))
