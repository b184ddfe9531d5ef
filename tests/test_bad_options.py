"""Weights, biases, names, plans and strides that a call refuses, by name."""

from __future__ import annotations

import pytest
import torch

from pixelnet_triton import Plan

from .bad_calls import Bad

TABLE = [
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


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_is_refused_by_name(bad: Bad) -> None:
    bad.check()
