"""Faults of the kernels and of the GPU back end.

Noticed in Triton's interpreter.
"""

from .fault import Fault

_GATE = "tests/gate/test_"
_CASES = ("tests/interpreter/test_cases.py::test_values_and_gradients",)
_SPECIAL = ("tests/interpreter/test_special_cases.py",)
_POSITIONS = (_GATE + "positions.py",)
_ROUTES = ("tests/interpreter/test_routes.py",)
_BETWEEN = ("tests/interpreter/test_between_passes.py",)
_LIMITS = ("tests/interpreter/test_limits.py",)
_ORDER = (_GATE + "order.py::test_the_order_is_stable_and_by_image_and_bin",)
_WINDOW = (_GATE + "order.py::test_a_window_holds_all_that_touch_its_rows",)
_SPREAD = (_GATE + "order.py::test_bad_gradients_stay_with_the_cells_that_see_them",)
_SCATTER = (_GATE + "tiles.py::test_scatter",)
_ROWS = (_GATE + "tiles.py::test_rows",)
_MASKED = (_GATE + "tiles.py::test_masked",)
_BANDED = (_GATE + "banded.py::test_values",)
_ROOM = (_GATE + "bands.py::test_bands_keep_apart_wherever_maps_and_points_lie",)
_BAD_MAPS = (_GATE + "banded.py::test_bad_numbers_of_a_map_stay_with_the_points_that_see_them",)

_BAD = (_GATE + "bad_numbers.py",)

_STEPS = "pixelnet_triton/gpu/steps.py"
_BACKWARD = "pixelnet_triton/gpu/backward.py"
_GPU_BACKEND = "pixelnet_triton/gpu/backend.py"
_GPU_ROUTES = "pixelnet_triton/gpu/routes.py"

FAULTS = (
    Fault(
        "float32-always-in-tf32",
        "kernels/launch.py",
        'return "tf32" if tf32 and _allows_tf32() and _has_tf32() else "ieee"',
        'return "tf32"',
        _SPECIAL,
    ),
    Fault(
        "positions-by-a-reciprocal",
        "kernels/bilinear.py",
        "tl.div_rn(value, c)",
        "value * (1.0 / c)",
        _POSITIONS,
    ),
    Fault(
        "quotients-not-divided",
        "kernels/launch.py",
        "any(c != 1 for",
        "any(c > 99 for",
        _POSITIONS,
    ),
    Fault(
        "double-coordinates-overflow",
        "kernels/bilinear.py",
        'tl.where(tl.abs(x) < float("inf"), within, x)',
        "x",
        _POSITIONS,
    ),
    Fault(
        "kernel-slope-on-the-border",
        "kernels/bilinear.py",
        "inside = (t > 0.0)",
        "inside = (t >= 0.0)",
        _SPECIAL,
    ),
    Fault(
        "kernel-ties-upwards",
        "kernels/bilinear.py",
        "(up - t == 0.5) & (odd == 1.0)",
        "(up - t == 0.5) & (odd == 2.0)",
        _SPECIAL,
    ),
    Fault(
        "kernel-marks-missing",
        "kernels/bilinear.py",
        'tl.where(valid, 0.0, float("nan"))',
        "tl.where(valid, 0.0, 0.0)",
        _LIMITS,
    ),
    # The order of the points.
    Fault(
        "order-not-stable",
        "kernels/order.py",
        "(m[None, :] < m[:, None])",
        "(m[None, :] > m[:, None]) & (m[None, :] < total)",
        _ORDER,
    ),
    Fault(
        "bins-begin-where-they-end",
        "kernels/order.py",
        "spaces, before + lower)",
        "spaces, before + lower + every)",
        _ORDER,
    ),
    Fault(
        "order-without-images",
        "kernels/order.py",
        "image.to(tl.int32) * SPACES + bin",
        "bin",
        _ORDER,
    ),
    Fault(
        "window-of-half-a-row",
        "kernels/ruler.py",
        "margin = factor * reach + SLACK",
        "margin = 0.5 * factor * reach + SLACK",
        _WINDOW,
    ),
    Fault(
        "windows-of-whole-pixels-wide",
        "kernels/ruler.py",
        "            reach = 0.0\n",
        "            pass\n",
        (_GATE + "order.py::test_whole_pixels_of_a_full_map_have_one_bin_a_row",),
    ),
    # The band, and the mask before it.
    Fault(
        "runs-end-early",
        "kernels/band.py",
        "end = tl.load(bins + high.to(tl.int32) + 1)",
        "end = tl.load(bins + high.to(tl.int32))",
        _SCATTER,
    ),
    Fault(
        "last-points-of-runs-repeated",
        "kernels/band.py",
        "    ty = tl.where(k < end, ty, -8.0)\n",
        "",
        _SCATTER,
    ),
    Fault(
        "band-weights-of-the-other-axis",
        "kernels/band.py",
        "s = hat(tx[None, :], column",
        "s = hat(ty[None, :], column",
        _SCATTER,
    ),
    Fault(
        "outermost-rows-take-their-own",
        "kernels/band.py",
        "tl.where(last >= size[0] - 1, last_bin, ",
        "tl.where(last >= 2 * size[0] + 128, last_bin, ",
        (_GATE + "order.py::test_outermost_rows_take_what_lies_beyond_them",),
    ),
    Fault(
        "bad-gradients-spread",
        "kernels/band.py",
        "if all_finite(acc):",
        "if all_finite(tl.zeros_like(acc)):",
        _SPREAD,
    ),
    Fault(
        "bad-gradients-times-zero",
        "kernels/careful.py",
        "weighed(s.to(value.dtype).to(tl.float32), value.to(tl.float32))",
        "s.to(value.dtype).to(tl.float32) * value.to(tl.float32)",
        _SPREAD,
    ),
    Fault(
        "careful-cells-in-one-row",
        "kernels/careful.py",
        "row = first_row + cell // WIDTH",
        "row = first_row",
        _SPREAD,
    ),
    Fault("mask-keeps-zeros", "kernels/mask.py", ") <= 0.0", ") < 0.0", _MASKED),
    Fault(
        "mask-takes-nan",
        "kernels/mask.py",
        "tl.where(y.to(tl.float32) <= 0.0, 0.0, g)",
        "tl.where(y.to(tl.float32) > 0.0, g, 0.0)",
        _MASKED,
    ),
    Fault(
        "mask-reads-one-block-again",
        "kernels/mask.py",
        "tl.load(place + after + BLOCK_P, after + BLOCK_P < total, 0)",
        "tl.load(place + after, after < total, 0)",
        (_GATE + "tiles.py::test_every_share_of_many_points",),
    ),
    Fault(
        "bias-gradient-of-the-first-shares",
        "kernels/mask.py",
        "for start in range(0, rows, BLOCK_R):",
        "for start in range(0, BLOCK_R, BLOCK_R):",
        (_GATE + "tiles.py::test_every_share_of_many_points",),
    ),
    # The banded product.
    Fault(
        "bands-without-their-last-row",
        "kernels/entries.py",
        "tl.cdiv((high + 1 - low) * width, STEP)",
        "tl.cdiv((high - low) * width, STEP)",
        _BANDED,
    ),
    Fault(
        "bands-of-every-image",
        "kernels/entries.py",
        "            s = tl.where(own[None, :] == image[:, None], s, 0.0)\n",
        "",
        _BANDED,
    ),
    Fault(
        "weight-columns-of-other-layers",
        "kernels/left.py",
        "k + (FROM[i] - COLUMNS[i])",
        "k",
        _BANDED,
    ),
    Fault(
        "bands-that-do-not-fill-steps",
        "kernels/bands.py",
        "* size[1] + STEP - 1",
        "* size[1] + STEP // 2",
        (_GATE + "bands.py::test_bands_lie_on_rows_of_their_maps",),
    ),
    Fault(
        "bins-as-narrow-as-rows",
        "kernels/ruler.py",
        "spread = max(top, last - bottom, scale / ruler.scale)",
        "spread = max(top, last - bottom)",
        _ROOM,
    ),
    Fault(
        "bins-without-what-lies-beyond",
        "kernels/ruler.py",
        "spread = max(top, last - bottom, scale / ruler.scale)",
        "spread = scale / ruler.scale",
        _ROOM,
    ),
    Fault(
        "two-bands-share-a-row",
        "kernels/ruler.py",
        "math.ceil(spread + SLACK) + 2",
        "math.ceil(spread + SLACK)",
        _ROOM,
    ),
    Fault(
        "points-of-no-image-away-from-their-order",
        "kernels/bilinear.py",
        "tl.where(finite, y, 0.0),",
        "tl.where(valid, y, 0.0),",
        _ROOM,
    ),
    Fault("shift-of-the-band-before", "kernels/entries.py", "k < ends[i]", "k <= ends[i]", _BANDED),
    Fault(
        "rows-stay-in-order",
        "kernels/banded.py",
        "to[:, None] * D",
        "m[:, None] * D",
        _BANDED,
    ),
    Fault(
        "bad-cells-spread",
        "kernels/banded.py",
        "tl.where(sums != sums, 1 << (own & 31), 0)",
        "tl.where(sums > sums, 1 << (own & 31), 0)",
        _BAD_MAPS,
    ),
    Fault(
        "bad-cells-times-zero",
        "kernels/careful.py",
        "tl.where(k < WIDTH, a * b, weighed(a, b))",
        "a * b",
        _BAD_MAPS,
    ),
    Fault(
        "careful-columns-unshifted",
        "kernels/careful.py",
        "tl.full((), 0, tl.int64) + k + shift_of(k, ends, shifts, WIDTH)",
        "tl.full((), 0, tl.int64) + k",
        _BAD_MAPS,
    ),
    # Numbers that are not finite.
    Fault(
        "corners-of-weight-0-read",
        "kernels/bilinear.py",
        "channel, weights[j] != 0.0",
        "channel, weights[j] >= 0.0",
        _BAD,
    ),
    Fault(
        "slopes-of-0-times-infinity",
        "kernels/bilinear.py",
        "tl.where(weight != 0.0, weight * value, 0.0)",
        "weight * value",
        _BAD,
    ),
    # The first layer.
    Fault(
        "rows-added-to-nothing",
        "kernels/rows.py",
        "        if ADDS:\n            acc += tl.load",
        "        if not ADDS:\n            acc += tl.load",
        _ROWS,
    ),
    Fault(
        "points-that-are-not-there-unmarked",
        "kernels/bilinear.py",
        "wy0 * wx0 + at.mark",
        "wy0 * wx0",
        _LIMITS,
    ),
    Fault(
        "bands-count-images-from-the-first",
        "kernels/entries.py",
        "image = (at.image.to(tl.int32) - before)",
        "image = at.image.to(tl.int32)",
        _BANDED,
    ),
    Fault(
        "pieces-but-for-the-last",
        "kernels/pieces.py",
        "FILLED) + PIECE - 1) // PIECE",
        "FILLED) + 1) // PIECE",
        (_GATE + "tiles.py::test_gather",),
    ),
    Fault(
        "pieces-beyond-the-last-channel",
        "kernels/pieces.py",
        "else (c < FILLED)[None, :]\n",
        "else (c < FILLED + 1)[None, :]\n",
        (_GATE + "tiles.py::test_gather",),
    ),
    Fault(
        "rows-in-one-piece",
        "kernels/rows.py",
        "acc = sums[i] + gather_corners(",
        "acc = sums[0] + gather_corners(",
        _ROWS,
    ),
    Fault(
        "bias-added-twice",
        _STEPS,
        "product, bias = self.multiply(s.of(self.gathered), columns), None",
        "product = self.multiply(s.of(self.gathered), columns)",
        _ROUTES,
    ),
    Fault(
        "epilogue-trusted-with-nan",
        _STEPS,
        'if activation == "relu" and bias is not None and _epilogue_keeps_nan(rows):',
        'if activation == "relu" and bias is not None:',
        _ROUTES,
    ),
    Fault(
        "rows-of-other-grids",
        _STEPS,
        's.of(self.projected, maps, role="rows")',
        's.of(self.projected[::-1], maps, role="rows")',
        _CASES,
    ),
    Fault(
        "one-pass-tiles-of-few-outputs-at-full-speed",
        "pixelnet_triton/gpu/work.py",
        "AT_ONCE * widest.rows * widest.columns",
        "AT_ONCE * tile.rows * tile.columns",
        ("tests/test_gpu_planning.py",),
    ),
    # The back end.
    Fault(
        "backward-pass-under-autocast",
        "pixelnet_triton/op/compute.py",
        "    if torch.is_autocast_enabled(device):",
        "    if False:",
        _BETWEEN,
    ),
    Fault(
        "strides-of-saved-maps-forgotten",
        _GPU_BACKEND,
        "grad, output, saved=True)",
        "grad, output)",
        _BETWEEN,
    ),
    Fault(
        "gradients-of-crops-by-planes",
        "pixelnet_triton/gpu/parts.py",
        'torch.empty_like(feature, device="meta")',
        'torch.empty(feature.shape, device="meta")',
        _BETWEEN,
    ),
    Fault(
        "old-switches-of-tf32-alone",
        "kernels/launch.py",
        'if hasattr(matmul, "fp32_precision"):',
        "if False:",
        _BETWEEN,
    ),
    Fault(
        "relu-not-masked-on-a-gpu",
        _BACKWARD,
        "self.masked(grad.contiguous(), output, order.place)",
        "self.masked(grad.contiguous(), None, order.place)",
        _CASES,
    ),
    Fault(
        "weight-gradient-of-another-order",
        _BACKWARD,
        "for i in self.scattered], points)",
        "for i in self.scattered], points._replace(xy=s.points.float()))",
        _CASES,
    ),
    Fault(
        "coordinate-gradient-of-another-order",
        "pixelnet_triton/gpu/map_gradients.py",
        "gradient.index_copy_(0, order.place, found)",
        "gradient.copy_(found)",
        _CASES,
    ),
    Fault(
        "columns-of-the-weight-reversed",
        "pixelnet_triton/gpu/parts.py",
        "weight[:, s.columns[i]] for i in layers]",
        "weight[:, s.columns[i]] for i in layers[::-1]]",
        _ROUTES,
    ),
    Fault(
        "columns-of-the-scattered-weight-reversed",
        "pixelnet_triton/gpu/parts.py",
        "torch.cat([slices[part] for part in self.parts]",
        "torch.cat([slices[part] for part in self.parts[::-1]]",
        _ROUTES,
    ),
    Fault(
        "gradients-of-the-scattered-weight-reversed",
        "pixelnet_triton/gpu/parts.py",
        "for part, column in zip(self.parts, columns, strict=True):",
        "for part, column in zip(self.parts, columns[::-1], strict=True):",
        _ROUTES,
    ),
    Fault(
        "moving-points-collected",
        _GPU_BACKEND,
        "routes.scattered(self.route) if wanted.points else self.route",
        "self.route",
        _ROUTES,
    ),
    Fault(
        "many-cells-collected",
        _GPU_ROUTES,
        "if layer.cells <= cells",
        "if layer.cells >= cells",
        _ROUTES,
    ),
    Fault(
        "bands-before-hopper",
        _GPU_ROUTES,
        "        shape.tensor_loads\n        and shape",
        "        shape",
        _ROUTES,
    ),
)
