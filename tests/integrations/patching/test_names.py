"""`patch`: where names are replaced, that they come back, and what is refused."""

from __future__ import annotations

import sys
import threading
import time
from types import ModuleType
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor

from pixelnet_triton.integrations import patch, patching, unpatch

from ..transcribed import mmcv_point_sample
from .conftest import anew


def test_detectron2_under_every_name(detectron2: dict[str, ModuleType]) -> None:
    before = {name: dict(vars(module)) for name, module in detectron2.items()}
    with patch("detectron2") as patched:
        assert set(patched.places) == {
            "detectron2.projects.point_rend.point_features.point_sample",
            "detectron2.projects.point_rend.point_features.point_sample_fine_grained_features",
            "detectron2.projects.point_rend.mask_head.point_sample",
            "detectron2.projects.point_rend.mask_head.point_sample_fine_grained_features",
            "mask2former.modeling.matcher.point_sample",
            "mask2former.modeling.criterion.sample_points",
        }
        for place in patched.places:
            module, name = place.rsplit(".", 1)
            assert getattr(detectron2[module], name) is not before[module][name]
    assert {name: dict(vars(module)) for name, module in detectron2.items()} == before


def test_what_is_imported_while_patched_is_undone_too(
    detectron2: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    defining = detectron2["detectron2.projects.point_rend.point_features"]
    original = vars(defining)["point_sample"]
    patched = patch("detectron2")
    late = ModuleType("late")
    vars(late)["point_sample"] = vars(defining)["point_sample"]
    monkeypatch.setitem(sys.modules, "late", late)
    assert vars(late)["point_sample"] is not original
    patched.undo()
    patched.undo()  # again is no error
    assert vars(late)["point_sample"] is original


def test_a_patch_within_a_patch_undoes_nothing_of_the_outer_one(
    mmseg: dict[str, ModuleType],
) -> None:
    ops = vars(mmseg["mmcv.ops"])
    original = ops["point_sample"]
    patch("mmcv")
    ours = ops["point_sample"]
    with patch("mmcv") as again, patch("mmseg") as head:
        assert again.places == ()
        (place,) = head.places
        assert place.endswith("PointHead._get_fine_grained_point_feats")
    assert ops["point_sample"] is ours
    unpatch("mmcv")
    assert ops["point_sample"] is original


def test_the_last_of_several_patches_puts_back(mmseg: dict[str, ModuleType]) -> None:
    ops = vars(mmseg["mmcv.ops"])
    original = ops["point_sample"]
    first, second = patch("mmcv"), patch("mmcv")
    first.undo()
    first.undo()  # again: it holds nothing that is the other's
    assert ops["point_sample"] is not original
    second.undo()
    assert ops["point_sample"] is original


def test_a_package_undoes_its_own_alone(mmseg: dict[str, ModuleType]) -> None:
    """PointHead's samples stand on mmcv's function, which mmseg's patch holds, too."""
    ops = vars(mmseg["mmcv.ops"])
    original = ops["point_sample"]
    patch("mmseg")
    patch("mmcv")
    unpatch("mmcv")
    assert ops["point_sample"] is not original
    unpatch("mmseg")
    assert ops["point_sample"] is original


def test_a_patch_is_entered_again_and_within_itself(mmseg: dict[str, ModuleType]) -> None:
    ops = vars(mmseg["mmcv.ops"])
    original = ops["point_sample"]
    patched = patch("mmcv")
    for _ in range(2):
        with patched:
            with patched:
                pass
            assert ops["point_sample"] is not original
        assert ops["point_sample"] is original


def test_a_module_that_was_loaded_anew_is_patched_again(mmseg: dict[str, ModuleType]) -> None:
    defining, ops = vars(mmseg["mmcv.ops.point_sample"]), vars(mmseg["mmcv.ops"])
    original = ops["point_sample"]
    with patch("mmcv"):
        defining["point_sample"] = loaded_anew = anew(mmcv_point_sample)
        with patch("mmcv") as again:
            assert again.places == ("mmcv.ops.point_sample.point_sample",)
    assert defining["point_sample"] is loaded_anew
    assert ops["point_sample"] is original


def test_one_thread_patches_while_another_undoes(
    mmseg: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    ops, put, undoing = vars(mmseg["mmcv.ops"]), patching._Replacement.put, threading.Event()
    original = ops["point_sample"]
    first = patch("mmcv")

    def slowly(*args: Any) -> list[str]:
        undoing.set()
        time.sleep(0.05)  # in which the other would take the replacement for an original
        return put(*args)

    monkeypatch.setattr(patching._Replacement, "put", slowly)
    thread = threading.Thread(target=first.undo)
    thread.start()
    undoing.wait()
    second = patch("mmcv")
    thread.join()
    assert ops["point_sample"] is not original
    second.undo()
    assert ops["point_sample"] is original


def test_mmcv_reaches_mmseg_and_mmdet(mmseg: dict[str, ModuleType]) -> None:
    with patch("mmcv") as patched:
        assert set(patched.places) == {
            "mmcv.ops.point_sample.point_sample",
            "mmcv.ops.point_sample",
            "mmseg.models.decode_heads.point_head.point_sample",
            "mmdet.models.mask2former_head.point_sample",
        }


# Refused


def test_unknown_packages() -> None:
    for call in (patch, unpatch):
        with pytest.raises(
            ValueError, match=r"package='mmdet' is unknown; use one of \('detectron2'"
        ):
            call("mmdet")


def test_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(
        ImportError, match=r"found none of detectron2\.projects.*install detectron2"
    ):
        patch("detectron2")


def test_mmcv_alone_is_no_mmseg(
    mmseg: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = vars(mmseg["mmcv.ops"])["point_sample"]
    monkeypatch.setitem(sys.modules, "mmseg.models.decode_heads.point_head", None)
    with pytest.raises(ImportError, match=r"found none of mmseg\.models.*install mmseg"):
        patch("mmseg")
    assert vars(mmseg["mmcv.ops"])["point_sample"] is original


def other_signature(input: Tensor, point_coords: Tensor, scale: float, **kwargs: Any) -> Tensor:
    return input


def mmcv_2_with_grids_in_place_of_points(
    input: Tensor, points: Tensor, align_corners: bool = False, **kwargs: Any
) -> Tensor:
    return F.grid_sample(input, points[:, :, None], align_corners=align_corners)[..., 0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            other_signature,
            r"mmcv\.ops\.point_sample\.point_sample \(mmcv 2\.2\.0\) has the signature .*scale: "
            r".*expected \(input, points, align_corners, \*\*kwargs\)\. This version is not known",
        ),
        (mmcv_2_with_grids_in_place_of_points, "in a trial; expected bilinear samples"),
        (None, "point_sample .* does not exist"),
    ],
    ids=["signature", "values", "absent"],
)
def test_versions_that_are_not_known(
    mmseg: dict[str, ModuleType], function: Any, message: str
) -> None:
    """Nothing is replaced then, of the head neither."""
    vars(mmseg["mmcv.ops.point_sample"])["point_sample"] = function
    head = vars(mmseg["mmseg.models.decode_heads.point_head"])["PointHead"]
    before = head._get_fine_grained_point_feats
    with pytest.raises(RuntimeError, match=message):
        patch("mmseg")
    assert head._get_fine_grained_point_feats is before
    assert vars(mmseg["mmcv.ops.point_sample"])["point_sample"] is function
