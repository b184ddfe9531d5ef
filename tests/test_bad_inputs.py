"""Maps, dtypes and devices that a call refuses, by name, and with the remedy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.op import backend_for, forget_calls

from .bad_calls import Bad, good_call, ragged


def second_map(change: Any) -> dict[str, Any]:
    first, second = good_call()["features"]
    return {"features": [first, change(second)]}


def nested(*tensors: Tensor) -> Tensor:
    return torch.nested.nested_tensor(list(tensors), layout=torch.jagged)


def maps(dtype: torch.dtype) -> dict[str, Any]:
    return {"features": [feature.to(dtype) for feature in good_call()["features"]]}


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
    # layouts
    Bad(
        "sparse-map",
        second_map(Tensor.to_sparse),
        TypeError,
        r"features\[1\] has the layout torch.sparse_coo; expected torch.strided. .*to_dense",
    ),
    Bad(
        "sparse-labels",
        {
            "features": [torch.ones(2, 1, 3, 4, dtype=torch.int64).to_sparse()],
            "interpolation": "nearest",
            "weight": None,
            "bias": None,
        },
        TypeError,
        r"features\[0\] has the layout torch.sparse_coo; expected torch.strided",
    ),
    Bad(
        "mkldnn-map",
        second_map(Tensor.to_mkldnn),
        TypeError,
        r"features\[1\] has the layout torch._mkldnn; expected torch.strided",
    ),
    Bad(
        "nested-map",
        second_map(lambda f: nested(f[0], f[1, :4])),
        TypeError,
        r"features\[1\] is a nested tensor; expected an ordinary one",
    ),
    Bad(
        "nested-points",
        {"points": nested(torch.rand(3, 2), torch.rand(5, 2))},
        TypeError,
        r"points is a nested tensor; expected an ordinary one. .* with a batch_index",
    ),
    Bad(
        "sparse-points",
        {"points": torch.rand(2, 7, 2).to_sparse()},
        TypeError,
        r"points has the layout torch.sparse_coo; expected torch.strided",
    ),
    Bad(
        "sparse-batch-index",
        ragged(batch_index=torch.tensor([0, 1, 1, 0, 1]).to_sparse()),
        TypeError,
        r"batch_index has the layout torch.sparse_coo; expected torch.strided",
    ),
    Bad(
        "sparse-weight",
        {"weight": torch.randn(4, 8).to_sparse()},
        TypeError,
        r"weight has the layout torch.sparse_coo; expected torch.strided",
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
]


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_is_refused_by_name(bad: Bad) -> None:
    bad.check()


def test_the_call_is_good_unless_changed() -> None:
    for _ in range(2):  # what is remembered of a good call does not let a bad one pass
        assert sparse_hypercolumn(**good_call()).shape == (2, 7, 4)
        sparse = {"weight": torch.randn(4, 8).to_sparse()}
        Bad("sparse", sparse, TypeError, "weight has the layout").check()
    assert sparse_hypercolumn(**good_call() | ragged()).shape == (5, 4)


def test_unknown_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_calls()
    monkeypatch.setenv("PIXELNET_TRITON_BACKEND", "cudnn")
    with pytest.raises(ValueError, match="PIXELNET_TRITON_BACKEND='cudnn'; use auto, torch or"):
        sparse_hypercolumn(**good_call())


def test_unknown_device() -> None:
    with pytest.raises(ValueError, match="features are on xpu; supported are cpu and cuda"):
        backend_for(torch.device("xpu"))
