"""Faults of patches, of images of several sizes, and of what public reports were about."""

from .fault import Fault

_PATCHING = "pixelnet_triton/integrations/patching.py"
_REPLACEMENTS = "pixelnet_triton/integrations/replacements.py"
_EXTENTS = "pixelnet_triton/op/extents.py"
_CPU = "pixelnet_triton/cpu/"
_PATCHES = ("tests/integrations/patching",)
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
        "        prepared[target] = _checked(target, owner)",
        "        prepared[target] = done = _checked(target, owner)\n"
        "        done.put(done.original, done.replacement)",
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
        "return rows.masked_fill_(outside.unsqueeze(1), 0) if bool(outside.any()) else rows",
        "return rows",
        _ELSEWHERE,
    ),
)
