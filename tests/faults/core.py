"""Faults of the core: call, op."""

from .fault import Fault

_KNOWN = ("tests/test_known_calls.py",)
_CALLS = ("tests/test_sparse_hypercolumn.py",)
_INPUTS = tuple(f"tests/test_bad_{what}.py" for what in ("inputs", "points", "options"))
_OPERATORS = ("tests/test_operators.py",)
_DERIVATIVES = ("tests/test_more_derivatives.py",)
_PLANNER = ("tests/test_planner.py", "tests/test_cost_model.py")
_PROFILES = ("tests/test_device_profiles.py",)
_ROUTES = ("tests/test_cpu_routes.py",)
_GRIDS = ("tests/test_grids.py",)
_ACCURACY = ("tests/test_cpu_accuracy.py",)
_BAD_NUMBERS = ("tests/test_bad_numbers.py",)
_PLANS_AGREE = ("tests/test_plans_agree.py",)
_GEOMETRY = "pixelnet_triton/call/geometry.py"
_CHECKS = "pixelnet_triton/call/checks.py"
_PREPARE = "pixelnet_triton/op/prepare.py"
_EAGER = "pixelnet_triton/op/eager.py"

_LABELS = "pixelnet_triton/op/labels.py"
_PLANNING = "pixelnet_triton/planning.py"
_MODULE = ("tests/test_module.py",)

_BETWEEN = ("tests/test_between_passes.py",)

FAULTS = (
    Fault(
        "sparse-weights-like-known-ones",
        _PREPARE,
        "facts += (shape, tensor.dtype, tensor.layout, place",
        "facts += (shape, tensor.dtype, place",
        _INPUTS,
    ),
    Fault(
        "weights-always-saved",
        _EAGER,
        "unread = None if moving or any(needs[5:]) else weight",
        "unread = None",
        _BETWEEN,
    ),
    Fault(
        "weights-never-saved",
        _EAGER,
        "unread = None if moving or any(needs[5:]) else weight",
        "unread = weight",
        _BETWEEN,
    ),
    Fault(
        "repeated-maps-whatever-lies-between",
        "pixelnet_triton/op/shared.py",
        'if image is None or step is None or step.name() != "ExpandBackward0":',
        "if image is None or step is None:",
        _BETWEEN,
    ),
    Fault(
        "repeated-maps-whatever-comes-before",
        "pixelnet_triton/op/shared.py",
        'if not (getattr(before, "variable", None) is image if is_leaf',
        "if not (True if is_leaf",
        _BETWEEN,
    ),
    Fault(
        "hooks-of-repeated-maps-forgotten",
        "pixelnet_triton/op/shared.py",
        "feature.retains_grad or feature._backward_hooks:",
        "feature.retains_grad:",
        _BETWEEN,
    ),
    Fault(
        "traced-weights-keep-strides",
        "pixelnet_triton/op/registration.py",
        "None if weight is None else weight.new_empty(weight.shape)",
        "None if weight is None else torch.empty_like(weight)",
        _BETWEEN,
    ),
    Fault(
        "planes-of-turned-maps-lost",
        "pixelnet_triton/cpu/planes.py",
        "out = torch.zeros_like(feature, memory_format=torch.contiguous_format)",
        "out = torch.zeros_like(feature)",
        _BETWEEN,
    ),
    Fault(
        "second-derivatives-under-autocast",
        "pixelnet_triton/op/twice.py",
        '    with torch.autocast("cuda" if of.grad.is_cuda else "cpu", enabled=False):',
        "    if True:",
        _BETWEEN,
    ),
    Fault(
        "corners-on-the-default-device",
        "pixelnet_triton/cpu/locating.py",
        'return torch.empty(shape, dtype=dtype, device="cpu")',
        "return torch.empty(shape, dtype=dtype)",
        _BETWEEN,
    ),
    Fault(
        "subclasses-but-the-first-forgotten",
        "pixelnet_triton/op/prepare.py",
        "for tensor in given)",
        "for tensor in given[:1])",
        _BETWEEN,
    ),
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
        "pixelnet_triton/op/shapes.py",
        "own or (integers and integers_are_exact",
        "own or (integers_are_exact",
        _GRIDS + _ACCURACY,
    ),
    Fault(
        "infinite-cells-times-0",
        "pixelnet_triton/call/placing.py",
        "np.copyto(upper, 0.5, where=low == high)",
        "pass",
        _BAD_NUMBERS,
    ),
    Fault(
        "halves-in-sums-of-gradients",
        "pixelnet_triton/call/placing.py",
        "    if halves:\n",
        "    if True:\n",
        ("tests/test_determinism.py", *_ACCURACY),
    ),
    Fault(
        "the-estimate-of-another-route",
        "pixelnet_triton/planner/cost.py",
        "plan = self.routed(plan) if plan.route is None else plan",
        "plan = self.routed(plan)",
        _PLANS_AGREE,
    ),
    Fault(
        "planned-for-integers-always",
        _PLANNING,
        "integers=_integers(points_dtype, coordinates, moving_points),",
        "integers=True,",
        _PLANS_AGREE,
    ),
    Fault(
        "exact-whatever-the-scale",
        _GEOMETRY,
        "return integers and all(number.is_integer() for number in self.affine[layer])",
        "return integers",
        _ROUTES,
    ),
    Fault(
        "the-cell-after-a-centre-times-0",
        "pixelnet_triton/call/placing.py",
        "np.ceil(inside, out=high)",
        "np.minimum(low + 1, highest, out=high)",
        _BAD_NUMBERS,
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
        "facts += (feature.shape, feature.stride(), feature.dtype, feature.layout",
        "facts += (feature.shape, feature.dtype, feature.layout",
        _KNOWN,
    ),
    Fault(
        "layout-forgotten-by-known-operators",
        "pixelnet_triton/op/executors.py",
        "(f.shape, f.stride(), f.dtype, f.device)",
        "(f.shape, f.dtype, f.device)",
        _KNOWN,
    ),
    Fault(
        "geometry-forgotten-by-known-operators",
        "pixelnet_triton/op/executors.py",
        "head, s.geometry, plan, training",
        "head, plan, training",
        _KNOWN,
    ),
    Fault(
        "tensors-left-behind-stay-wrapped",
        _EAGER,
        "features, points = [*map(unwrap_if_dead, features)], unwrap_if_dead(points)",
        "pass",
        ("tests/test_functional_transforms.py",),
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
    Fault(
        "labels-repeated-by-a-value",
        _LABELS,
        "image = images.expand(batch, points.shape[1]).reshape(-1)",
        "image = images.flatten().repeat_interleave(points.shape[1])",
        ("tests/integrations/test_exported_calls.py",),
    ),
    Fault("unsigned-labels-as-they-are", _LABELS, "if dtype in SIGNED:", "if False:", _CALLS),
    Fault(
        "unsigned-labels-of-several-sizes",
        "pixelnet_triton/op/extents.py",
        "    if signed is not None:",
        "    if False:",
        ("tests/test_image_sizes.py",),
    ),
    Fault(
        "quantised-maps-as-labels",
        _LABELS,
        "dtypes.pop() in _DTYPES",
        "not dtypes.pop().is_floating_point",
        _CALLS,
    ),
    Fault(
        "kernels-without-a-gpu",
        "pixelnet_triton/op/dispatch.py",
        "not (triton_interprets() or torch.cuda.is_available())",
        "False",
        ("tests/test_settings.py",),
    ),
    # modules
    Fault(
        "maps-in-any-order",
        "pixelnet_triton/modules.py",
        "    if came != list(in_channels):",
        "    if sum(came) != sum(in_channels):",
        _MODULE,
    ),
    # tools/
    Fault(
        "any-word-switches-off",
        "pixelnet_triton/tools/settings.py",
        'if came in (None, "", "0", "1"):',
        "if True:",
        ("tests/test_settings.py",),
    ),
    Fault(
        "no-calls-without-a-home-folder",
        "pixelnet_triton/tools/cache.py",
        "    except RuntimeError as error:",
        "    except KeyError as error:",
        _PROFILES,
    ),
)
