"""What users of other code reported, tried here: the table in docs/seen_elsewhere.md.

Each test is one report: the numbers in its name and docstring are those of the thread.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelnet_triton import HypercolumnLinear, sparse_hypercolumn
from pixelnet_triton.integrations import maps_of_tokens, point_sample_fine_grained_features
from pixelnet_triton.losses import cross_entropy
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn
from pixelnet_triton.sampling import StratifiedSampler

PAGE = Path(__file__).resolve().parent.parent / "docs" / "seen_elsewhere.md"


OF_FUNCTORCH = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def every_pixel(height: int, width: int) -> Tensor:
    """(1, H W, 2) of (x, y), integer."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y], -1).reshape(1, -1, 2)


# Where a point lies


@pytest.mark.parametrize("align_corners", [False, True])
def test_pytorch_81868(align_corners: bool) -> None:
    """Bilinear samples at whole pixels are not the pixels, with `align_corners=True`."""
    image = torch.rand(1, 3, 37, 53)
    value = sparse_hypercolumn(
        [image], every_pixel(37, 53).float(), (37, 53), align_corners=align_corners
    )
    assert torch.equal(value.mT.reshape(image.shape), image)


def test_pytorch_36107() -> None:
    """Coordinates in pixels, in place of [-1, 1] and a choice of `align_corners`."""
    ramp = torch.arange(8.0).expand(1, 1, 5, 8)
    points = torch.tensor([[[2.25, 1.0], [6.5, 3.5]]])
    for align_corners in (False, True):
        value = sparse_hypercolumn([ramp], points, (5, 8), align_corners=align_corners)
        torch.testing.assert_close(value.flatten(), torch.tensor([2.25, 6.5]))


def test_pytorch_94816() -> None:
    """A float16 map of a 4K frame: pixel 3799 and places between pixels, which float16 has not."""
    ramp = (torch.arange(3840) % 64).to(torch.float16).expand(1, 1, 2, 3840)
    points = torch.tensor([[[3799.0, 0.0], [3800.25, 1.0]]])
    value = sparse_hypercolumn([ramp], points, (2, 3840))
    assert value.flatten().tolist() == [3799 % 64, 3800 % 64 + 0.25]


def test_pytorch_94733() -> None:
    """Maps in half precision with points in float32."""
    feature, points = torch.randn(1, 4, 9, 9), torch.rand(1, 50, 2) * 8
    expected = sparse_hypercolumn([feature], points, (9, 9))
    for dtype in (torch.float16, torch.bfloat16):
        value = sparse_hypercolumn([feature.to(dtype)], points, (9, 9))
        assert value.dtype == dtype
        torch.testing.assert_close(value.float(), expected, rtol=0.01, atol=0.02)


def test_pytorch_96429() -> None:
    """Half precision costs the rounding of the result, and none of its position."""
    image = torch.randn(1, 3, 192, 192).half()
    grid = F.affine_grid(torch.eye(2, 3)[None], [1, 3, 112, 112], align_corners=False)
    options: dict[str, Any] = {"coordinates": "normalized", "padding_mode": "zeros"}
    half = sparse_hypercolumn([image], grid.flatten(1, 2), (192, 192), **options)
    wide = F.grid_sample(image.double(), grid.double(), align_corners=False).flatten(2).mT
    error = (half.double() - wide).abs()
    # float32 has half a unit in 2**-24 of the map's width for a position
    assert (error <= 2**-11 * wide.abs() + 1e-4).all()


def test_kornia_4554() -> None:
    """Descriptors drift by up to a pixel when one convention makes the grid, another samples."""
    descriptors = torch.randn(1, 6, 60, 80)
    key_points = torch.tensor([[[0.0, 0.0], [320.0, 240.0], [639.0, 479.0]]])  # edge at 0
    grid = key_points * 2 / torch.tensor([640, 480]) - 1  # of the reference implementation
    expected = F.grid_sample(descriptors, grid[:, None], align_corners=False)[:, :, 0].mT
    value = sparse_hypercolumn([descriptors], key_points - 0.5, (480, 640), padding_mode="zeros")
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


def test_superglue_18() -> None:
    """Cell (0, 0) of a map of stride 8 lies at pixel (3.5, 3.5), and is met there to the bit."""
    descriptors = torch.randn(1, 6, 5, 7)
    centres = every_pixel(5, 7) * 8 + 3.5
    value = sparse_hypercolumn([descriptors], centres, (40, 56), strides=[8])
    assert torch.equal(value.mT.reshape(descriptors.shape), descriptors)


def test_alignseg_7() -> None:
    """Height and width are not taken for each other: one row down on a 4 x 8 map."""
    image = torch.arange(32.0).reshape(1, 1, 4, 8)
    below = every_pixel(4, 8) + torch.tensor([0, 1])
    value = sparse_hypercolumn([image], below, (4, 8), padding_mode="zeros")
    expected = torch.cat([image[:, :, 1:], torch.zeros(1, 1, 1, 8)], 2)
    assert torch.equal(value.reshape(1, 1, 4, 8), expected)


def test_vision_9029() -> None:
    """A grid that is made in PyTorch's default dtype has 8 bits for 1,000 pixels."""
    image = torch.arange(1000.0).expand(1, 1, 4, 1000)
    points = every_pixel(1, 1000)
    expected = sparse_hypercolumn([image], points, (4, 1000))
    torch.set_default_dtype(torch.bfloat16)
    try:
        value = sparse_hypercolumn([image], points, (4, 1000))
        drawn = StratifiedSampler(500)(valid=torch.ones(1, 30, 1000, dtype=torch.bool)).points
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(value, expected)
    assert len(drawn[0].unique(dim=0)) == 500


# Far away, not finite, at the border


def test_pytorch_51911() -> None:
    """Coordinates near the end of float32's range: outside, and not NaN."""
    points = torch.tensor([[[2.9839e38, -3.2406e38]]])
    for coordinates in ("pixel", "unit", "normalized"):
        value = sparse_hypercolumn(
            [torch.ones(1, 1, 1, 5)], points, (1, 5), padding_mode="zeros", coordinates=coordinates
        )
        assert value.item() == 0


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_pytorch_24823(number: float) -> None:
    """NaN or infinity in the grid: a crash, or values of some cell. Here the row is named."""
    points = torch.tensor([[[1.0, 1.0], [number, 2.0]]])
    for padding_mode in ("zeros", "border"):
        with pytest.raises(ValueError, match=r"points\[1\].*must be finite\. Drop or replace"):
            sparse_hypercolumn([torch.ones(1, 1, 3, 3)], points, (3, 3), padding_mode=padding_mode)


def test_pytorch_23925() -> None:
    """With border padding the gradient on the last pixel is that of the border, and no jump."""
    image = torch.arange(5.0).expand(1, 1, 5, 5)
    points = every_pixel(5, 5).float().requires_grad_()
    sparse_hypercolumn([image], points, (5, 5), align_corners=True).sum().backward()
    assert points.grad is not None
    along_x, along_y = points.grad.reshape(5, 5, 2).unbind(-1)
    assert not along_y.any()
    assert torch.equal(along_x, torch.tensor([0.0, 1, 1, 1, 0]).expand(5, 5))


@pytest.mark.parametrize("count", [1, 3000], ids=["few", "many"])
@pytest.mark.parametrize("plan", ["auto", "gather", "project"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_rf_detr_1432(interpolation: str, plan: str, count: int) -> None:
    """Zero padding beside a cell that is infinite: 0, not 0 times infinity."""
    points = torch.tensor([[-2.0, 1.0], [9.0, 9.0], [-1.5, 2e9]]).repeat(count, 1)[None]
    for dtype, layout in (
        (torch.float32, torch.contiguous_format),
        (torch.float32, torch.channels_last),
        (torch.bfloat16, torch.channels_last),
    ):
        feature = torch.full((1, 3, 4, 4), torch.inf, dtype=dtype).to(memory_format=layout)
        for weight in (None, torch.ones(2, 3, dtype=dtype)):
            value = sparse_hypercolumn(
                [feature],
                points,
                (4, 4),
                weight=weight,
                interpolation=interpolation,
                padding_mode="zeros",
                plan=plan,
            )
            assert not value.any()


# Derivatives


@OF_FUNCTORCH
def test_pytorch_34704() -> None:
    """The second derivative, which `grid_sample` lacked: forward or reverse, over reverse."""
    feature = torch.randn(1, 3, 6, 7, dtype=torch.float64)
    points = torch.rand(1, 4, 2, dtype=torch.float64) * 5

    def loss(function: Any) -> Any:
        return lambda x: function([feature], x, (6, 7)).square().sum()

    expected = torch.autograd.functional.hessian(loss(reference_hypercolumn), points)
    for hessian in (torch.func.hessian, lambda f: torch.func.jacrev(torch.func.jacrev(f))):
        torch.testing.assert_close(hessian(loss(sparse_hypercolumn))(points), expected)


def test_pypose_122() -> None:
    """The vectorised Jacobian of what has a backward of its own."""
    feature, points = torch.randn(1, 3, 6, 7), torch.rand(1, 4, 2) * 5

    def of(function: Any) -> Any:
        return lambda f, x: function([f], x, (6, 7))

    jacobian = torch.autograd.functional.jacobian
    expected = jacobian(of(reference_hypercolumn), (feature, points))
    actual = jacobian(of(sparse_hypercolumn), (feature, points), vectorize=True)
    torch.testing.assert_close(actual, expected)


@OF_FUNCTORCH
def test_pytorch_117582() -> None:
    """Forward mode."""
    feature, points = torch.randn(1, 3, 6, 7), torch.rand(1, 4, 2) * 5

    def pair(function: Any) -> Any:
        tangents = (torch.ones_like(feature), torch.ones_like(points))
        return torch.func.jvp(lambda f, x: function([f], x, (6, 7)), (feature, points), tangents)

    torch.testing.assert_close(pair(sparse_hypercolumn), pair(reference_hypercolumn))


def test_pytorch_68959() -> None:
    """Gradients where deterministic algorithms are asked for: served, and the same bits."""
    torch.use_deterministic_algorithms(True)
    feature = torch.randn(2, 8, 9, 9, requires_grad=True)
    points = torch.rand(2, 3000, 2) * 8  # many on each cell
    gradients = []
    for _ in range(3):
        value = sparse_hypercolumn([feature], points, (9, 9))
        gradients += torch.autograd.grad(value.square().sum(), feature)
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


# Memory and size


def test_pytorch_2732() -> None:
    """One map expanded over many boxes is neither copied nor given as many gradients."""
    feature = torch.randn(1, 4, 8, 8, requires_grad=True)
    points = torch.rand(500, 9, 2) * 7
    seen: list[tuple[int, ...]] = []
    feature.register_hook(lambda grad: seen.append(tuple(grad.shape)))
    value = sparse_hypercolumn([feature.expand(500, -1, -1, -1)], points, (8, 8))
    value.sum().backward()
    alone = sparse_hypercolumn([feature], points.reshape(1, -1, 2), (8, 8))
    torch.testing.assert_close(value.reshape(alone.shape), alone)
    assert seen == [(1, 4, 8, 8)]


def test_pytorch_41656() -> None:
    """More cells than an int32 numbers. Here they overlap in memory: cell (y, x) holds y + x."""
    numbers = torch.arange(65536 + 32769, dtype=torch.float32)
    feature = numbers.as_strided((1, 1, 32769, 65536), (0, 0, 1, 1))
    points = torch.tensor([[[65535, 32768], [0, 32768], [65535, 0], [40000, 32767]]])
    value = sparse_hypercolumn([feature], points, (32769, 65536))
    assert torch.equal(value.flatten(), points.sum(-1).flatten().float())


# Batches, boxes, tokens


def test_raft_161() -> None:
    """Points of fewer images than the maps: the error says how many of each."""
    with pytest.raises(ValueError, match=r"points has shape \(720, 81, 2\).*hold 760 images"):
        sparse_hypercolumn([torch.zeros(760, 1, 2, 2)], torch.zeros(720, 81, 2), (2, 2))


def test_pytorch_193822() -> None:
    """A grid whose last dimension is 16, in a compiled call: the argument is named there, too."""

    def call(points: Tensor) -> Tensor:
        return sparse_hypercolumn([torch.zeros(1, 3, 8, 8)], points, (8, 8))

    for function in (call, torch.compile(call, backend="eager")):
        with pytest.raises(Exception, match=r"points has shape \(1, 4, 16\); expected \(B, N, 2\)"):
            function(torch.zeros(1, 4, 16))


def test_roialign_25() -> None:
    """Indices of images in int8: the same values as in int64, not zeros."""
    maps = [torch.randn(3, 4, 6, 6)]
    points, index = torch.rand(9, 2) * 5, torch.randint(3, (9,))
    expected = sparse_hypercolumn(maps, points, (6, 6), batch_index=index)
    for dtype in (torch.int8, torch.uint8, torch.int32):
        value = sparse_hypercolumn(maps, points, (6, 6), batch_index=index.to(dtype))
        assert torch.equal(value, expected)


def test_detectron2_4383() -> None:
    """PointRend on images without objects: no features, and gradients that are 0."""
    maps = [torch.randn(2, 4, 8, 8, requires_grad=True), torch.randn(2, 4, 4, 4)]
    boxes = [torch.zeros(0, 4), torch.zeros(0, 4)]
    features, _ = point_sample_fine_grained_features(
        maps, [0.25, 0.125], boxes, torch.zeros(0, 14, 2)
    )
    assert features.shape == (0, 8, 14)
    features.sum().backward()
    assert maps[0].grad is not None
    assert not maps[0].grad.any()


def test_deformable_detr_36() -> None:
    """Points in [0, 1] of an image that is padded to its batch: its own last pixel."""
    batch = torch.arange(12.0).expand(2, 1, 1, 12).clone()
    batch[0, ..., 5:] = -1  # padding
    last = torch.tensor([[[1.0, 0.5]], [[1.0, 0.5]]])
    value = sparse_hypercolumn([batch], last, [(1, 5), (1, 12)], strides=[1], coordinates="unit")
    assert value.flatten().tolist() == [4, 11]


def test_neuron_descriptions_23() -> None:
    """The class token comes first, and its place decides where every patch lies."""
    patches = torch.arange(6.0).reshape(1, 6, 1)
    tokens = torch.cat([torch.full((1, 1, 1), -1.0), patches], 1)
    (feature,) = maps_of_tokens(tokens, (2, 3), prefix=1)
    assert torch.equal(feature, patches.reshape(1, 1, 2, 3))
    with pytest.raises(ValueError, match="prefix"):
        maps_of_tokens(tokens, (2, 3))


# Labels, losses, precision


def test_konfai_191() -> None:
    """A label of 16,777,217, which float32 cannot hold, is itself at the nearest cell."""
    labels = torch.tensor([[16_777_216, 16_777_217]]).reshape(1, 1, 1, 2)
    value = sparse_hypercolumn(
        [labels], torch.tensor([[[0, 0], [1, 0]]]), (1, 2), interpolation="nearest"
    )
    assert value.flatten().tolist() == [16_777_216, 16_777_217]


def test_ultralytics_25096() -> None:
    """A batch without one labelled pixel: loss 0 with gradients of 0, and no NaN."""
    outputs = torch.randn(2, 50, 5, requires_grad=True)
    loss = cross_entropy(outputs, torch.full((2, 50), 255))
    loss.backward()
    assert loss.item() == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()


def test_roma_2() -> None:
    """float16 points under bfloat16 autocast, which `grid_sample` cannot bring to one dtype."""
    layer = HypercolumnLinear([4], 3)
    feature, points = torch.randn(1, 4, 9, 9), torch.randint(9, (1, 20, 2))
    expected = layer([feature], points, (9, 9))
    with torch.autocast("cpu", torch.bfloat16), pytest.warns(UserWarning, match=r"\.float\(\)"):
        value = layer([feature], points.half(), (9, 9))
    assert value.dtype == torch.bfloat16
    torch.testing.assert_close(value.float(), expected, rtol=0.02, atol=0.03)


def test_pytorch_27212(tmp_path: Path) -> None:
    """ONNX without GridSample or operators of a contributor: any opset has what is needed."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from pixelnet_triton.integrations.export import export_onnx

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = HypercolumnLinear([3], 4)

        def forward(self, feature: Tensor, points: Tensor) -> Tensor:
            return self.first([feature], points, (8, 8))

    path = tmp_path / "layer.onnx"
    export_onnx(Layer().eval(), (torch.randn(1, 3, 8, 8), torch.rand(1, 9, 2) * 7), str(path))
    model = onnx.load(path)
    assert "GridSample" not in {node.op_type for node in model.graph.node}
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}


# The table


def test_each_row_of_the_table_has_its_test() -> None:
    """And each test its row, at least twenty of them."""
    rows = re.findall(
        r"\[[\w./-]+ #(\d+)\]\(https://github\.com/([\w./-]+)/(?:issues|pull)/(\d+)\).*"
        r"`(test_\w+)`",
        PAGE.read_text(),
    )
    assert all(shown == linked for shown, _, linked, _ in rows)
    assert all(test.endswith(f"_{number}") for number, _, _, test in rows)
    named = {test for *_, test in rows}
    here = {n for n in globals() if re.fullmatch(r"test_\w+_\d+", n)}
    assert named == here
    assert len(here) >= 20
