"""Faults of the CPU back end."""

from .fault import Fault

_CALLS = ("tests/test_sparse_hypercolumn.py",)
_ROUTES = ("tests/test_cpu_routes.py",)
_WORK = ("tests/test_cpu_work.py",)
_HALF = ("tests/test_cpu_half_precision.py",)
_DENSE = ("tests/test_inference.py",)
_LISTS = ("tests/test_cpu_lists.py",)
_ACCURACY = ("tests/test_cpu_accuracy.py",)
_CELLS = ("tests/test_exact_cells.py",)
_BAD_NUMBERS = ("tests/test_bad_numbers.py",)
_CPU = "pixelnet_triton/cpu/"

FAULTS = (
    Fault(
        "a-bad-gradient-outside",
        _CPU + "reading.py",
        "return columns if outside is None else columns.masked_fill(outside, 0)",
        "return columns",
        _BAD_NUMBERS,
    ),
    Fault(
        "a-bad-gradient-outside-projected",
        _CPU + "bags.py",
        "order, index = order[weighs[order]], index[weighs]",
        "pass",
        _BAD_NUMBERS,
    ),
    Fault(
        "slopes-in-the-gradient-of-maps",
        _CPU + "layers.py",
        "corners, cells = reading.stacked_corners(layers), self._pieces",
        "corners, cells = reading.stacked_corners(layers, slopes=True), self._pieces",
        _BAD_NUMBERS,
    ),
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
        "pixelnet_triton/call/placing.py",
        "np.ceil(inside, out=high)",
        "high[:] = low",
        _CALLS,
    ),
    Fault(
        "slope-on-the-border",
        _CPU + "locating.py",
        "moving = (t > 0)",
        "moving = (t >= 0)",
        _ROUTES,
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
        "narrow-products-unfilled",
        _CPU + "products.py",
        "return TILE if left.numel() >= worth else columns",
        "return columns",
        _ACCURACY,
    ),
    Fault(
        "narrow-expressions-unfilled",
        _CPU + "expression.py",
        "more = width(rows, out_features) - out_features",
        "more = 0",
        _ACCURACY,
    ),
    Fault(
        "low-products-unfilled",
        _CPU + "products.py",
        "return -(-rows // ROWS) * ROWS",
        "return rows",
        _ACCURACY,
    ),
    Fault(
        "filled-products-overwrite",
        _CPU + "products.py",
        "        torch.add(onto, product, out=out)\n",
        "        out.copy_(product)\n",
        _ACCURACY,
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
        "self.bias if layer == self.interpolated[0] else None",
        "None",
        _DENSE,
    ),
    Fault(
        "backward-flops-uncounted",
        _CPU + "layer_work.py",
        "work = self._products(i, 2 * shape.points)",
        "work = self._products(i, shape.points)",
        _WORK,
    ),
    Fault("blocks-uncounted", _CPU + "layer_work.py", "(4 + 8 * self.blocks)", "(4 + 8)", _WORK),
)
