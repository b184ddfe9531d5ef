"""torch.export and ONNX: sparse and dense, in plain operators, equal to the eager call."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelnet_triton import HypercolumnLinear, sparse_hypercolumn
from pixelnet_triton.call.geometry import layer_geometry
from pixelnet_triton.integrations import PointHead
from pixelnet_triton.integrations.export import (
    AtEveryPixel,
    export,
    export_onnx,
    plain_sparse_hypercolumn,
)
from pixelnet_triton.models import VGG16, PixelMLP, PixelNet

from ..cases import CASES, DTYPE_CASES, Case, case_id
from ..check import check_case
from .network import batch_of, network


def images_and_points(*shape: int) -> tuple[Tensor, Tensor]:
    """(images, points) of so many images, points and pixels a side."""
    return batch_of(*shape)[:2]


def operators(program: torch.export.ExportedProgram) -> set[str]:
    nodes = program.graph_module.graph.nodes
    return {str(node.target) for node in nodes if node.op == "call_function"}


def plain_call(
    features: list[Tensor],
    points: Tensor,
    image_size: tuple[int, int],
    *,
    batch_index: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    activation: str | None = None,
    interpolation: str = "bilinear",
    padding_mode: str = "border",
    **conventions: Any,
) -> Tensor:
    """`sparse_hypercolumn` by the expression that is exported."""
    sizes = [(f.shape[2], f.shape[3]) for f in features]
    affine = layer_geometry(sizes, image_size, **conventions).flat()
    names = (interpolation, padding_mode, activation, "auto", False, False)
    rows = plain_sparse_hypercolumn(
        points.reshape(-1, 2), batch_index, weight, bias, features, affine, *names
    )
    return rows.reshape(*points.shape[:-1], rows.shape[1])


class Pyramid(nn.Module):
    """The image itself, and maps of strides 2 and 6, which is no power of two."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 6, 3, 3, 1)
        self.first = HypercolumnLinear([3, 8, 6], 4, strides=[1, 2, 6], **options)

    def forward(self, images: Tensor, points: Tensor) -> Tensor:
        fine = self.stem(images)
        size = (images.shape[2], images.shape[3])
        return self.first([images, fine, self.deep(fine)], points, size)


PLAIN_CASES = [case for case in CASES if case.batch > 0][::3] + DTYPE_CASES[::2]


@pytest.mark.parametrize("case", PLAIN_CASES, ids=case_id)
def test_the_plain_expression_is_as_right_as_the_operator(case: Case) -> None:
    """Against float64, values and gradients, at the tolerance of the operator itself."""
    check_case(case, function=plain_call)


class TestExport:
    def test_any_number_of_points_and_images(self) -> None:
        model = network("gelu").eval()
        batch, points = torch.export.Dim("batch"), torch.export.Dim("points")
        program = export(
            model,
            images_and_points(),
            dynamic_shapes={"images": {0: batch}, "points": {0: batch, 1: points}},
        )
        others = {name for name in operators(program) if not name.startswith("aten.")}
        assert all(name.startswith("<built-in function") for name in others), others  # sizes
        for shape in ((2, 10), (1, 1), (3, 50), (2, 700), (2, 0)):
            inputs = images_and_points(*shape)
            torch.testing.assert_close(program.module()(*inputs), model(*inputs))

    def test_ragged_points(self) -> None:
        model = network("gelu", padding_mode="zeros")
        images, points = images_and_points()
        index = torch.tensor([1, 0, 0, 1, 1])
        count = torch.export.Dim("count")
        shapes = {"images": None, "points": {0: count}, "batch_index": {0: count}}
        program = export(model, (images, points[0, :5], index), dynamic_shapes=shapes)
        some = (images, points[1, :3], index[:3])
        torch.testing.assert_close(program.module()(*some), model(*some))

    def test_any_image_size_where_strides_are_given(self) -> None:
        model = network("gelu", strides=[2, 4])
        side = torch.export.Dim("side", min=4, max=64)
        points = torch.export.Dim("points")
        shapes = {"images": {2: 4 * side, 3: 4 * side}, "points": {1: points}}
        program = export(model, images_and_points(), dynamic_shapes=shapes)
        for size in (32, 64, 20):
            inputs = images_and_points(2, 9, size)
            torch.testing.assert_close(program.module()(*inputs), model(*inputs))

    def test_dense(self) -> None:
        """At every pixel; coarse layers are projected before they are sampled."""
        model = network("gelu").eval()
        dense = AtEveryPixel(model)
        images, _ = images_and_points()
        program = export(dense, (images,))
        scores = program.module()(images)
        assert scores.shape == (2, 4, 32, 32)
        torch.testing.assert_close(scores, dense(images))
        pixel = torch.tensor([[[5, 9]]]).expand(2, 1, 2)
        torch.testing.assert_close(scores[:, :, 9, 5], model(images, pixel)[:, 0])

    def test_pixelnet(self) -> None:
        """Sparse, and dense as `predict` computes it in tiles."""
        torch.manual_seed(0)
        backbone = VGG16(("conv1_2", "conv2_2", "conv4_3"), width=1 / 16)
        model = PixelNet(backbone, PixelMLP(backbone.channels, (32,), out_features=5)).eval()
        images, points, _ = batch_of(2, 9)
        shapes = {"images": None, "points": {1: torch.export.Dim("points")}}
        program = export(model, (images, points), dynamic_shapes=shapes)
        more = batch_of(2, 100)[1]
        torch.testing.assert_close(program.module()(images, more), model(images, more))
        dense = export(AtEveryPixel(model), (images,)).module()(images)
        torch.testing.assert_close(dense, model.predict(images))

    def test_the_saved_program_needs_no_pixelnet_triton(self, tmp_path: Path) -> None:
        model, inputs = network("gelu").eval(), images_and_points()
        torch.export.save(export(model, inputs), tmp_path / "model.pt2")
        torch.save((inputs, model(*inputs).detach()), tmp_path / "expected.pt")
        program = """
import sys, torch
model = torch.export.load(sys.argv[1] + "/model.pt2").module()
inputs, expected = torch.load(sys.argv[1] + "/expected.pt")
torch.testing.assert_close(model(*inputs).detach(), expected)
assert "pixelnet_triton" not in sys.modules
print("equal")
"""
        run = [sys.executable, "-c", program, str(tmp_path)]
        done = subprocess.run(run, capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert done.stdout == "equal\n", done.stderr

    def test_without_decomposition_the_operator_stays_one_node(self) -> None:
        """For those who load it where the library is installed, and want its kernels."""
        model, inputs = network("gelu").eval(), images_and_points()
        program = torch.export.export(model, inputs, strict=False)
        assert "pixelnet_triton.sparse_hypercolumn.default" in operators(program)
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        torch.testing.assert_close(torch.export.load(file).module()(*inputs), model(*inputs))


class TestONNX:
    def run(self, path: Path, *inputs: Tensor) -> Tensor:
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    def test_sparse_with_any_number_of_points(self, tmp_path: Path) -> None:
        pytest.importorskip("onnxscript")
        model, path = network("gelu").eval(), tmp_path / "sparse.onnx"
        shapes = {"images": None, "points": {1: torch.export.Dim("points")}}
        export_onnx(
            model,
            images_and_points(),
            path,
            dynamic_shapes=shapes,
            input_names=["images", "points"],
            output_names=["scores"],
        )
        for points in (10, 1, 200):
            inputs = images_and_points(2, points)
            expected = model(*inputs).detach()
            torch.testing.assert_close(self.run(path, *inputs), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
    @pytest.mark.parametrize("padding_mode", ["border", "zeros"])
    def test_sizes_of_everything_may_vary(
        self, padding_mode: str, interpolation: str, tmp_path: Path
    ) -> None:
        """Images, points, height and width, each alone and together, of sizes of any parity."""
        pytest.importorskip("onnxscript")
        model = Pyramid(padding_mode=padding_mode, interpolation=interpolation).eval()
        inputs, path = (
            (torch.rand(2, 3, 32, 48), torch.rand(2, 50, 2) * 40 - 4),
            tmp_path / "a.onnx",
        )
        names = {"batch": 0, "points": 1, "height": 2, "width": 3}
        dims = {name: torch.export.Dim(name, min=1, max=4096) for name in ("batch", "points")}
        dims |= {name: torch.export.Dim(name, min=8, max=1024) for name in ("height", "width")}
        shapes = {
            "images": {names[n]: dims[n] for n in ("batch", "height", "width")},
            "points": {names[n]: dims[n] for n in ("batch", "points")},
        }
        program = export(model, inputs, dynamic_shapes=shapes).module()
        export_onnx(model, inputs, path, dynamic_shapes=shapes)
        for batch, points, height, width in (
            (2, 50, 32, 48),
            (1, 50, 32, 48),
            (2, 1, 32, 48),
            (2, 50, 57, 48),
            (2, 50, 32, 9),
            (3, 7, 64, 31),
        ):
            # off ties of "nearest", which two programs may see differently
            at = torch.rand(batch, points, 2) * torch.tensor([width + 8, height + 8]) - 4.0625
            others = torch.rand(batch, 3, height, width), at
            expected = model(*others).detach()
            torch.testing.assert_close(program(*others), expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(self.run(path, *others), expected, rtol=1e-4, atol=1e-5)

    def test_dense_of_any_image_size(self, tmp_path: Path) -> None:
        pytest.importorskip("onnxscript")
        dense, path = AtEveryPixel(Pyramid()).eval(), tmp_path / "dense.onnx"
        height, width = (torch.export.Dim(n, min=8, max=1024) for n in ("height", "width"))
        shapes = {"images": {2: height, 3: width}}
        export_onnx(dense, (torch.rand(1, 3, 32, 48),), path, dynamic_shapes=shapes)
        for size in ((32, 48), (17, 30), (40, 9)):
            images = torch.rand(1, 3, *size)
            expected = dense(images).detach()
            torch.testing.assert_close(self.run(path, images), expected, rtol=1e-4, atol=1e-5)

    def test_dense_and_point_head(self, tmp_path: Path) -> None:
        pytest.importorskip("onnxscript")
        dense = AtEveryPixel(network("gelu", padding_mode="zeros"))
        images, _ = images_and_points()
        export_onnx(dense, (images,), tmp_path / "dense.onnx")
        scores = self.run(tmp_path / "dense.onnx", images)
        torch.testing.assert_close(scores, dense(images).detach(), rtol=1e-4, atol=1e-5)

        head = PointHead([8], channels=16, num_classes=3).eval()
        inputs = ([torch.randn(1, 8, 16, 16)], torch.randn(1, 3, 8, 8), torch.rand(1, 50, 2))
        export_onnx(head, inputs, tmp_path / "head.onnx")
        logits = self.run(tmp_path / "head.onnx", inputs[0][0], *inputs[1:])
        torch.testing.assert_close(logits, head(*inputs).detach(), rtol=1e-4, atol=1e-5)


def test_the_hypercolumns_alone_are_exported_too() -> None:
    class Sampler(nn.Module):
        def forward(self, features: list[Tensor], points: Tensor) -> Tensor:
            return sparse_hypercolumn(features, points, (8, 8), interpolation="nearest")

    features = [torch.randn(2, 3, 4, 4), torch.randn(2, 2, 2, 2)]
    points = torch.randint(8, (2, 6, 2))
    program = export(Sampler(), (features, points))
    assert torch.equal(program.module()(features, points), Sampler()(features, points))
