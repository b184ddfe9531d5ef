"""A patched call of detectron2, mmcv and mmseg gives the value and gradients of the original."""

from __future__ import annotations

import re
import warnings
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelnet_triton.integrations import patch, replacements

from ...conftest import takes_float64
from ..transcribed import Boxes, detectron2_point_sample
from .calls import some_map, value_and_gradients


def test_point_sample_of_detectron2(detectron2: dict[str, ModuleType]) -> None:
    sample = vars(detectron2["detectron2.projects.point_rend.point_features"])
    feature, points = some_map()
    call = lambda f, p: sample["point_sample"](f, p, align_corners=False)  # noqa: E731
    expected = value_and_gradients(call, feature, points)
    with patch("detectron2"):
        actual = value_and_gradients(call, feature, points)
    torch.testing.assert_close(actual, expected)


def test_fine_grained_features_of_detectron2(detectron2: dict[str, ModuleType]) -> None:
    functions = vars(detectron2["detectron2.projects.point_rend.mask_head"])
    maps, scales = [torch.randn(2, 4, 13, 17), torch.randn(2, 2, 7, 9)], [1 / 4, 1 / 8]
    boxes = [Boxes(torch.tensor([[3.0, 4, 30, 40], [0, 0, 60, 50]])), Boxes(torch.zeros(0, 4))]
    points = torch.rand(2, 11, 2)
    arguments = (maps, scales, boxes, points)
    expected, in_image = functions["point_sample_fine_grained_features"](*arguments)
    with patch("detectron2"):
        actual, ours = functions["point_sample_fine_grained_features"](*arguments)
        with torch.autocast("cpu", torch.bfloat16):
            cast, _ = functions["point_sample_fine_grained_features"](*arguments)
    torch.testing.assert_close((actual, ours), (expected, in_image))
    assert actual.stride() == expected.stride()
    torch.testing.assert_close(cast, expected)  # as grid_sample, which autocast leaves in float32


def test_point_sample_of_mmcv(mmseg: dict[str, ModuleType]) -> None:
    if not takes_float64(torch.device("cpu")):
        pytest.skip("float64 is computed on the CPU alone")
    functions = vars(mmseg["mmcv.ops"])
    feature, points = (tensor.double() for tensor in some_map())
    calls = [
        lambda f, p: functions["point_sample"](f, points=p),
        lambda f, p: functions["point_sample"](f, p, True),
        lambda f, p: functions["point_sample"](f, p, padding_mode="border"),
        lambda f, p: functions["point_sample"](f, p.unflatten(1, (5, 8))),
    ]
    expected = [value_and_gradients(call, feature, points) for call in calls]
    with patch("mmcv"):
        actual = [value_and_gradients(call, feature, points) for call in calls]
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("maps", [1, 3])
def test_the_head_of_mmseg(mmseg: dict[str, ModuleType], maps: int) -> None:
    """A subclass, too: it inherits the method."""
    head = vars(mmseg["mmseg.models"])["SubHead"]()
    _, points = some_map()
    features = [torch.randn(2, 3 + i, 8 >> i, 8 >> i) for i in range(maps)]
    method = "_get_fine_grained_point_feats"
    expected = getattr(head, method)(features, points)
    with patch("mmseg"):
        actual = getattr(head, method)(features, points)
    torch.testing.assert_close(actual, expected)
    assert actual.stride() == expected.stride()


def test_calls_that_the_library_answers_otherwise_are_the_originals(
    detectron2: dict[str, ModuleType],
) -> None:
    """To the bit: other modes, half coordinates; and errors are those of the original."""
    functions = vars(detectron2["detectron2.projects.point_rend.point_features"])
    feature, points = some_map()
    options: list[dict[str, Any]] = [
        {"mode": "nearest"},
        {"mode": "bicubic", "align_corners": True},
        {"padding_mode": "reflection", "align_corners": False},
    ]
    original = functions["point_sample"]
    with warnings.catch_warnings(), patch("detectron2"):
        warnings.simplefilter("ignore")  # grid_sample names its default of align_corners
        replaced = functions["point_sample"]
        for kwargs in options:
            ours, theirs = (f(feature, points, **kwargs) for f in (replaced, original))
            assert torch.equal(ours, theirs)
        half = replaced(feature.bfloat16(), points.bfloat16())
        assert torch.equal(half, original(feature.bfloat16(), points.bfloat16()))
        traced = torch.jit.trace(replaced, (feature, points))
        assert torch.equal(traced(feature, points), original(feature, points))
        for bad in ((feature, points[:1]), (feature[0], points)):
            with pytest.raises(RuntimeError) as expected:
                original(*bad)
            with pytest.raises(RuntimeError, match=re.escape(str(expected.value)[:40])):
                replaced(*bad)
        with pytest.raises(TypeError, match="unexpected keyword argument 'corners'"):
            replaced(feature, points, corners=True)


def test_the_library_takes_what_it_serves(
    detectron2: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise all comparisons above would compare the original with itself."""
    calls: list[torch.dtype] = []

    def noted(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        calls.append(input.dtype)
        return detectron2_point_sample(input.float(), *args, align_corners=False)

    feature, points = some_map()
    with patch("detectron2"):
        monkeypatch.setattr(replacements, "point_sample", noted)
        replaced = vars(detectron2["mask2former.modeling.matcher"])["point_sample"]
        replaced(feature, points, align_corners=False)
        replaced(nn.Parameter(feature), points, padding_mode="border")
        replaced(feature.half(), points)
        replaced(feature[:0], points[:0])
    assert calls == [torch.float32, torch.float32, torch.float16, torch.float32]
