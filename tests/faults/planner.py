"""Faults of the planner, and of what similar calls share."""

from .fault import Fault

_PLANNER = ("tests/test_planner.py", "tests/test_cost_model.py")
_PROFILES = ("tests/test_device_profiles.py",)
_KNOWN = ("tests/test_known_calls.py",)
_SIMILAR = ("tests/test_similar_calls.py",)
_PLANNING = "pixelnet_triton/planning.py"
_PREPARE = "pixelnet_triton/op/prepare.py"

FAULTS = (
    Fault(
        "profiles-need-a-folder",
        "pixelnet_triton/planner/store.py",
        "    try:\n        return load_profile(profile_path(device))\n",
        "    path = profile_path(device)\n    try:\n        return load_profile(path)\n",
        _PROFILES,
    ),
    Fault(
        "calibration-without-gradients",
        "pixelnet_triton/calibration.py",
        "with torch.inference_mode(False), torch.enable_grad():",
        "if True:",
        _PROFILES,
    ),
    Fault(
        "no-folder-said-after-all-was-measured",
        "pixelnet_triton/calibration.py",
        "    path = profile_path(where) if save else None\n",
        "    path = None\n",
        _PROFILES,
    ),
    Fault(
        "ragged-points-of-one-image-planned-apart",
        "pixelnet_triton/op/shapes.py",
        'ragged and (backend.name == "gpu" or batch > 1),',
        "ragged,",
        _PLANNER,
    ),
    Fault(
        "maps-that-disagree-are-planned",
        _PLANNING,
        "        if one != came[0]:",
        "        if False:",
        _PLANNER,
    ),
    Fault(
        "float64-for-kernels-planned",
        _PLANNING,
        'if profile.kind == "gpu" and dtype == torch.float64:',
        "if False:",
        (*_PLANNER, "tests/test_explain.py"),
    ),
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
        "return model.cheapest()",
        'return model.cheapest_of_kind("gather")',
        _PLANNER,
    ),
    Fault(
        "search-from-one-end",
        "pixelnet_triton/planner/cost.py",
        "for strategy in self._strategies for plan",
        "for strategy in self._strategies[:1] for plan",
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
    Fault(
        "routes-of-similar-calls-taken-unseen",
        "pixelnet_triton/planner/choose.py",
        "        return model.cheapest()\n",
        "        return model.routed(model.cheapest())\n",
        _SIMILAR,
    ),
    Fault(
        "each-side-rounded-by-itself",
        "pixelnet_triton/call/shape.py",
        "// part) if is_part else",
        "// part) if part == 1 and is_part else",
        _SIMILAR,
    ),
    Fault(
        "thirds-taken-for-halves",
        "pixelnet_triton/call/shape.py",
        "if is_part else bucket(side, bits=4)",
        "if True else bucket(side, bits=4)",
        _SIMILAR,
    ),
    Fault(
        "index-of-another-length-known",
        _PREPARE,
        "shape = tensor.shape == at[:1] if tensor is index",
        "shape = True if tensor is index",
        _SIMILAR,
    ),
    Fault(
        "points-of-any-shape-known",
        _PREPARE,
        "facts.append(at[::2] if len(at) == 3 else at[1:])",
        "facts.append(at[1:])",
        _SIMILAR,
    ),
    Fault(
        "every-number-of-points-another-kind",
        _PREPARE,
        "bucket(at.numel())",
        "at.numel()",
        _SIMILAR,
    ),
    Fault(
        "kinds-of-each-executor-by-themselves",
        "pixelnet_triton/gpu/backend.py",
        "            if len(_KNOWN) >= MOST_KINDS:\n                _KNOWN.clear()\n",
        "",
        _SIMILAR,
    ),
    Fault(
        "kinds-of-all-executors-mixed-up",
        "pixelnet_triton/gpu/backend.py",
        "known = _KNOWN[self, kind] = {}",
        "known = _KNOWN.setdefault((_KNOWN and next(iter(_KNOWN))[0] or self, kind), {})",
        _SIMILAR,
    ),
)
