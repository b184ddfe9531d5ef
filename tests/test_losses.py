"""The losses: values by hand and by formula, gradients, ignored points, half precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pixelnet_triton.losses import (
    balanced_sigmoid_cross_entropy,
    cosine_normal_loss,
    cross_entropy,
    normal_loss,
    scale_invariant_log_loss,
)

from .tolerances import TOLERANCES

Loss = Callable[[Tensor, Tensor], Tensor]


def _classes(shape: tuple[int, ...]) -> Tensor:
    targets = torch.randint(0, 5, shape)
    targets[..., ::3] = 255
    return targets


def _edges(shape: tuple[int, ...]) -> Tensor:
    targets = (torch.rand(shape) < 0.3).long()
    targets[..., 0], targets[..., 1], targets[..., 2] = 0, 1, 255
    return targets


def _normals(shape: tuple[int, ...]) -> Tensor:
    targets = torch.nn.functional.normalize(torch.randn(*shape, 3, dtype=torch.float64), dim=-1)
    targets[..., ::3, :] = 0
    return targets


def _depths(shape: tuple[int, ...]) -> Tensor:
    targets = torch.rand(shape, dtype=torch.float64) * 9 + 1
    targets[..., ::3] = 0
    return targets


def hed(outputs: Tensor, targets: Tensor) -> Tensor:
    return balanced_sigmoid_cross_entropy(outputs, targets, reduction="sum")


# name: the loss, its K, random targets of a shape, and the value that is ignored.
LOSSES: dict[str, tuple[Loss, int, Callable[[tuple[int, ...]], Tensor], float]] = {
    "cross_entropy": (cross_entropy, 5, _classes, 255),
    "balanced": (balanced_sigmoid_cross_entropy, 1, _edges, 255),
    "hed": (hed, 1, _edges, 255),
    "normal": (normal_loss, 3, _normals, 0),
    "cosine": (cosine_normal_loss, 3, _normals, 0),
    "depth": (scale_invariant_log_loss, 1, _depths, 0),
}
each_loss = pytest.mark.parametrize("name", LOSSES)


def _case(name: str, shape: tuple[int, ...] = (2, 40)) -> tuple[Loss, Tensor, Tensor]:
    loss, channels, targets, _ = LOSSES[name]
    return loss, torch.randn(*shape, channels, dtype=torch.float64), targets(shape)


@each_loss
@pytest.mark.parametrize("shape", [(2, 7), (9,)], ids=["images", "rows"])
def test_gradcheck(name: str, shape: tuple[int, ...]) -> None:
    loss, outputs, targets = _case(name, shape)
    outputs.requires_grad_()
    assert loss(outputs, targets).item() > 0
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), (outputs,))


@each_loss
def test_ignored_points_change_nothing(name: str) -> None:
    loss, outputs, targets = _case(name)
    ignored = targets == LOSSES[name][3]
    if ignored.dim() == 3:
        ignored = ignored.all(-1)
    assert ignored.any()
    assert not ignored.all()
    others = torch.where(ignored[..., None], 1e4, outputs).requires_grad_()
    value = loss(others, targets)
    torch.testing.assert_close(value, loss(outputs, targets), rtol=0, atol=0)
    value.backward()
    assert others.grad is not None
    assert (others.grad[ignored] == 0).all()
    assert (others.grad[~ignored] != 0).any(-1).all()


@each_loss
@pytest.mark.parametrize("shape", [(2, 6), (0, 6), (2, 0), (6,), (0,)])
def test_nothing_valid_gives_zero_with_zero_gradient(name: str, shape: tuple[int, ...]) -> None:
    loss, outputs, targets = _case(name, (2, 6))
    targets = torch.full((*shape, *targets.shape[2:]), LOSSES[name][3], dtype=targets.dtype)
    outputs = torch.randn(*shape, outputs.shape[-1], requires_grad=True)
    value = loss(outputs, targets)
    assert value.item() == 0
    value.backward()
    assert outputs.grad is not None
    assert torch.equal(outputs.grad, torch.zeros_like(outputs))


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    loss, outputs, targets = _case(name, (2, 4000))
    outputs = (outputs * 8).to(dtype)  # squares and sums of these leave float16's range
    if targets.is_floating_point():
        targets = targets.float()
    expected = loss(outputs.double(), targets.double() if targets.is_floating_point() else targets)
    value = loss(outputs.requires_grad_(), targets)
    assert value.dtype == torch.float32
    floor = TOLERANCES[torch.float32].floor
    assert abs(value.item() - expected.item()) <= 2 * floor * max(1.0, expected.item())
    value.backward()
    assert outputs.grad is not None
    assert torch.isfinite(outputs.grad).all()
    assert (outputs.grad != 0).any()


@each_loss
def test_images_and_rows_agree(name: str) -> None:
    loss, outputs, targets = _case(name, (1, 40))
    torch.testing.assert_close(loss(outputs, targets), loss(outputs[0], targets[0]))


def test_cross_entropy_by_hand() -> None:
    outputs = torch.tensor([[[0.0, math.log(3)], [5.0, 5.0], [math.log(4), 0.0]]])
    targets = torch.tensor([[1, 255, 1]])
    # Probabilities of the labels: 3/4 and 1/5.
    expected = -(math.log(3 / 4) + math.log(1 / 5)) / 2
    assert cross_entropy(outputs, targets).item() == pytest.approx(expected, rel=1e-6)
    small = targets.to(torch.uint8)
    assert cross_entropy(outputs, small).item() == pytest.approx(expected, rel=1e-6)


def test_balanced_cross_entropy_by_hand() -> None:
    # sigma(s) = 3/4 at the positive; 1/2, 1/4, 1/4 at the negatives.
    outputs = torch.tensor([[math.log(3)], [0.0], [-math.log(3)], [-math.log(3)], [7.0]])
    targets = torch.tensor([1, 0, 0, 0, 255])
    pull, push = -math.log(3 / 4), -math.log(1 / 2) - 2 * math.log(3 / 4)
    assert hed(outputs, targets).item() == pytest.approx(3 / 4 * pull + 1 / 4 * push, rel=1e-6)
    mean = balanced_sigmoid_cross_entropy(outputs, targets).item()
    assert mean == pytest.approx((pull + push / 3) / 2, rel=1e-6)


def test_balanced_cross_entropy_weighs_both_kinds_equally() -> None:
    """At scores of zero the gradients of positives and of negatives have equal sums."""
    targets = torch.tensor([1] * 3 + [0] * 97)
    for reduction in ("mean", "sum"):
        outputs = torch.zeros(100, 1, requires_grad=True)
        balanced_sigmoid_cross_entropy(outputs, targets, reduction=reduction).backward()
        assert outputs.grad is not None
        up, down = outputs.grad[:3].sum().item(), outputs.grad[3:].sum().item()
        assert up < 0
        assert up == pytest.approx(-down, rel=1e-5)


@pytest.mark.parametrize("kind", [0, 1])
def test_balanced_cross_entropy_of_one_kind(kind: int) -> None:
    outputs, targets = torch.zeros(10, 1), torch.full((10,), kind)
    mean = balanced_sigmoid_cross_entropy(outputs, targets).item()
    assert mean == pytest.approx(math.log(2) / 2, rel=1e-6)
    assert hed(outputs, targets).item() == 0  # beta is 0 or 1


def test_large_scores_do_not_overflow() -> None:
    outputs = torch.tensor([[300.0], [-300.0]], requires_grad=True)
    loss = balanced_sigmoid_cross_entropy(outputs, torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == 300
    assert outputs.grad is not None
    assert outputs.grad.flatten().tolist() == [0.5, -0.5]


def test_normal_losses_by_hand() -> None:
    outputs = torch.tensor([[0.0, 0.0, 9.0], [2.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    targets = torch.tensor([[0.0, 0.0, 1.0], [0.5, math.sqrt(0.75), 0.0], [0.0, 0.0, 0.0]])
    for loss in (normal_loss, cosine_normal_loss):  # 0 and 60 degrees; the last is ignored
        assert loss(outputs, targets).item() == pytest.approx((0 + 0.5) / 2, rel=1e-6)
    # Only the Euclidean loss minds the target's length: (1/2) |(1, 0, 0) - (2, 0, 0)|^2.
    one, two = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    assert normal_loss(one, two).item() == pytest.approx(0.5)
    assert cosine_normal_loss(one, two).item() == 0


@pytest.mark.parametrize("unknown", [math.nan, math.inf, 0.0])
@pytest.mark.parametrize("loss", [normal_loss, cosine_normal_loss])
def test_unknown_normals_do_not_count(loss: Loss, unknown: float) -> None:
    """Many data sets have NaN there, in one component or in all."""
    targets = torch.tensor([[0.0, 0.0, 1.0], [unknown] * 3])
    if unknown != 0:
        targets = torch.cat([targets, torch.tensor([[0.0, unknown, 1.0]])])
    outputs = torch.randn(len(targets), 3, requires_grad=True)
    value = loss(outputs, targets)
    assert value == loss(outputs[:1], targets[:1])
    (gradient,) = torch.autograd.grad(value, outputs)
    assert gradient.isfinite().all()
    assert (gradient[1:] == 0).all()


@pytest.mark.parametrize("loss", [normal_loss, cosine_normal_loss])
@pytest.mark.parametrize("length", [0.0, 1e-10, 9e-7, 1.1e-6, 1.0])
def test_an_output_without_a_direction_gives_no_gradient(loss: Loss, length: float) -> None:
    """1 / length grows without bound; a black region under biases of 0 gives outputs of 0."""
    outputs = torch.tensor([[length, 0.0, 0.0], [1.0, 2.0, 2.0]], requires_grad=True)
    value = loss(outputs, torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]))
    (gradient,) = torch.autograd.grad(value, outputs)
    largest = float(gradient[0].abs().max())
    assert largest == (0 if length < 1e-6 else pytest.approx(0.5 / length))
    error = 0.5 if length == 0 and loss is normal_loss else 1.0  # the direction of 0 is 0
    assert float(value.detach()) == pytest.approx((error + 1 / 3) / 2)


def test_scale_invariant_loss_is_eigens() -> None:
    """The form of their equation 4, image by image, with the sum of squares and of errors."""
    outputs = torch.randn(3, 50, 1, dtype=torch.float64)
    targets = _depths((3, 50))
    targets[1] = 0  # an image without depth takes no part
    for invariance in (0.0, 0.5, 1.0):
        terms = []
        for image in (0, 2):
            known = targets[image] > 0
            d = outputs[image, known, 0] - targets[image, known].log()
            n = len(d)
            terms.append((d.square().sum() / n - invariance * d.sum() ** 2 / n**2).item())
        value = scale_invariant_log_loss(outputs, targets, invariance=invariance).item()
        assert value == pytest.approx(sum(terms) / 2, rel=1e-12)


def test_scale_costs_nothing_at_full_invariance() -> None:
    targets = _depths((2, 50))
    known = torch.where(targets > 0, targets, 1)
    outputs = (1000 * known).log().unsqueeze(-1)
    assert scale_invariant_log_loss(outputs, targets, invariance=1.0).item() < 1e-25
    assert scale_invariant_log_loss(outputs, targets).item() == pytest.approx(
        math.log(1000) ** 2 / 2, rel=1e-12
    )


@pytest.mark.parametrize("unknown", [math.inf, math.nan, -1.0])
def test_depths_that_are_no_depths_do_not_count(unknown: float) -> None:
    targets = _depths((2, 50))
    outputs = torch.randn(2, 50, 1, dtype=torch.float64, requires_grad=True)
    expected = scale_invariant_log_loss(outputs, targets)
    targets[targets == 0] = unknown
    loss = scale_invariant_log_loss(outputs, targets)
    assert loss.item() == expected.item()
    loss.backward()
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()


BAD = {
    "wrong rank": (cross_entropy, (2, 5, 4, 4), torch.zeros(2, 4, 4).long(), ValueError, "flatten"),
    "targets shape": (cross_entropy, (2, 9, 5), torch.zeros(2, 8).long(), ValueError, r"\(2, 9\)"),
    "float labels": (cross_entropy, (2, 9, 5), torch.zeros(2, 9), TypeError, r"\.long\(\)"),
    "ignored class": (cross_entropy, (2, 9, 300), torch.zeros(2, 9).long(), ValueError, "-100"),
    "two scores": (hed, (2, 9, 2), torch.zeros(2, 9).long(), ValueError, r"\(B, N, 1\)"),
    "soft edges": (hed, (2, 9, 1), torch.full((2, 9), 7), ValueError, "Threshold"),
    "bool edges": (hed, (2, 9, 1), torch.zeros(2, 9).bool(), TypeError, "ignore_index"),
    "normals": (normal_loss, (2, 9, 3), torch.zeros(2, 9), ValueError, r"\(2, 9, 3\)"),
    "depth": (scale_invariant_log_loss, (2, 9, 1), torch.zeros(2, 9, 1), ValueError, r"\(2, 9\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    loss, shape, targets, error, message = BAD[name]
    with pytest.raises(error, match=message):
        loss(torch.zeros(shape), targets)


@pytest.mark.parametrize(("label", "kind"), [(0, "negatives"), (1, "positives")])
def test_neither_kind_of_edges_may_be_ignored(label: int, kind: str) -> None:
    outputs, targets = torch.zeros(3, 1), torch.tensor([0, 1, 1])
    with pytest.raises(ValueError, match=rf"ignore_index={label} is the target of {kind}"):
        balanced_sigmoid_cross_entropy(outputs, targets, ignore_index=label)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="reduction='none'"):
        balanced_sigmoid_cross_entropy(torch.zeros(4, 1), torch.zeros(4).long(), reduction="none")
    with pytest.raises(ValueError, match="invariance=2"):
        scale_invariant_log_loss(torch.zeros(4, 1), torch.zeros(4), invariance=2)
    with pytest.raises(TypeError, match="raw floating"):
        cross_entropy(torch.zeros(4, 2).long(), torch.zeros(4).long())
