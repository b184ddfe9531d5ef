"""Faults of patches, of images of several sizes, and of what public reports were about."""

from .fault import Fault

_PATCHING = "pixelnet_triton/integrations/patching.py"
_REPLACEMENTS = "pixelnet_triton/integrations/replacements.py"
_LINEAR = "pixelnet_triton/integrations/linear.py"
_POINT_SAMPLE = "pixelnet_triton/integrations/point_sample.py"
_EXPORT = "pixelnet_triton/integrations/export.py"
_EXTENTS = "pixelnet_triton/op/extents.py"
_CPU = "pixelnet_triton/cpu/"
_PATCHES = ("tests/integrations/patching",)
_HEADS = ("tests/integrations/test_heads.py",)
_SAMPLES = ("tests/integrations/test_point_sample.py",)
_EXPORTED = ("tests/integrations/test_exported_calls.py",)
_SIZES = ("tests/test_image_sizes.py",)
_ELSEWHERE = ("tests/test_seen_elsewhere.py",)

FAULTS = (
    Fault(
        "patched-in-the-defining-module-alone",
        _PATCHING,
        "            if isinstance(module, ModuleType)\n",
        "            if module is self.owner\n",
        _PATCHES,
    ),
    Fault(
        "patched-before-all-is-checked",
        _PATCHING,
        "target: _checked(target, owner)\n",
        "target: (d := _checked(target, owner), d.put(d.original, d.replacement))[0]\n",
        _PATCHES,
    ),
    Fault(
        "other-values-accepted",
        _PATCHING,
        "if not torch.allclose(came, expected, rtol=1e-4, atol=1e-4):",
        "if came.shape != expected.shape:",
        _PATCHES,
    ),
    Fault(
        "patches-of-others-undone",
        _PATCHING,
        "for target in set(self._targets) - held:",
        "for target in set(self._targets) & set(_ACTIVE):",
        _PATCHES,
    ),
    Fault(
        "patches-undone-for-good",
        _PATCHING,
        "            self._hold()\n            self._entered += 1\n",
        "            self._entered += 1\n",
        _PATCHES,
    ),
    Fault(
        "left-once-left-for-good",
        _PATCHING,
        "            if not self._entered:\n",
        "            if True:\n",
        _PATCHES,
    ),
    Fault(
        "modules-loaded-anew-forgotten",
        _PATCHING,
        "if getattr(owner, target.attribute, None)\n"
        "                not in [done.replacement for done in _ACTIVE.get(target, ())]",
        "if target not in _ACTIVE",
        _PATCHES,
    ),
    Fault(
        "patched-by-two-threads-at-once",
        _PATCHING,
        "_LOCK = threading.RLock()",
        'from contextlib import nullcontext\n\n_LOCK = nullcontext("none")',
        _PATCHES,
    ),
    Fault(
        "half-coordinates-served",
        _REPLACEMENTS,
        "points.dtype not in (torch.float32, torch.float64)",
        "not points.is_floating_point()",
        _PATCHES,
    ),
    Fault(
        "align-corners-of-mmcv-forgotten",
        _REPLACEMENTS,
        "point_sample(input, points, align_corners, **kwargs)",
        "point_sample(input, points, **kwargs)",
        _PATCHES,
    ),
    Fault(
        "pruned-bias-stale",
        _LINEAR,
        'for name in ("weight", "bias"):',
        'for name in ("weight",):',
        _HEADS,
    ),
    Fault(
        "parametrisations-evaluated-by-the-check",
        _LINEAR,
        'module._parameters.get("weight"), nn.',
        "module.weight, nn.",
        _HEADS,
    ),
    Fault(
        "unknown-options-at-the-first-step",
        _LINEAR,
        "            if name not in _OPTIONS:",
        "            if not name:",
        _HEADS,
    ),
    Fault(
        "hooks-of-the-point-head-silent",
        "pixelnet_triton/integrations/point_head.py",
        '        warn_of_hooks(self.fc_seg, "fc_seg", self)\n',
        "",
        _HEADS,
    ),
    Fault(
        "warned-of-a-line-of-torch",
        _LINEAR,
        "stacklevel=5,",
        "stacklevel=2,",
        _HEADS,
    ),
    Fault(
        "maps-of-the-point-head-in-any-order",
        "pixelnet_triton/integrations/point_head.py",
        "        check_channels(features, self.in_channels)\n",
        "",
        _HEADS,
    ),
    Fault(
        "labels-become-floats-under-autocast",
        _POINT_SAMPLE,
        "if not widest.is_floating_point:",
        "if False:",
        _SAMPLES,
    ),
    Fault(
        "half-results-of-autocast-on-the-cpu",
        _POINT_SAMPLE,
        'if device == "cpu":',
        'if device == "meta":',
        _SAMPLES,
    ),
    Fault(
        "maps-looked-at-before-they-are-checked",
        _POINT_SAMPLE,
        "    check_maps(features)\n",
        "",
        _SAMPLES,
    ),
    Fault(
        "boxes-counted-by-a-value",
        _POINT_SAMPLE,
        "image[:, None].expand(count, points_per_box).reshape(-1)",
        "torch.arange(len(boxes)).repeat_interleave(torch.tensor([len(b) for b in per_image]))"
        ".repeat_interleave(points_per_box)",
        _SAMPLES,
    ),
    Fault(
        "boxes-without-points",
        _POINT_SAMPLE,
        "rows.unflatten(0, (count, points_per_box))",
        "rows.unflatten(0, (-1, points_per_box))",
        _SAMPLES,
    ),
    Fault(
        "exported-nothing-times-infinity",
        _EXPORT,
        "values.masked_fill((share == 0)[:, None], 0) * share",
        "values * share",
        _EXPORTED,
    ),
    Fault(
        "the-number-of-images-a-constant",
        _EXTENTS,
        "points.shape[0] != sizes.shape[0]",
        "points.shape[0] != len(sizes)",
        _EXPORTED,
    ),
    Fault(
        "rows-of-columns",
        _EXTENTS,
        "counts.append((exact - SLACK)",
        "counts.insert(0, (exact - SLACK)",
        _SIZES,
    ),
    Fault("cells-rounded-down", _EXTENTS, "(exact - SLACK).ceil()", "exact.floor()", _SIZES),
    Fault(
        "the-cell-after-the-last",
        _EXTENTS,
        "feature.gather(axis, (count - 1)",
        "feature.gather(axis, count.clamp(max=feature.shape[axis] - 1)",
        _SIZES,
    ),
    Fault("height-for-width", _EXTENTS, "extent = sizes.flip(1)", "extent = sizes", _SIZES),
    Fault(
        "far-points-infinite",
        _EXTENTS,
        "torch.where(share.isfinite(), share.clamp(-FAR, FAR), share)",
        "share",
        _SIZES,
    ),
    Fault(
        "nothing-times-infinity",
        _CPU + "corners.py",
        "return rows if outside is None else rows.masked_fill_(outside, 0)",
        "return rows",
        _ELSEWHERE,
    ),
)
