"""torch's global state changes nothing: default dtype, default device, autocast.

Lightning's ``precision="bf16-true"`` sets the first, notebooks the second, trainers the third.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelnet_triton.data import (
    ColourScale,
    Compose,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomScale,
    Resize,
)
from pixelnet_triton.data.bsds import _rotate
from pixelnet_triton.losses import (
    balanced_sigmoid_cross_entropy,
    cosine_normal_loss,
    cross_entropy,
    normal_loss,
    scale_invariant_log_loss,
)
from pixelnet_triton.metrics import (
    BoundaryMetrics,
    DepthMetrics,
    NormalMetrics,
    SegmentationMetrics,
    edge_nms,
)
from pixelnet_triton.models import GaussianInit, ImageNormalization, PixelMLP
from pixelnet_triton.sampling import (
    BiasedSampler,
    ClassBalancedSampler,
    StratifiedSampler,
    UncertaintySampler,
    UniformSampler,
    margin_uncertainty,
)
from pixelnet_triton.training import PixelEdgeMetrics, StepLoader


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float16": lambda: default_dtype(torch.float16),
    "float64": lambda: default_dtype(torch.float64),
    "meta device": lambda: torch.device("meta"),  # stands for any other than the tensors'
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


IMAGES, NORMALS = random(2, 3, 40, 60).sigmoid(), random(2, 3, 40, 60, seed=1)
LABELS = (random(2, 40, 60, seed=2) * 2).long().clamp(0, 3)
EDGES, DEPTH = (LABELS > 0).long(), random(2, 40, 60, seed=4).exp()
AUGMENT = Compose(
    [RandomScale((0.5, 1.0, 2.0)), ColourScale(), RandomCrop((16, 16)), RandomHorizontalFlip()]
)


def measured(metric: Any, *batch: Any) -> list[Tensor]:
    """The metric's values; its counts are where the batch is."""
    metric.to("cpu")
    metric.update(*batch)
    return list(metric.compute().values())


def augmented(kind: str, target: Tensor, *more: Any) -> list[Tensor]:
    out = []
    for seed in range(4):
        sample = {"image": IMAGES[0], "target": target, "kind": kind}
        for transform in (AUGMENT, *more):
            sample = transform(sample, generator=seeded(seed))
        out += [sample["image"], sample["target"]]
    return out


def rows(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)


CALLS: dict[str, Callable[[], Any]] = {
    "uniform": lambda: UniformSampler(300)(LABELS, generator=seeded()).points,
    "stratified": lambda: StratifiedSampler(300, 2)(LABELS, generator=seeded()).points,
    "biased": lambda: BiasedSampler(300, 0.3)(EDGES, generator=seeded()).points,
    "balanced": lambda: ClassBalancedSampler(300, 4)(LABELS, generator=seeded()).points,
    "uncertainty": lambda: (
        UncertaintySampler(300)(
            LABELS, score=margin_uncertainty(NORMALS.movedim(1, -1)), generator=seeded()
        ).points
    ),
    "cross entropy": lambda: cross_entropy(random(2, 50, 4), LABELS.flatten(1)[:, :50]),
    "balanced loss": lambda: balanced_sigmoid_cross_entropy(
        random(2, 50, 1), EDGES.flatten(1)[:, :50]
    ),
    "normal loss": lambda: normal_loss(rows(IMAGES), rows(NORMALS)),
    "cosine loss": lambda: cosine_normal_loss(rows(IMAGES), rows(NORMALS)),
    "depth loss": lambda: scale_invariant_log_loss(random(2, 2400, 1), DEPTH.flatten(1)),
    "nms": lambda: edge_nms(IMAGES),
    "augmentation of labels": lambda: augmented("labels", LABELS[0], Resize((10, 7))),
    "augmentation of edges": lambda: augmented("edges", EDGES[0], Resize((10, 7))),
    "normalised": lambda: augmented("normals", NORMALS[0], Normalize((0.4,) * 3, (0.2,) * 3)),
    "turned": lambda: list(_rotate({"image": IMAGES[0], "target": LABELS[0]}, 3).values()),
    "order of images": lambda: StepLoader([{}] * 50, 5)._indices(2)[3][0][0],
}
# A module stands on the default device when it is made there, as every torch module.
MODULES: dict[str, Callable[[], Any]] = {
    "segmentation": lambda: measured(SegmentationMetrics(4), LABELS, LABELS.flip(1)),
    "normals": lambda: measured(NormalMetrics(), NORMALS, NORMALS.roll(1, 3)),
    "depth": lambda: measured(DepthMetrics(), DEPTH, DEPTH.roll(1, 2)),
    "edges": lambda: measured(PixelEdgeMetrics(), IMAGES[:, :1], EDGES),
    "boundaries": lambda: measured(BoundaryMetrics(5), IMAGES[0, 0], [EDGES[0].bool()]),
    "normalization": lambda: ImageNormalization.torchvision()(IMAGES),
    "caffe": lambda: ImageNormalization.caffe()(IMAGES),
}


def bits(result: Any) -> list[Any]:
    return list(result) if isinstance(result, list) else [result]


def assert_same(result: Any, expected: Any) -> None:
    for one, other in zip(bits(result), bits(expected), strict=True):
        if isinstance(one, Tensor):
            assert (one.dtype, one.device) == (other.dtype, other.device)
            assert torch.equal(one.nan_to_num(7), other.nan_to_num(7))
        else:
            assert one == other


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", CALLS)
def test_functions_give_the_same_bits(call: str, state: str) -> None:
    expected = CALLS[call]()
    with STATES[state]():
        assert_same(CALLS[call](), expected)


@pytest.mark.parametrize("state", [state for state in STATES if state != "meta device"])
@pytest.mark.parametrize("module", MODULES)
def test_modules_give_the_same_bits(module: str, state: str) -> None:
    expected = MODULES[module]()
    with STATES[state]():
        assert_same(MODULES[module](), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_initialisation_has_its_deviation_in_every_dtype(dtype: torch.dtype) -> None:
    """Parameters are of the default dtype, as torch's own; their distribution is the same."""
    with default_dtype(dtype):
        head = PixelMLP([600], (300,), out_features=200, init=GaussianInit(1e-3, 5e-4, 0.1))
    assert head.first.weight.dtype == dtype
    assert head.first.weight.float().std().item() == pytest.approx(1e-3, rel=0.03)
    assert head.rest[1].weight.float().std().item() == pytest.approx(5e-4, rel=0.03)
    assert head.rest[1].bias.float().mean().item() == pytest.approx(0.1, rel=0.01)


def test_uniform_is_uniform_under_bfloat16() -> None:
    """Where 256 values are all there are, the first rows would win every tie."""
    valid = torch.ones(1, 512, 512, dtype=torch.bool)
    with default_dtype(torch.bfloat16):
        points = UniformSampler(2000)(valid=valid, generator=seeded()).points
    upper = (points[0, :, 1] < 256).double().mean().item()
    assert abs(upper - 0.5) < 4 * 0.5 / 2000**0.5  # four deviations


def test_the_order_of_images_needs_no_default() -> None:
    with torch.device("meta"):
        assert sorted(i for batch in StepLoader([{}] * 6, 2)._indices(0) for i, _ in batch) == [
            *range(6)
        ]
