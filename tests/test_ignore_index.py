"""One label that does not count, from sampler to loss to metric; labels of every integer dtype."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from pixelnet_triton.data import RandomCrop, RandomHorizontalFlip, Resize
from pixelnet_triton.losses import balanced_sigmoid_cross_entropy, cross_entropy
from pixelnet_triton.metrics import SegmentationMetrics, boundary_counts
from pixelnet_triton.sampling import (
    BiasedSampler,
    ClassBalancedSampler,
    SampledPixels,
    StratifiedSampler,
    UncertaintySampler,
    UniformSampler,
)
from pixelnet_triton.training import Edges, Segmentation

UNSIGNED = [torch.uint8, torch.uint16, torch.uint32, torch.uint64]
SIGNED = [torch.int16, torch.int32, torch.int64]


def labels_of(ignored: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Image 0 has classes 0 to 2 and ignored pixels, image 1 ignored ones alone."""
    labels = (torch.arange(2 * 400) % 4).view(2, 20, 20)
    labels[1] = 3
    return torch.where(labels == 3, ignored, labels).to(dtype)


@pytest.mark.parametrize("ignored", [255, -1, -100, 7])
@pytest.mark.parametrize(
    "sampler",
    [UniformSampler, StratifiedSampler, BiasedSampler, ClassBalancedSampler],
    ids=lambda sampler: sampler.__name__,
)
def test_the_samplers_label_marks_what_was_not_drawn(ignored: int, sampler: type) -> None:
    labels = labels_of(ignored)
    settings = {"num_classes": 3} if sampler is ClassBalancedSampler else {}
    pixels = sampler(50, ignore_index=ignored, **settings)(labels)
    assert pixels.ignore_index == ignored
    taken = pixels.take(labels)
    assert taken[1].unique().tolist() == [ignored]
    assert not (taken[0] == ignored).any()
    loss = cross_entropy(torch.zeros(2, 50, 3), taken, ignore_index=ignored)
    assert loss.item() == pytest.approx(math.log(3))


def test_uncertainty_carries_it_too() -> None:
    labels = labels_of(-1)
    pixels = UncertaintySampler(50, ignore_index=-1)(labels, score=torch.rand(2, 20, 20))
    assert pixels.take(labels)[1].unique().tolist() == [-1]


def test_without_a_label_255_marks_them() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    pixels = UniformSampler(3, ignore_index=None)(valid=mask)
    assert pixels.take(torch.zeros(1, 4, 4, dtype=torch.int64)).tolist() == [[255] * 3]
    by_hand = SampledPixels(pixels.points, pixels.valid)
    assert by_hand.take(torch.zeros(1, 4, 4, dtype=torch.uint8)).tolist() == [[255] * 3]


def test_a_dtype_that_cannot_hold_it_is_refused() -> None:
    labels = labels_of(-1)
    pixels = UniformSampler(5, ignore_index=-1)(labels)
    with pytest.raises(TypeError, match=r"uint8, which cannot hold the ignored label -1.*\.long"):
        pixels.take(labels.to(torch.uint8))
    assert pixels.take(labels.to(torch.uint8), fill=9)[1].tolist() == [9] * 5


class TestTasks:
    @pytest.mark.parametrize("ignored", [255, -1, 3])
    def test_segmentation(self, ignored: int) -> None:
        """The sampler's label is the loss's and the metric's."""
        task = Segmentation(3, UniformSampler(30, ignore_index=ignored))
        target = labels_of(ignored)
        pixels = task.sample(target, generator=None)
        loss = task.loss(torch.zeros(2, 30, 3), target, pixels)
        assert loss.item() == pytest.approx(math.log(3))
        metric = task.metrics()
        right = torch.where(target == ignored, 0, target)
        metric.update(right, target)
        assert metric.compute()["mean_iu"] == 1
        assert metric.compute()["pixel_accuracy"] == 1

    def test_255_is_a_class_among_300(self) -> None:
        """Trained and measured as the others, where the sampler ignores another label."""
        task = Segmentation(300, UniformSampler(30, ignore_index=-1))
        target = torch.full((2, 20, 20), 255)
        target[1] = -1
        pixels = task.sample(target, generator=None)
        loss = task.loss(torch.zeros(2, 30, 300), target, pixels)
        assert loss.item() == pytest.approx(math.log(300))
        metric = task.metrics()
        metric.update(target.clamp(min=0), target)
        assert metric.confusion[255, 255] == metric.confusion.sum() == 400

    @pytest.mark.parametrize("ignored", [255, -1])
    def test_edges(self, ignored: int) -> None:
        task = Edges(BiasedSampler(30, ignore_index=ignored))
        target = labels_of(ignored).clamp(max=1) if ignored < 0 else labels_of(255)
        target[target == 2] = 1
        pixels = task.sample(target, generator=None)
        loss = task.loss(torch.zeros(2, 30, 1), target, pixels)
        assert loss.item() == pytest.approx(math.log(2))
        metric = task.metrics()
        certain = torch.where(target == ignored, 1.0, (target == 1).float())
        metric.update(certain[:, None], target)
        assert metric.compute()["best_f"] == 1

    def test_a_class_is_not_ignored_by_accident(self) -> None:
        with pytest.raises(ValueError, match=r"sampler\.ignore_index=1 is one of the 3 classes"):
            Segmentation(3, UniformSampler(30, ignore_index=1))
        with pytest.raises(ValueError, match=r"ignore_index=255 is one of the 300.*-100"):
            Segmentation(300)

    def test_edge_maps_of_image_files_are_noticed(self) -> None:
        """0 and 255: every edge would be ignored, and the network learn that there is none."""
        drawn = torch.zeros(1, 20, 20, dtype=torch.int64)
        drawn[:, 10] = 255
        with pytest.warns(UserWarning, match=r"255, which are ignored, and none of 1.*by 255"):
            Edges().sample(drawn, generator=None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Edges().sample(drawn // 255, generator=None)
            Edges().sample(torch.zeros(1, 20, 20).long(), generator=None)
            drawn[0, 3, 3] = 1
            Edges().sample(drawn, generator=None)


class TestLabelsOutOfRange:
    @pytest.mark.parametrize("label", [3, -1, 254, 2**40])
    def test_segmentation_names_them(self, label: int) -> None:
        targets = torch.tensor([[0, 1, 255, label]])
        said = rf"targets has the class {label}; expected ids in \[0, 3\).*ignore_index=255\. Map"
        with pytest.raises(ValueError, match=said):
            cross_entropy(torch.zeros(1, 4, 3), targets)

    def test_edges_name_them(self) -> None:
        with pytest.raises(ValueError, match=r"other than 0, 1 and ignore_index=255: \[0, 1, 2\]"):
            balanced_sigmoid_cross_entropy(torch.zeros(1, 3, 1), torch.tensor([[0, 1, 2]]))

    @pytest.mark.parametrize("loss", [cross_entropy, balanced_sigmoid_cross_entropy])
    def test_tracing_does_not_look_at_values(self, loss: object) -> None:
        """A value that is read would break the graph."""
        outputs, targets = torch.zeros(1, 4, 1), torch.zeros(1, 4, dtype=torch.int64)
        compiled = torch.compile(loss, backend="eager", fullgraph=True)  # type: ignore[call-overload]
        assert torch.equal(compiled(outputs, targets), loss(outputs, targets))  # type: ignore[operator]


class TestDtypes:
    @pytest.mark.parametrize("dtype", UNSIGNED + SIGNED, ids=str)
    def test_of_labels(self, dtype: torch.dtype) -> None:
        """From transforms to samplers to losses to metrics; also those torch only stores."""
        wide = labels_of(255)
        labels = wide.to(dtype)
        for sampler in (
            UniformSampler(30),
            BiasedSampler(30),
            ClassBalancedSampler(30, 3),
            StratifiedSampler(30),
        ):
            draws = [sampler(x, generator=torch.Generator().manual_seed(1)) for x in (labels, wide)]
            assert torch.equal(draws[0].points, draws[1].points)
            taken = draws[0].take(labels)
            assert torch.equal(taken.long(), draws[1].take(wide))
            scores = torch.randn(2, 30, 3)
            assert torch.equal(cross_entropy(scores, taken), cross_entropy(scores, taken.long()))
            assert torch.equal(
                cross_entropy(scores, taken.to(dtype)), cross_entropy(scores, taken.long())
            )
        metrics = [SegmentationMetrics(3) for _ in range(2)]
        metrics[0].update(torch.zeros_like(labels), labels)
        metrics[1].update(torch.zeros_like(wide), wide)
        assert torch.equal(metrics[0].confusion, metrics[1].confusion)
        edges = (wide == 1).to(dtype)
        assert torch.equal(
            balanced_sigmoid_cross_entropy(torch.ones(2, 400, 1), edges.flatten(1)),
            balanced_sigmoid_cross_entropy(torch.ones(2, 400, 1), edges.flatten(1).long()),
        )

    @pytest.mark.parametrize("dtype", UNSIGNED, ids=str)
    def test_of_transformed_targets(self, dtype: torch.dtype) -> None:
        wide = labels_of(255)[0]
        for transform in (RandomHorizontalFlip(1.0), Resize((7, 9)), RandomCrop((24, 8))):
            results = []
            for target in (wide, wide.to(dtype)):
                sample = {"image": torch.rand(3, 20, 20), "target": target, "kind": "labels"}
                drawn = transform(sample, generator=torch.Generator().manual_seed(0))
                results.append(drawn["target"].long())
            assert torch.equal(*results)


class TestEdgeMapsOfImageFiles:
    def test_0_and_255_are_counted_as_edges(self) -> None:
        truth = np.zeros((20, 30), np.uint8)
        truth[10] = 255
        counts = boundary_counts(truth / 255.0, [truth], thresholds=[0.5])
        same = boundary_counts(truth / 255.0, [truth > 0], thresholds=[0.5])
        assert counts.found.tolist() == counts.true.tolist() == [30]
        assert counts.right.tolist() == same.right.tolist() == [30]
        as_tensor = boundary_counts(truth / 255.0, [torch.from_numpy(truth)], thresholds=[0.5])
        assert as_tensor.found.tolist() == [30]

    @pytest.mark.parametrize(
        "values",
        [
            np.array([0, 1, 255], np.uint8),  # a consensus with ignored pixels
            np.array([0, 255], np.int64),  # in the library's own targets, ignored
            np.array([0, 128], np.uint8),
            np.array([0.0, 0.5]),
        ],
        ids=str,
    )
    def test_anything_else_is_refused(self, values: np.ndarray) -> None:
        truth = np.resize(values, (20, 30))
        with pytest.raises(ValueError, match=r"annotations\[0\] is .* other than 0 and 1: \[0"):
            boundary_counts(np.zeros((20, 30)), [truth], thresholds=[0.5])
