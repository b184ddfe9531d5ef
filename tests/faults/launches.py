"""Faults of launches past Triton's Python, and of what is settled for calls of one kind.

Noticed by a stand-in for the compiled kernel, or in Triton's interpreter.
"""

from .fault import Fault

_LAUNCHES = ("tests/compile_gate/test_direct.py", "tests/compile_gate/test_executors.py")
_SIZES = ("tests/compile_gate/test_image_sizes.py",)
_SETTLED = ("tests/interpreter/test_settled.py",)

_GPU_BACKEND = "pixelnet_triton/gpu/backend.py"

FAULTS = (
    Fault(
        "largest-numbers-overflow",
        "kernels/bilinear.py",
        "return ((layer.across - 1) >> 1) + 1",
        "return (layer.across + 1) >> 1",
        ("tests/interpreter/test_limits.py",),
    ),
    Fault(
        "alignment-forgotten-by-known-launches",
        "kernels/direct.py",
        "form.variables(values), False, True, True)",
        "form.variables(values), False, True, True)[0]",
        _LAUNCHES,
    ),
    Fault(
        "numbers-left-to-the-compiler",
        "kernels/launch.py",
        "    return 2 * number + 3\n",
        "    return number\n",
        _SIZES,
    ),
    Fault(
        "programs-left-to-the-compiler",
        "kernels/band.py",
        "(coded(first), coded(end))",
        "(first, end)",
        _SIZES,
    ),
    Fault(
        "device-forgotten-by-known-launches",
        "kernels/direct.py",
        "        device,\n        compiled_for",
        "        compiled_for",
        _LAUNCHES,
    ),
    Fault(
        "exit-hooks-untold",
        "kernels/direct.py",
        '        or (leave is not None and getattr(leave, "calls", True))\n',
        "",
        _LAUNCHES,
    ),
    Fault(
        "modes-forgotten-by-executors",
        "pixelnet_triton/gpu/steps.py",
        "return modes(), tuned",
        "return tuned",
        _LAUNCHES,
    ),
    Fault(
        "driver-forgotten-by-executors",
        "kernels/direct.py",
        "        driver.active,\n        runtime.debug",
        "        runtime.debug",
        _LAUNCHES,
    ),
    Fault(
        "launches-of-an-executor-go-to-the-current-device",
        _GPU_BACKEND,
        "return tensor.is_cuda and tensor.get_device()",
        "return False and tensor.get_device()",
        _LAUNCHES,
    ),
    Fault(
        "sizes-of-memory-forgotten-on-amd",
        "kernels/direct.py",
        "if _looks_at_addresses(active, device):",
        "if True:",
        _LAUNCHES,
    ),
    Fault(
        "alignment-forgotten-by-executors",
        _GPU_BACKEND,
        "if reduce(or_, map(Tensor.data_ptr, tensors)) % 16:",
        "if reduce(or_, map(Tensor.data_ptr, tensors)) % 1:",
        _LAUNCHES,
    ),
    Fault(
        "alignment-of-gradients-forgotten",
        _GPU_BACKEND,
        "head.weight, grad, output, saved",
        "head.weight, saved",
        _LAUNCHES,
    ),
    Fault(
        "copies-taken-for-what-they-are-copied-from",
        _GPU_BACKEND,
        "(t.data_ptr() % 16, t.is_contiguous())",
        "(t.data_ptr() % 16,)",
        _LAUNCHES,
    ),
    Fault(
        "number-of-points-forgotten-by-executors",
        _GPU_BACKEND,
        "kind: Hashable = (points.shape[0], ",
        "kind: Hashable = (",
        _SETTLED,
    ),
    Fault(
        "maps-of-several-roles-settled-as-one",
        "pixelnet_triton/call/sampling.py",
        '("of", role, *layers)',
        '("of", *layers)',
        (_SETTLED[0] + "::test_what_is_known_is_told_apart",),
    ),
    Fault(
        "weight-of-the-first-call-for-all",
        "kernels/fused_linear.py",
        "launch(out, matrix(head.weight),",
        "launch(out, matrix(weight),",
        _SETTLED,
    ),
    Fault(
        "settings-never-looked-at",
        "pixelnet_triton/gpu/steps.py",
        "    asked = tuner()\n",
        "    asked = None\n",
        _SETTLED,
    ),
    Fault(
        "precision-settled-for-good",
        "pixelnet_triton/gpu/steps.py",
        "dtype is torch.float32 and precision(dtype)",
        "dtype is torch.float32",
        _SETTLED,
    ),
    Fault(
        "order-of-the-forward-pass-forgotten",
        "pixelnet_triton/op/eager.py",
        "            s.kept = ctx.kept\n",
        "",
        _SETTLED,
    ),
)
