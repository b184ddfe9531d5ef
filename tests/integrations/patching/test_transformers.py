"""`patch("transformers")`: the installed package, its models and Mask2Former's loss."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelnet_triton.integrations import patch, replacements

from .calls import some_map, value_and_gradients


def mask2former_loss(seed: int) -> dict[str, Tensor]:
    """The loss of two images with auxiliary predictions, and the gradients of its inputs."""
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    config = Mask2FormerConfig(num_labels=4, train_num_points=200)
    weights = {"loss_cross_entropy": 1.0, "loss_mask": 1.0, "loss_dice": 1.0}
    loss = Mask2FormerLoss(config, weight_dict=weights)
    random = torch.Generator().manual_seed(seed)
    masks = torch.randn(2, 10, 32, 48, generator=random).requires_grad_()
    classes = torch.randn(2, 10, 5, generator=random).requires_grad_()
    labels = [(torch.rand(n, 128, 192, generator=random) < 0.3).float() for n in (3, 2)]
    kinds = [torch.randint(4, (n,), generator=random) for n in (3, 2)]
    torch.manual_seed(seed)  # of the points
    losses = loss(masks, classes, labels, kinds)
    gradients = torch.autograd.grad(sum(losses.values()), [masks, classes])
    return {**losses, "masks": gradients[0], "classes": gradients[1]}


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of maps that the library samples from here on."""
    shapes: list[tuple[int, ...]] = []
    original = replacements.point_sample

    def noted(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        shapes.append(tuple(input.shape))
        return original(input, *args, **kwargs)

    monkeypatch.setattr(replacements, "point_sample", noted)
    return shapes


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_of_mask2former(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matching, uncertain points, mask and dice loss: bits but for rounding in the gradient."""
    pytest.importorskip("transformers")
    expected = mask2former_loss(seed)
    with patch("transformers"):
        shapes = counted(monkeypatch)
        actual = mask2former_loss(seed)
    assert (5, 1, 32, 48) in shapes  # the masks that were matched
    torch.testing.assert_close(actual, expected)


def test_models_of_transformers_that_sample_points() -> None:
    transformers = pytest.importorskip("transformers")
    with patch("transformers") as patched:
        found = {place for place in patched.places if place.startswith("transformers.")}
    assert found >= {
        f"transformers.{module}.sample_point"
        for module in (
            "models.mask2former.modeling_mask2former",
            "models.oneformer.modeling_oneformer",
            "models.eomt.modeling_eomt",
        )
    }
    root = transformers.__name__
    left = [
        name
        for name, module in sys.modules.items()
        if name.startswith(root) and hasattr(vars(module).get("sample_point"), "__wrapped__")
    ]
    assert not left, "undone everywhere"


def test_each_sample_point_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    feature, points = some_map(channels=1)
    with patch("transformers") as patched:
        shapes = counted(monkeypatch)
        for place in patched.places:
            module, name = place.rsplit(".", 1)
            replaced = getattr(sys.modules[module], name)
            torch.testing.assert_close(
                value_and_gradients(partial(replaced, align_corners=False), feature, points),
                value_and_gradients(
                    partial(replaced.__wrapped__, align_corners=False), feature, points
                ),
            )
            one = replaced(feature, points[:, :, None], True, align_corners=False)
            assert one.shape == (2, 1, 40)  # add_dim
    assert len(shapes) == len(patched.places)


def test_a_compiled_loss_takes_the_replacement() -> None:
    pytest.importorskip("transformers")
    from transformers.models.mask2former import modeling_mask2former

    def mean(feature: Tensor, points: Tensor) -> Tensor:
        return modeling_mask2former.sample_point(feature, points, align_corners=False).mean()

    feature, points = some_map(channels=1)
    expected = mean(feature, points)
    with patch("transformers"):
        compiled = torch.compile(mean, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(feature, points), expected)


def test_a_model_that_cannot_be_imported_does_not_keep_others_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setitem(sys.modules, "transformers.models.videomt.modeling_videomt", None)
    with patch("transformers") as patched:
        assert "transformers.models.eomt.modeling_eomt.sample_point" in patched.places
        assert not any("videomt" in place for place in patched.places)
