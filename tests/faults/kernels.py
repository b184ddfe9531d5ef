"""Faults of the kernels and of the GPU back end, noticed in Triton's interpreter."""

from .fault import Fault

_SPECIAL = ("tests/interpreter/test_special_cases.py",)
_ROUTES = ("tests/interpreter/test_routes.py",)
_LIMITS = ("tests/interpreter/test_limits.py",)

FAULTS = (
    Fault(
        "deterministic-flag-ignored",
        "pixelnet_triton/gpu/backend.py",
        "in_order = torch.are_deterministic_algorithms_enabled()",
        "in_order = False",
        _ROUTES,
    ),
    Fault(
        "float32-always-in-tf32",
        "kernels/launch.py",
        'return "tf32" if allowed or torch.get_float32_matmul_precision() != "highest" else "ieee"',
        'return "tf32"',
        _SPECIAL,
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
    Fault(
        "relu-not-masked-on-a-gpu",
        "pixelnet_triton/gpu/backend.py",
        "            if output is not None:\n",
        "            if False:\n",
        ("tests/interpreter/test_cases.py",),
    ),
)
