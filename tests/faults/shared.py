"""Faults of images that share one memory, and of the accuracy of CPU routes."""

from .fault import Fault

_SHARED = "pixelnet_triton/op/shared.py"
_VIEWS = ("tests/test_views.py",)
_ACCURACY = ("tests/test_cpu_accuracy.py",)

FAULTS = (
    Fault(
        "different-images-taken-for-one",
        "pixelnet_triton/op/prepare.py",
        "f.shape[0] > 1 and f.stride(0) == 0 for f",
        "f.shape[0] > 1 for f",
        _VIEWS,
    ),
    Fault(
        "gradient-of-as-many-images",
        _SHARED,
        "        return feature[:1]",
        "        return feature",
        _VIEWS,
    ),
    Fault(
        "shared-images-gradient-to-the-base",
        _SHARED,
        " or feature.retains_grad or",
        " or",
        _VIEWS,
    ),
    Fault(
        "first-of-several-images",
        _SHARED,
        "if image.shape == (1, *feature.shape[1:])",
        "if image.shape[1:] == feature.shape[1:]",
        ("tests/test_between_passes.py",),
    ),
    Fault(
        "index-of-shared-images-unchecked",
        _SHARED,
        "    check_values(points, batch_index, features[0].shape[0])\n",
        "",
        _VIEWS,
    ),
    Fault(
        "positions-rounded-to-the-bits-of-32",
        "pixelnet_triton/cpu/locating.py",
        "t = self.scale * points.T[:, None]",
        "t = (self.scale * points.T[:, None] + 32).astype(np.float32) - 32.0",
        ("tests/test_cpu_lists.py",),
    ),
    Fault(
        "few-corners-without-their-last-bits",
        "pixelnet_triton/cpu/bags.py",
        "rows = rows * corners.weight.unsqueeze(2)",
        "rows = rows * (corners.weight.unsqueeze(2) + 2).sub_(2)",
        _ACCURACY,
    ),
)
