"""Faults of the core: call, op, planner, the CPU back end."""

from .fault import Fault

_KNOWN = ("tests/test_known_calls.py",)
_CALLS = ("tests/test_sparse_hypercolumn.py",)
_REFERENCE = ("tests/test_reference.py", "tests/test_sparse_hypercolumn.py")
_INPUTS = tuple(f"tests/test_bad_{what}.py" for what in ("inputs", "points", "options"))
_OPERATORS = ("tests/test_operators.py",)
_DERIVATIVES = ("tests/test_more_derivatives.py",)
_PLANNER = ("tests/test_planner.py", "tests/test_cost_model.py")
_PROFILES = ("tests/test_device_profiles.py",)
_ROUTES = ("tests/test_cpu_routes.py",)
_WORK = ("tests/test_cpu_work.py",)
_HALF = ("tests/test_cpu_half_precision.py",)
_DENSE = ("tests/test_inference.py",)
_LISTS = ("tests/test_cpu_lists.py",)
_GRIDS = ("tests/test_grids.py",)
_ACCURACY = ("tests/test_cpu_accuracy.py",)
_CELLS = ("tests/test_exact_cells.py",)

_GEOMETRY = "pixelnet_triton/call/geometry.py"
_CHECKS = "pixelnet_triton/call/checks.py"
_PREPARE = "pixelnet_triton/op/prepare.py"
_EAGER = "pixelnet_triton/op/eager.py"
_CPU = "pixelnet_triton/cpu/"

FAULTS = (
    # call/
    Fault(
        "pixel-centres-at-halves",
        _GEOMETRY,
        "return ratio, 0.5 * ratio - 0.5",
        "return ratio, 0.0",
        _CALLS,
    ),
    Fault(
        "strides-exchanged",
        _GEOMETRY,
        "stride_y, stride_x = stride if",
        "stride_x, stride_y = stride if",
        _CALLS,
    ),
    Fault("unit-coordinates-from-centres", _GEOMETRY, "(extent, -0.5)", "(extent, 0.0)", _CALLS),
    Fault(
        "aligned-corners-of-the-edges",
        _GEOMETRY,
        "(last / (pixels - 1), 0.0)",
        "(last / pixels, 0.0)",
        _CALLS,
    ),
    Fault(
        "grids-of-edges-alone",
        "pixelnet_triton/call/grids.py",
        "    for aligned in (False, True):\n        # A single",
        "    for aligned in (False,):\n        # A single",
        _GRIDS,
    ),
    Fault(
        "between-pixels-in-float32",
        _PREPARE,
        "own or (not s.points.is_floating_point() and integers",
        "own or (integers",
        _GRIDS + _ACCURACY,
    ),
    Fault(
        "exact-whatever-the-scale",
        _GEOMETRY,
        "return whole and not points.is_floating_point()",
        "return not points.is_floating_point()",
        _ROUTES,
    ),
    Fault(
        "last-cell-reads-beyond-the-map",
        "pixelnet_triton/call/placing.py",
        "low = low.clamp(max=last_low)",
        "pass",
        _CALLS,
    ),
    Fault("image-B-let-through", _CHECKS, "high >= batch", "high > batch", _INPUTS),
    Fault(
        "points-not-finite",
        _CHECKS,
        "        and not torch.isfinite(points).all()\n",
        "        and False\n",
        _INPUTS,
    ),
    Fault(
        "bias-not-checked", _CHECKS, "bias.shape != weight.shape[:-1]", "bias.dim() < 1", _INPUTS
    ),
    Fault(
        "buckets-round-down", "pixelnet_triton/call/shape.py", "(1 << shift >> 1)", "0", _PLANNER
    ),
    # op/
    Fault(
        "autocast-forgotten-by-known-calls",
        _PREPARE,
        "        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),\n",
        "",
        _OPERATORS,
    ),
    Fault(
        "layout-forgotten-by-known-calls",
        _PREPARE,
        "facts += (feature.shape, feature.stride(), feature.dtype, place)",
        "facts += (feature.shape, feature.dtype, place)",
        _KNOWN,
    ),
    Fault(
        "layout-forgotten-by-known-operators",
        "pixelnet_triton/op/registration.py",
        "(f.shape, f.stride(), f.dtype, f.device)",
        "(f.shape, f.dtype, f.device)",
        _KNOWN,
    ),
    Fault(
        "geometry-forgotten-by-known-operators",
        "pixelnet_triton/op/registration.py",
        "head, s.geometry, plan, training",
        "head, plan, training",
        _KNOWN,
    ),
    Fault(
        "memories-without-end",
        "pixelnet_triton/op/known.py",
        "            self.clear()\n",
        "            pass\n",
        _KNOWN,
    ),
    Fault(
        "determinism-forgotten-by-known-calls",
        _PREPARE,
        "        torch._C._get_deterministic_algorithms(),\n",
        "",
        _PROFILES,
    ),
    Fault(
        "strides-forgotten-by-known-calls",
        _PREPARE,
        "return (tuple(image_size), tuple(strides), kinds) if",
        "return (tuple(image_size), kinds) if",
        _KNOWN,
    ),
    Fault(
        "gelu-within-the-operator",
        _PREPARE,
        'options.activation == "gelu" and training and not by_autograd',
        "False",
        _OPERATORS,
    ),
    Fault(
        "weight-and-bias-exchanged", _EAGER, "needs[2], needs[3])", "needs[3], needs[2])", _CALLS
    ),
    Fault(
        "second-derivative-without-the-mask",
        "pixelnet_triton/op/twice.py",
        "of.grad * (of.output > 0)",
        "of.grad",
        _DERIVATIVES,
    ),
    Fault(
        "vectors-seen-as-one-gradient",
        _EAGER,
        "if hides_vectors(grads[0]):",
        "if False:",
        _DERIVATIVES,
    ),
    Fault(
        "mask-not-kept",
        _EAGER,
        'mask = output if call.activation == "relu" else None',
        "mask = None",
        _CALLS,
    ),
    Fault(
        "gradient-of-no-points-missing",
        "pixelnet_triton/op/compute.py",
        "torch.zeros_like(head.weight) if head is not None and wanted.weight else None",
        "None",
        _CALLS,
    ),
    Fault(
        "values-not-checked",
        "pixelnet_triton/op/compute.py",
        "    check_values(s.points, s.batch_index, s.batch)\n",
        "",
        _INPUTS,
    ),
    # planner/
    Fault(
        "products-four-times-slower",
        "pixelnet_triton/planner/profiles.py",
        "dense_flops_32=287e9",
        "dense_flops_32=72e9",
        _PLANNER,
    ),
    Fault(
        "products-four-times-faster",
        "pixelnet_triton/planner/profiles.py",
        "dense_flops_32=287e9",
        "dense_flops_32=1148e9",
        _PLANNER,
    ),
    Fault(
        "auto-gathers-always",
        "pixelnet_triton/planner/choose.py",
        "return model.routed(model.cheapest())",
        'return model.routed(model.cheapest_of_kind("gather"))',
        _PLANNER,
    ),
    Fault(
        "search-from-one-end",
        "pixelnet_triton/planner/cost.py",
        '[kind] if kind else ["gather", "project"]',
        '[kind] if kind else ["gather"]',
        _PLANNER,
    ),
    Fault(
        "calibrated-in-deterministic-runs",
        "pixelnet_triton/planner/choose.py",
        "shipped_only=alike",
        "shipped_only=False",
        _PROFILES,
    ),
    Fault(
        "threads-do-not-scale",
        "pixelnet_triton/call/profile.py",
        "getattr(self, n) * factor",
        "getattr(self, n)",
        _PROFILES,
    ),
    Fault(
        "named-plans-keep",
        "pixelnet_triton/planner/choose.py",
        'return asked == "auto"',
        "return True",
        _KNOWN,
    ),
    # cpu/
    Fault(
        "expressions-without-bound",
        _CPU + "routes.py",
        "return converted <= KEPT_CONVERTED",
        "return True",
        _ROUTES + _HALF,
    ),
    Fault(
        "nearest-by-grid-sample",
        _CPU + "routes.py",
        "not (plan.projected or shape.nearest)",
        "not plan.projected",
        _ROUTES + _CALLS,
    ),
    Fault(
        "maps-not-enlarged",
        _CPU + "sampled.py",
        "pad(feature, (0, right, 0, below)) if right or below else feature",
        "feature",
        _CELLS,
    ),
    Fault(
        "uneven-images-in-their-order",
        _CPU + "expression.py",
        "torch.cat(rows).index_select(0, order.argsort())",
        "torch.cat(rows)",
        _ROUTES,
    ),
    Fault(
        "zeros-behind-the-border",
        _CPU + "sampled.py",
        "u = torch.minimum(u, self.last)",
        "pass",
        _CALLS,
    ),
    Fault(
        "picked-in-all-images-at-once",
        _CPU + "picked.py",
        "in_image=not self.rows",
        "in_image=True",
        _ROUTES,
    ),
    Fault(
        "picked-infinity-outside",
        _CPU + "picked.py",
        "if bool(outside.any()):",
        "if False:",
        _CELLS,
    ),
    Fault(
        "picked-images-not-in-order",
        _CPU + "picked.py",
        "weight = weight.mT.view(by_corner).transpose(1, 2).unsqueeze(2)",
        "weight = weight.mT.reshape(layers, batch, 4, -1).unsqueeze(2)",
        _ROUTES,
    ),
    Fault(
        "views-picked",
        _CPU + "routes.py",
        "layer.dense and not (coarse",
        "not (coarse",
        _ROUTES,
    ),
    Fault(
        "torch-coordinates-picked",
        _CPU + "routes.py",
        "(coarse or shape.torch_coordinates)",
        "coarse",
        _ROUTES,
    ),
    Fault(
        "half-precision-picked-in-training",
        _CPU + "routes.py",
        "coarse = shape.itemsize < 4 and shape.training",
        "coarse = False",
        _ROUTES,
    ),
    Fault(
        "picking-not-counted",
        _CPU + "work.py",
        "Work(operators=picking_operators(self.shape, route))",
        "Work()",
        _WORK,
    ),
    Fault(
        "torch-coordinates-not-bounded",
        _CPU + "grid_sample.py",
        "        if self.bounded:\n            g = g.clamp(-FAR, FAR)\n",
        "        g = g.clamp(-1, 1)\n",
        _ACCURACY,
    ),
    Fault(
        "corners-without-the-right",
        _CPU + "corners.py",
        "np.minimum(last, 1) if border",
        "np.zeros_like(last) if border",
        _CALLS,
    ),
    Fault(
        "slope-on-the-border", _CPU + "corners.py", "moving = (t > 0)", "moving = (t >= 0)", _ROUTES
    ),
    Fault(
        "cells-sorted-by-16-bits-always",
        _CPU + "bags.py",
        "if cells <= SHORT:",
        "if True:",
        _LISTS,
    ),
    Fault(
        "sort-not-stable",
        _CPU + "bags.py",
        "index.sort(stable=True)",
        "index.sort(stable=True, descending=True)",
        _LISTS,
    ),
    Fault(
        "mask-lets-zeros-through",
        _CPU + "products.py",
        "torch.ops.aten.threshold_backward.default(piece, output, 0)",
        "piece",
        _CALLS,
    ),
    Fault(
        "products-overwrite",
        _CPU + "products.py",
        "        torch.addmm(onto, left, right, out=out)\n",
        "        torch.mm(left, right, out=out)\n",
        _CALLS,
    ),
    Fault(
        "bias-of-every-layer",
        _CPU + "layers.py",
        "bias if piece.layer == pieces[0].layer else None",
        "bias",
        _CALLS,
    ),
    Fault(
        "weight-gradient-of-the-last-part",
        _CPU + "layers.py",
        "onto = None if points.start == 0 else out",
        "onto = None",
        _HALF + _CALLS,
    ),
    Fault(
        "planes-without-weights",
        _CPU + "planes.py",
        ".mul_(group.weight).sum(2)",
        ".sum(2)",
        _ROUTES,
    ),
    Fault(
        "dense-shares-exchanged",
        _CPU + "dense.py",
        "weight[..., 2 * n], weight[..., 2 * n + 1] = 1 - x.upper, x.upper",
        "weight[..., 2 * n], weight[..., 2 * n + 1] = x.upper, 1 - x.upper",
        _DENSE,
    ),
    Fault(
        "dense-bias-missing",
        _CPU + "dense.py",
        "projected = torch.addmm(self.bias, cells, right)",
        "projected = cells @ right",
        _DENSE,
    ),
    Fault(
        "backward-flops-uncounted",
        _CPU + "work.py",
        "work = self._products(i, 2 * shape.points)",
        "work = self._products(i, shape.points)",
        _WORK,
    ),
    Fault("blocks-uncounted", _CPU + "work.py", "(4 + 8 * self.blocks)", "(4 + 8)", _WORK),
)
