"""What a patch buys: Mask2Former's loss and PointRend's head, before and after `patch`.

    pytest bench/test_patch.py --benchmark-only
    PIXELNET_TEST_DEVICE=cpu pytest bench/test_patch.py --benchmark-only

The loss is that of the installed transformers; detectron2's functions are transcribed, as for the
tests. Both steps are whole, with what no patch touches: matching, losses, the choice of uncertain
points. Results are compared before anything is timed; before and after take turns (timing.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from bench.machine import DEVICE
from bench.measure import Ledger, free
from bench.memory import peak_bytes
from bench.timing import clock, in_turns
from pixelnet_triton.integrations.replacements import PACKAGES
from tests.integrations.transcribed import Boxes, detectron2_fine_grained, detectron2_point_sample

# Rounding of either side, in the Euclidean norm of a result. One uncertain point that is chosen
# otherwise would be some percent of a gradient.
TOLERANCE = 1e-4


Function = Callable[..., Any]
Step = Callable[..., list[Tensor]]  # takes the functions that are replaced


def mask2former(device: torch.device, training: bool, smaller: int = 1) -> tuple[Step, str]:
    """The loss of a batch on crops of 1024 pixels and its gradients, and the sizes in words."""
    pytest.importorskip("transformers", reason="Mask2Former's loss is that of transformers")
    pytest.importorskip("scipy", reason="Mask2Former's loss matches masks with scipy")
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former import modeling_mask2former as modeling

    random = torch.Generator().manual_seed(0)
    images, queries, count, classes = 2, 100 // smaller, max(2, 10 // smaller), 80
    points, side, crop = 12544 // smaller, 256 // smaller, 1024 // smaller
    numbers: dict[str, Any] = {"num_labels": classes, "train_num_points": points}
    weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    loss = modeling.Mask2FormerLoss(Mask2FormerConfig(**numbers), weight_dict=weights).to(device)
    masks = torch.randn(images, queries, side, side, generator=random)
    logits = torch.randn(images, queries, classes + 1, generator=random)
    true = torch.rand(images, count, crop, crop, generator=random) < 0.3
    kinds = torch.randint(classes, (images, count), generator=random)
    leaves = [t.to(device).requires_grad_(training) for t in (masks, logits)]
    labels = [list(t.to(device)) for t in (true.float(), kinds)]

    def step(sample_point: Function) -> list[Tensor]:
        torch.manual_seed(0)  # of the points
        with mock.patch.object(modeling, "sample_point", sample_point):
            losses = [*loss(*leaves, *labels).values()]
        return losses + _gradients(sum(losses), leaves, training)

    text = (
        f"{images} images, {queries} queries of {side} x {side}, "
        f"{count} masks of {crop} x {crop}, {points:,} points"
    )
    return step, text


def point_rend(device: torch.device, training: bool, smaller: int = 1) -> tuple[Step, str]:
    """The input of PointRend's mask head on boxes of COCO's images: features at uncertain points of
    the coarse masks, on a map of stride 4; and the sizes in words."""
    random = torch.Generator().manual_seed(0)
    images, boxes, count = 2, 64 // smaller, 196 // smaller  # points a box
    channels, rows, columns = 256 // smaller, 200 // smaller, 304 // smaller
    fine = torch.randn(images, channels, rows, columns, generator=random)
    coarse = torch.randn(images * boxes, 80, 7, 7, generator=random)
    leaves = [t.to(device).requires_grad_(training) for t in (fine, coarse)]
    extent = 4.0 * torch.tensor([columns, rows])
    corner = torch.rand(images, boxes, 2, generator=random) * extent * 0.7
    side = torch.rand(images, boxes, 2, generator=random) * extent * 0.25 + 8
    of_images = [Boxes(b) for b in torch.cat([corner, corner + side], 2).to(device)]

    def step(point_sample: Function, fine_grained: Function) -> list[Tensor]:
        fine, coarse = leaves
        torch.manual_seed(0)
        with torch.no_grad():
            drawn = torch.rand(len(coarse), 3 * count, 2, device=device)
            logits = point_sample(coarse[:, :1].detach(), drawn, align_corners=False)
            chosen = logits[:, 0].abs().topk(count, largest=False).indices
            points = drawn.gather(1, chosen[..., None].expand(-1, -1, 2))
        features, _ = fine_grained([fine], [0.25], of_images, points)
        masks = point_sample(coarse, points, align_corners=False)
        together = torch.cat([features, masks], 1)  # the input of the head's MLP
        return [together, *_gradients(together.square().mean(), leaves, training)]

    text = f"{images} maps of {channels} x {rows} x {columns}, {len(coarse)} boxes, {count} points"
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
    name: str, device: torch.device, training: bool, smaller: int = 1
) -> tuple[dict[str, Callable[[], list[Tensor]]], str]:
    """The step before and after the patch, compared, and its sizes in words.

    Args:
        smaller: what sizes are divided by.

    Raises:
        AssertionError: a result or gradient differs by more than TOLERANCE.
    """
    step, text = STEPS[name](device, training, smaller)
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
        calls, sizes = prepared(name, DEVICE, training)
        line: dict[str, Any] = {"case": name, "direction": direction, "sizes": sizes}
        line |= {f"{when}_peak_bytes": peak_bytes(call, DEVICE) for when, call in calls.items()}
        benchmark.group = f"patch {name}, {direction}: {sizes}"
        figures = in_turns({when: [call] for when, call in calls.items()}, DEVICE, benchmark)
    for when in calls:
        line |= {f"{when}_{key}": figure for key, figure in figures[when].items()}
    ledger.write(benchmark, "patches", line)
    free(DEVICE)
