"""Every pixel at once: equal to sparse prediction, within its budget, over scales and mirrored."""

from __future__ import annotations

import copy
import json
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from pixelnet_triton.inference import head_at_every_pixel, tiles
from pixelnet_triton.inference.first_layer import SampledLayer
from pixelnet_triton.models import VGG16, PixelMLP, PixelNet

from .plain import plain_hypercolumn
from .poison import poisoned_memory
from .tolerances import assert_close_to_reference

MiB = 1 << 20


def every_pixel(height: int, width: int) -> Tensor:
    """(1, H * W, 2), row by row."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(1, -1, 2)


def as_image(scores: Tensor, size: tuple[int, int]) -> Tensor:
    return scores.transpose(1, 2).unflatten(2, size)


# Image size, (C_i, H_i, W_i) of each map, strides.
CASES: dict[str, tuple[tuple[int, int], list[tuple[int, int, int]], list[float] | None]] = {
    "vgg": ((32, 64), [(4, 32, 64), (8, 16, 32), (16, 4, 8)], [1, 2, 8]),
    "vgg-odd": ((45, 71), [(4, 45, 71), (8, 22, 35), (16, 5, 8), (24, 1, 2)], [1, 2, 8, 32]),
    "one-cell": ((33, 40), [(4, 33, 40), (16, 1, 1)], [1, 32]),
    "ratios": ((30, 41), [(6, 15, 21), (12, 7, 10)], None),
    "no-fine-map": ((17, 23), [(6, 4, 5)], [4]),
    "only-fine-map": ((17, 23), [(6, 17, 23)], None),
    "two-fine-maps": ((17, 23), [(6, 17, 23), (5, 17, 23), (4, 3, 4)], None),
    "finer-than-the-image": ((9, 12), [(6, 18, 24), (5, 9, 12)], None),
    "smaller-than-the-image": ((17, 23), [(6, 15, 21), (5, 17, 20)], [1, 1]),
    "odd-stride": ((21, 29), [(6, 7, 10)], [3]),
    "one-row": ((1, 50), [(6, 1, 25), (5, 1, 50)], None),
}
HIDDEN: dict[str, tuple[int, ...]] = {"fc-1": (), "fc-2": (24,), "fc-3": (24, 16)}


def build(case: str, hidden: tuple[int, ...], layout: str = "channels_last") -> tuple[Any, ...]:
    size, shapes, strides = CASES[case]
    maps = [torch.randn(1, *shape) for shape in shapes]
    if layout == "channels_last":
        maps = [m.contiguous(memory_format=torch.channels_last) for m in maps]
    head = PixelMLP(
        [c for c, _, _ in shapes], hidden, out_features=5, init="kaiming", strides=strides
    ).eval()
    for name, parameter in head.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter)
    return size, maps, head


@contextmanager
def path(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take the CPU's first layer, or the one for kernels, which works on a CPU too."""
    with monkeypatch.context() as patch:
        if name == "sampled":
            patch.setattr(tiles, "first_layer", lambda *arguments: SampledLayer(*arguments[:3]))
        yield


@torch.no_grad()
def check(size: tuple[int, int], maps: list[Tensor], head: PixelMLP, budget: int) -> None:
    """Error against float64 at most twice that of plain float32, at every pixel."""
    points = every_pixel(*size)
    plain = as_image(
        head.rest(
            plain_hypercolumn(
                maps,
                points,
                size,
                weight=head.first.weight,
                bias=head.first.bias,
                activation=head.first.activation,
                strides=head.first.strides,
            )
        ),
        size,
    )[0]
    with poisoned_memory():
        actual = head_at_every_pixel(head, maps, size, memory_budget=budget)
    double = [m.double() for m in maps]
    expected = as_image(copy.deepcopy(head).double()(double, points, size), size)[0]
    assert_close_to_reference(actual, expected, plain, dtype=maps[0].dtype, name="scores")


@pytest.mark.parametrize("first", ["projected", "sampled"])
@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
@pytest.mark.parametrize("case", CASES)
def test_equals_sparse_prediction(
    case: str, hidden: tuple[int, ...], first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, maps, head = build(case, hidden)
    with path(first, monkeypatch):
        check(size, maps, head, MiB)


@pytest.mark.parametrize("layout", ["channels_last", "NCHW"])
@pytest.mark.parametrize("first", ["projected", "sampled"])
@pytest.mark.parametrize("budget", [6_000, 15_000, 40_000, 100_000])
def test_whatever_the_tiles(
    budget: int, first: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of a row, single rows, several; with and without room for projected maps."""
    size, maps, head = build("vgg-odd", (24, 16), layout)
    with path(first, monkeypatch):
        check(size, maps, head, budget)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    size, maps, head = build("vgg-odd", (24, 16))
    head = head.to(dtype)
    check(size, [m.to(dtype) for m in maps], head, MiB)


@pytest.mark.parametrize("first", ["projected", "sampled"])
@pytest.mark.parametrize("hidden", [(), (24,)], ids=["fc-1", "fc-2"])
def test_batch_norm_is_folded(
    hidden: tuple[int, ...], first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, maps, _ = build("vgg-odd", hidden)
    channels = [m.shape[1] for m in maps]
    head = PixelMLP(channels, hidden, out_features=5, batch_norm=True, init="kaiming")
    head.first.strides = [1, 2, 8, 32]
    with torch.no_grad():
        for _ in range(5):
            head([3 + 4 * m for m in maps], every_pixel(*size), size)  # gathers statistics
        head.eval()
        with path(first, monkeypatch):
            actual = head_at_every_pixel(head, maps, size, memory_budget=40_000)
        expected = as_image(head(maps, every_pixel(*size), size), size)[0]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def peak_bytes(call: Callable[[], object], folder: Path) -> int:
    """The most that PyTorch's allocator had given out at once, from torch's own profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    steps = [(e["ts"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]"]
    assert steps, "the profiler recorded no allocation"
    live = peak = 0
    for _, step in sorted(steps, key=lambda at: at[0]):
        live += step
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize("first", ["projected", "sampled"])
@pytest.mark.parametrize("budget", [MiB // 4, 1 * MiB, 4 * MiB, 16 * MiB])
def test_keeps_within_the_budget(
    budget: int, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call also uses most of the budget, so that a larger one is of use."""
    monkeypatch.setattr(tiles, "CPU_TILE_VALUES", 1 << 40)  # the budget alone decides
    size, shapes = (96, 224), [(16, 96, 224), (32, 48, 112), (64, 12, 28), (128, 3, 7)]
    maps = [torch.randn(1, *s).contiguous(memory_format=torch.channels_last) for s in shapes]
    head = PixelMLP([16, 32, 64, 128], (256, 128), out_features=7).eval()
    result = 7 * 96 * 224 * 4

    def call() -> None:
        with torch.no_grad():
            head_at_every_pixel(head, maps, size, memory_budget=budget)

    with path(first, monkeypatch):
        used = peak_bytes(call, tmp_path) - result
    assert 0.3 * budget < used <= budget


def test_one_view_takes_no_second_result(tmp_path: Path) -> None:
    model, images = network("softmax", out_features=200), torch.rand(1, 3, 96, 96)
    result = 200 * 96 * 96 * 4
    peak = peak_bytes(lambda: model.predict(images, memory_budget=MiB), tmp_path)
    assert result < peak < 1.5 * result


def test_a_budget_too_small_is_refused() -> None:
    size, maps, head = build("vgg-odd", (24, 16))
    with pytest.raises(ValueError, match=r"memory_budget=200 bytes; .* at least \d+ for a single"):
        head_at_every_pixel(head, maps, size, memory_budget=200)


def seen(pixels: int, cells: int, stride: float | None, cell: int) -> Tensor:
    """Which pixels of an axis give a cell a weight other than 0."""
    x = torch.arange(pixels, dtype=torch.float64)
    t = (x + 0.5) / (pixels / cells if stride is None else stride) - 0.5
    return (t.clamp(0, cells - 1) - cell).abs() < 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("case", ["vgg", "ratios", "finer-than-the-image", "odd-stride"])
def test_numbers_that_are_not_finite_stay_with_the_pixels_that_see_them(
    case: str, value: float
) -> None:
    size, maps, head = build(case, ())
    strides = head.first.strides or [None] * len(maps)
    bad = torch.zeros(size, dtype=torch.bool)
    with torch.no_grad():
        expected = head_at_every_pixel(head, maps, size, memory_budget=100_000)
        for one, stride in zip(maps, strides, strict=True):
            rows, columns = one.shape[2:]
            one[0, :, rows // 2, columns // 2] = value
            down = seen(size[0], rows, stride, rows // 2)
            bad |= down[:, None] & seen(size[1], columns, stride, columns // 2)
        actual = head_at_every_pixel(head, maps, size, memory_budget=100_000)
    assert 0 < int(bad.sum()) < bad.numel() / 2
    assert torch.equal(~actual.isfinite(), bad.expand_as(actual))
    torch.testing.assert_close(actual[:, ~bad], expected[:, ~bad])


def test_maps_of_several_images_are_refused() -> None:
    size, maps, head = build("vgg-odd", ())
    with pytest.raises(ValueError, match=r"shape \(2, 4, 45, 71\); expected one image's maps"):
        head_at_every_pixel(head, [m.repeat(2, 1, 1, 1) for m in maps], size, memory_budget=MiB)


def network(output: str | None = None, out_features: int = 3, **options: Any) -> PixelNet:
    torch.manual_seed(0)
    backbone = VGG16(("conv1_2", "conv2_2", "conv3_3"), width=1 / 16, **options)
    head = PixelMLP(backbone.channels, (16, 16), out_features=out_features, init="kaiming")
    return PixelNet(backbone, head, output=output)


def sparse_output(model: PixelNet, images: Tensor, output: Callable[[Tensor], Tensor]) -> Tensor:
    """The output at every pixel, by the sparse path: (B, K, H, W)."""
    size = (images.shape[2], images.shape[3])
    points = every_pixel(*size).expand(images.shape[0], -1, -1)
    return output(as_image(model(images, points), size))


@pytest.mark.parametrize(
    ("output", "out_features", "function"),
    [
        (None, 4, lambda s: s),
        ("softmax", 4, lambda s: s.exp() / s.exp().sum(1, keepdim=True)),
        ("sigmoid", 4, lambda s: 1 / (1 + (-s).exp())),
        ("normals", 3, lambda s: s / s.square().sum(1, keepdim=True).sqrt()),
        ("depth", 1, lambda s: s.exp()),
    ],
)
@torch.no_grad()
def test_outputs(
    output: str | None, out_features: int, function: Callable[[Tensor], Tensor]
) -> None:
    model = network(output, out_features).eval()
    images = torch.rand(2, 3, 21, 30)
    torch.testing.assert_close(model.predict(images), sparse_output(model, images, function))


def test_multi_scale_on_odd_sizes() -> None:
    """The mean of the probabilities, each resized to the image, whatever the sizes come to."""
    model = network("softmax").eval()
    images = torch.rand(2, 3, 45, 71)
    actual = model.predict(images, scales=(0.25, 0.5, 1.0))
    expected = torch.zeros(2, 3, 45, 71)
    for size in ((11, 18), (22, 36), (45, 71)):
        resized = F.interpolate(images, size, mode="bilinear", antialias=True)
        one = sparse_output(model, resized, lambda s: s.softmax(1)).detach()
        expected += F.interpolate(one, (45, 71), mode="bilinear", antialias=True) / 3
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(actual.sum(1), torch.ones(2, 45, 71))


@torch.no_grad()
def test_flip() -> None:
    model = network("softmax").eval()
    images = torch.rand(1, 3, 16, 24)
    expected = (model.predict(images) + model.predict(images.flip(3)).flip(3)) / 2
    actual = model.predict(images, flip=True)
    torch.testing.assert_close(actual, expected)
    # mirroring the image mirrors the result
    torch.testing.assert_close(model.predict(images.flip(3), flip=True), actual.flip(3))


@torch.no_grad()
def test_flip_of_normals_turns_x_around() -> None:
    """In a mirror, normals are mirrored as vectors: (x, y, z) at column c becomes (-x, y, z)."""
    model = network("normals").eval()
    images = torch.rand(1, 3, 16, 24)
    actual = model.predict(images, flip=True)
    turned = torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
    mean = model.predict(images) + turned * model.predict(images.flip(3)).flip(3)
    torch.testing.assert_close(actual, mean / mean.norm(dim=1, keepdim=True))
    torch.testing.assert_close(actual.norm(dim=1), torch.ones(1, 16, 24))
    torch.testing.assert_close(model.predict(images.flip(3), flip=True), turned * actual.flip(3))


def test_dropout_and_batch_statistics_are_off_and_modes_come_back() -> None:
    model = network(batch_norm=True, out_features=4)
    model.backbone.norm1_1.eval()  # frozen, as a trainer may
    modes = [module.training for module in model.modules()]
    images = torch.rand(2, 3, 16, 16)
    statistics = model.backbone.norm1_2.running_mean.clone()
    first = model.predict(images)
    assert torch.equal(first, model.predict(images))
    torch.testing.assert_close(first[:1], model.predict(images[:1]))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model.backbone.norm1_2.running_mean, statistics)
    assert not first.requires_grad


def test_modes_come_back_after_an_error() -> None:
    model = network()
    with pytest.raises(ValueError, match="memory_budget=100 bytes"):
        model.predict(torch.rand(1, 3, 16, 16), memory_budget=100)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scales_in_half_precision(dtype: torch.dtype) -> None:
    model, images = network("softmax"), torch.rand(1, 3, 24, 31)
    scales = (0.5, 1.0, 1.5)
    expected = model.predict(images, scales=scales, flip=True)
    actual = model.to(dtype).predict(images.to(dtype), scales=scales, flip=True)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=0, atol=0.02)


def test_no_images() -> None:
    assert network(out_features=4).predict(torch.rand(0, 3, 16, 20)).shape == (0, 4, 16, 20)


def test_autocast() -> None:
    """In every tile and every layer of the head."""
    model = network("softmax").eval()
    images = torch.rand(1, 3, 32, 32)
    expected = model.predict(images)
    seen = set()
    for layer in model.head.rest:
        layer.register_forward_hook(lambda _, inputs, output: seen.add(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        actual = model.predict(images, memory_budget=50_000)
        assert torch.is_autocast_enabled("cpu")
    assert seen == {torch.bfloat16}
    assert actual.dtype == torch.float32
    assert not torch.equal(actual, expected), "computed in float32 all the same"
    torch.testing.assert_close(actual, expected, atol=0.05, rtol=0.05)


def test_progress_counts_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for tqdm: the bar ends full, whatever the number of scales and mirror images."""
    bars: list[Any] = []

    class Bar:
        def __init__(self, total: int, **options: Any) -> None:
            self.total, self.steps = total, []
            bars.append(self)

        def update(self, pixels: int) -> None:
            self.steps.append(pixels)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    fake = types.ModuleType("tqdm.auto")
    fake.tqdm = Bar  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", fake)
    model, images = network(), torch.rand(2, 3, 21, 30)
    options: dict[str, Any] = {"scales": (0.5, 1.0), "flip": True, "memory_budget": 50_000}
    model.predict(images, progress=True, **options)
    (bar,) = bars
    assert bar.total == sum(bar.steps) == 2 * 2 * (10 * 15 + 21 * 30)
    assert len(bar.steps) > 8, "one step a view tells little"


def test_progress_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pixelnet-triton\[metrics\]'"):
        network().predict(torch.rand(1, 3, 16, 16), progress=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": 0.5}, r"scales=0\.5; expected a sequence"),
        ({"scales": ()}, r"scales=\(\); expected a sequence"),
        ({"scales": None}, r"scales=None; expected a sequence"),
        ({"scales": (1.0, "2")}, r"scales=\(1\.0, '2'\); expected positive"),
        ({"memory_budget": "1"}, r"memory_budget='1'; expected a positive number of bytes"),
        ({"scales": (1.0, -1)}, r"scales=\(1\.0, -1\); expected positive"),
        ({"memory_budget": 0}, r"memory_budget=0; expected a positive number of bytes"),
        ({"images": torch.rand(3, 16, 16)}, r"images is \(3, 16, 16\); expected .*images\[None\]"),
        ({"scales": (0.1,)}, r"images is 2 x 2 pixels; conv3_3 has a stride of 4"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network().predict(**({"images": torch.rand(1, 3, 16, 16)} | options))
