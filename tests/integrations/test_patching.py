"""`patch`: transformers as it is installed; detectron2, mmcv and mmseg as stand-ins.

The stand-ins are modules of the same names, with the functions as they stand there, imported from
one another in the same ways. A patched call gives the value and gradients of the original.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelnet_triton.integrations import patch, replacements, unpatch
from pixelnet_triton.integrations.patching import _ACTIVE

from ..conftest import takes_float64
from .test_point_sample import Boxes, detectron2_fine_grained, detectron2_point_sample

PACKAGES = ("detectron2", "mmcv", "mmseg", "transformers")


@pytest.fixture(autouse=True)
def _nothing_stays_patched() -> Iterator[None]:
    yield
    for package in PACKAGES:
        unpatch(package)
    assert not _ACTIVE


# Stand-ins. The functions are made anew for each test, so that none is found patched.


def mmcv_point_sample() -> Callable[..., Tensor]:
    def point_sample(
        input: Tensor, points: Tensor, align_corners: bool = False, **kwargs: Any
    ) -> Tensor:
        add_dim = points.dim() == 3
        if add_dim:
            points = points.unsqueeze(2)
        output = F.grid_sample(input, points * 2.0 - 1.0, align_corners=align_corners, **kwargs)
        return output.squeeze(3) if add_dim else output

    return point_sample


def new_point_sample() -> Callable[..., Tensor]:
    def point_sample(input: Tensor, point_coords: Tensor, **kwargs: Any) -> Tensor:
        return detectron2_point_sample(input, point_coords, **kwargs)

    return point_sample


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
    sample = new_point_sample()

    def point_sample_fine_grained_features(
        features_list: Any, feature_scales: Any, boxes: Any, point_coords: Any
    ) -> Any:
        return detectron2_fine_grained(features_list, feature_scales, boxes, point_coords)

    functions = {
        "point_sample": sample,
        "point_sample_fine_grained_features": point_sample_fine_grained_features,
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
    sample = mmcv_point_sample()

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


def some_map(channels: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    feature = torch.randn(2, channels, 6, 8, generator=random)
    return feature, 1.2 * torch.rand(2, 40, 2, generator=random) - 0.1


def value_and_gradients(function: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    value = function(*leaves)
    weights = torch.linspace(-1, 1, value.numel()).reshape(value.shape)
    return [value.detach(), *torch.autograd.grad((value * weights).sum(), leaves)]


# Where names are replaced, and that they come back


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


def test_mmcv_reaches_mmseg_and_mmdet(mmseg: dict[str, ModuleType]) -> None:
    with patch("mmcv") as patched:
        assert set(patched.places) == {
            "mmcv.ops.point_sample.point_sample",
            "mmcv.ops.point_sample",
            "mmseg.models.decode_heads.point_head.point_sample",
            "mmdet.models.mask2former_head.point_sample",
        }


# Values


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


# transformers, the installed package


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


def test_a_model_that_cannot_be_imported_does_not_keep_others_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setitem(sys.modules, "transformers.models.videomt.modeling_videomt", None)
    with patch("transformers") as patched:
        assert "transformers.models.eomt.modeling_eomt.sample_point" in patched.places
        assert not any("videomt" in place for place in patched.places)


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
