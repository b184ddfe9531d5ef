"""detectron2, mmcv and mmseg as stand-ins: modules of the same names with the functions of each.

They are imported from one another in the same ways as there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelnet_triton.integrations import unpatch
from pixelnet_triton.integrations.patching import _ACTIVE
from pixelnet_triton.integrations.replacements import PACKAGES

from ..transcribed import detectron2_fine_grained, detectron2_point_sample, mmcv_point_sample


@pytest.fixture(autouse=True)
def _nothing_stays_patched() -> Iterator[None]:
    yield
    for package in PACKAGES:
        unpatch(package)
    assert not _ACTIVE


def anew(function: Any) -> Callable[..., Any]:
    """A copy of the function for one test, so that none is found patched."""
    made = FunctionType(function.__code__, function.__globals__, function.__name__)
    made.__defaults__, made.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    made.__annotations__ = function.__annotations__
    return made


def modules(**by_name: dict[str, Any]) -> dict[str, ModuleType]:
    """Modules with these contents, and the packages around them; "__" stands for a dot."""
    made: dict[str, ModuleType] = {}
    for name, content in by_name.items():
        dotted = name.replace("__", ".")
        parents = dotted.split(".")
        for depth in range(1, len(parents) + 1):
            made.setdefault(".".join(parents[:depth]), ModuleType(".".join(parents[:depth])))
        vars(made[dotted]).update(content)
    return made


@pytest.fixture
def detectron2(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    sample = anew(detectron2_point_sample)

    functions = {
        "point_sample": sample,
        "point_sample_fine_grained_features": anew(detectron2_fine_grained),
    }
    made = modules(
        detectron2__projects__point_rend__point_features=functions,
        detectron2__projects__point_rend__mask_head=functions,  # from .point_features import ...
        mask2former__modeling__matcher={"point_sample": sample},
        mask2former__modeling__criterion={"sample_points": sample},  # import ... as ...
    )
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


@pytest.fixture
def mmseg(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """mmcv and mmseg; `mmcv.ops.point_sample` is a module, and the function hides it."""
    sample = anew(mmcv_point_sample)

    class PointHead(nn.Module):
        align_corners = False

        def _get_fine_grained_point_feats(self, x: list[Tensor], points: Tensor) -> Tensor:
            found = vars(made["mmseg.models.decode_heads.point_head"])["point_sample"]
            features = [found(_, points, align_corners=self.align_corners) for _ in x]
            return torch.cat(features, dim=1) if len(features) > 1 else features[0]

    class SubHead(PointHead):
        pass

    made = modules(
        mmcv__ops__point_sample={"point_sample": sample},
        mmcv__ops={"point_sample": sample},
        mmseg__models__decode_heads__point_head={"point_sample": sample, "PointHead": PointHead},
        mmseg__models={"SubHead": SubHead},
        mmdet__models__mask2former_head={"point_sample": sample},
    )
    made["mmcv"].__version__ = "2.2.0"  # type: ignore[attr-defined]
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made
