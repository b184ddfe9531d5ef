"""What a patch buys: Mask2Former's loss and PointRend's head, before and after `patch`.

    pytest bench/test_patch.py --benchmark-only
    PIXELNET_TEST_DEVICE=cpu pytest bench/test_patch.py --benchmark-only

The loss is that of the installed transformers; detectron2's functions are transcribed, as for the
tests. Both steps are whole, with what no patch touches: matching, losses, the choice of uncertain
points. Results are compared before anything is timed; before and after take turns (timing.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from bench.ledger import Ledger
from bench.machine import DEVICE
from bench.measure import free
from bench.memory import peak_bytes
from bench.timing import clock, in_turns
from pixelnet_triton.integrations.replacements import PACKAGES
from tests.integrations.transcribed import Boxes, detectron2_fine_grained, detectron2_point_sample

# Rounding of either side, in the Euclidean norm of a result. One uncertain point that is chosen
# otherwise would be some percent of a gradient.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Sizes:
    """Of Mask2Former on crops of 1024 pixels, and of PointRend on boxes of COCO's images.

    Args:
        images: of a batch. points: of a mask, or of a box.
        queries, masks: Mask2Former's of each image. logits, crop: sides of predicted, true masks.
        boxes: of each image. channels, rows, columns: of PointRend's map of stride 4.
    """

    images: int = 2
    points: int = 12544
    queries: int = 100
    masks: int = 10
    logits: int = 256
    crop: int = 1024
    boxes: int = 64
    channels: int = 256
    rows: int = 200
    columns: int = 304


Function = Callable[..., Any]
Step = Callable[..., list[Tensor]]  # takes the functions that are replaced


def mask2former(sizes: Sizes, device: torch.device, training: bool) -> tuple[Step, str]:
    """The loss of a batch and its gradients, and the sizes in words."""
    pytest.importorskip("transformers", reason="Mask2Former's loss is that of transformers")
    pytest.importorskip("scipy", reason="Mask2Former's loss matches masks with scipy")
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former import modeling_mask2former as modeling

    random = torch.Generator().manual_seed(0)
    images, queries, count = sizes.images, sizes.queries, sizes.masks
    numbers: dict[str, Any] = {"num_labels": 80, "train_num_points": sizes.points}
    weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    loss = modeling.Mask2FormerLoss(Mask2FormerConfig(**numbers), weight_dict=weights).to(device)
    masks = torch.randn(images, queries, sizes.logits, sizes.logits, generator=random)
    classes = torch.randn(images, queries, 81, generator=random)
    true = torch.rand(images, count, sizes.crop, sizes.crop, generator=random) < 0.3
    kinds = torch.randint(80, (images, count), generator=random)
    leaves = [t.to(device).requires_grad_(training) for t in (masks, classes)]
    labels = [list(t.to(device)) for t in (true.float(), kinds)]

    def step(sample_point: Function) -> list[Tensor]:
        torch.manual_seed(0)  # of the points
        with mock.patch.object(modeling, "sample_point", sample_point):
            losses = [*loss(*leaves, *labels).values()]
        return losses + _gradients(sum(losses), leaves, training)

    text = (
        f"{images} images, {queries} queries of {sizes.logits} x {sizes.logits}, "
        f"{count} masks of {sizes.crop} x {sizes.crop}, {sizes.points:,} points"
    )
    return step, text


def point_rend(sizes: Sizes, device: torch.device, training: bool) -> tuple[Step, str]:
    """The input of PointRend's mask head: features at uncertain points of the coarse masks."""
    random = torch.Generator().manual_seed(0)
    all_boxes = sizes.images * sizes.boxes
    fine = torch.randn(sizes.images, sizes.channels, sizes.rows, sizes.columns, generator=random)
    coarse = torch.randn(all_boxes, 80, 7, 7, generator=random)
    leaves = [t.to(device).requires_grad_(training) for t in (fine, coarse)]
    extent = 4.0 * torch.tensor([sizes.columns, sizes.rows])
    corner = torch.rand(sizes.images, sizes.boxes, 2, generator=random) * extent * 0.7
    side = torch.rand(sizes.images, sizes.boxes, 2, generator=random) * extent * 0.25 + 8
    boxes = [Boxes(b) for b in torch.cat([corner, corner + side], 2).to(device)]
    count = max(1, sizes.points // 64)  # 196 points a box, three times as many drawn

    def step(point_sample: Function, fine_grained: Function) -> list[Tensor]:
        fine, coarse = leaves
        torch.manual_seed(0)
        with torch.no_grad():
            drawn = torch.rand(all_boxes, 3 * count, 2, device=device)
            logits = point_sample(coarse[:, :1].detach(), drawn, align_corners=False)
            chosen = logits[:, 0].abs().topk(count, largest=False).indices
            points = drawn.gather(1, chosen[..., None].expand(-1, -1, 2))
        features, _ = fine_grained([fine], [0.25], boxes, points)
        masks = point_sample(coarse, points, align_corners=False)
        together = torch.cat([features, masks], 1)  # the input of the head's MLP
        return [together, *_gradients(together.square().mean(), leaves, training)]

    text = (
        f"{sizes.images} maps of {sizes.channels} x {sizes.rows} x {sizes.columns}, "
        f"{all_boxes} boxes, {count} points"
    )
    return step, text


def _gradients(loss: Any, leaves: list[Tensor], training: bool) -> list[Tensor]:
    return list(torch.autograd.grad(loss, leaves)) if training else []


STEPS = {"transformers": mask2former, "detectron2": point_rend}


def functions(package: str) -> tuple[list[Function], list[Function]]:
    """The functions of the package, and what `patch` puts in their places."""
    before: dict[str, Function] = {
        "point_sample": detectron2_point_sample,
        "point_sample_fine_grained_features": detectron2_fine_grained,
    }
    if package == "transformers":
        from transformers.models.mask2former.modeling_mask2former import sample_point

        before = {"sample_point": sample_point}
    replace = {target.name: target.replace for target in PACKAGES[package]}
    return [*before.values()], [replace[name](function) for name, function in before.items()]


def prepared(
    name: str, sizes: Sizes, device: torch.device, training: bool
) -> tuple[dict[str, Callable[[], list[Tensor]]], str]:
    """The step before and after the patch, compared, and its sizes in words.

    Raises:
        AssertionError: a result or gradient differs by more than TOLERANCE.
    """
    step, text = STEPS[name](sizes, device, training)
    before, after = functions(name)
    for i, (ours, theirs) in enumerate(zip(step(*after), step(*before), strict=True)):
        error = ((ours - theirs).norm() / theirs.norm()).item()
        assert error <= TOLERANCE, f"result {i}: relative error {error:.2g}"
    return {"before": lambda: step(*before), "after": lambda: step(*after)}, text


@pytest.mark.benchmark(timer=clock(DEVICE))
@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
@pytest.mark.parametrize("name", STEPS)
def test_patch(benchmark: Any, ledger: Ledger, name: str, training: bool) -> None:
    direction = "training" if training else "forward"
    with torch.set_grad_enabled(training):
        calls, sizes = prepared(name, Sizes(), DEVICE, training)
        line: dict[str, Any] = {"case": name, "direction": direction, "sizes": sizes}
        line |= {f"{when}_peak_bytes": peak_bytes(call, DEVICE) for when, call in calls.items()}
        benchmark.group = f"patch {name}, {direction}: {sizes}"
        figures = in_turns({when: [call] for when, call in calls.items()}, DEVICE, benchmark)
    for when in calls:
        line |= {f"{when}_{key}": figure for key, figure in figures[when].items()}
    ledger.write(benchmark, "patches", line)
    free(DEVICE)
