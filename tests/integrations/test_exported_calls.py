"""Calls with more than maps and points, exported: sizes of images, labels, cells of infinity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.integrations.export import export, export_onnx


class Call(nn.Module):
    """One map at some points, with options."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(
        self,
        feature: Tensor,
        points: Tensor,
        image_size: Any = (24, 24),
        batch_index: Tensor | None = None,
    ) -> Tensor:
        index = batch_index
        return sparse_hypercolumn([feature], points, image_size, batch_index=index, **self.options)


@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
def test_a_share_of_nothing_of_infinity_is_nothing(padding_mode: str) -> None:
    """At whole pixels, which the operator takes from one cell; masks of -inf are common."""
    feature = torch.zeros(1, 1, 24, 24)
    feature[..., 2:] = -torch.inf
    points = torch.tensor([[[1, 1], [0, 1], [3, 3]]])
    call = Call(padding_mode=padding_mode)
    value = export(call, (feature, points)).module()(feature, points)
    assert value.flatten().tolist() == [0, 0, -torch.inf]
    assert torch.equal(value, call(feature, points))


@pytest.mark.parametrize("ragged", [False, True], ids=["uniform", "ragged"])
@pytest.mark.parametrize("coordinates", ["pixel", "unit", "normalized"])
def test_any_number_of_images_of_several_sizes(coordinates: str, ragged: bool) -> None:
    call = Call(strides=[4], coordinates=coordinates)

    def inputs(images: int) -> tuple[Tensor | None, ...]:
        points = torch.rand((9, 2) if ragged else (images, 9, 2))
        sizes = torch.tensor([[24, 20], [16, 24], [8, 8]])[:images]
        index = torch.arange(9) % images if ragged else None
        return torch.randn(images, 4, 6, 6), points, sizes, index

    batch = {0: torch.export.Dim("batch", max=1000)}  # torch 2.6 asks for a bound
    shapes = (batch, None if ragged else batch, batch, None)
    program = export(call, inputs(2), dynamic_shapes=shapes).module()
    for images in (2, 1, 3):
        others = inputs(images)
        torch.testing.assert_close(program(*others), call(*others))


def test_labels_in_onnx_at_any_number_of_points(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    call = Call(interpolation="nearest")
    labels, path = torch.randint(0, 9, (2, 1, 6, 6)), tmp_path / "labels.onnx"
    shapes = (None, {1: torch.export.Dim("points")})
    export_onnx(call, (labels, torch.rand(2, 9, 2) * 24), path, dynamic_shapes=shapes)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (9, 1, 40):
        points = torch.rand(2, count, 2) * 24
        (value,) = session.run(None, {"feature": labels.numpy(), "points": points.numpy()})
        assert torch.equal(torch.from_numpy(value), call(labels, points))
