"""Faults of the samplers."""

from .fault import Fault

_SAMPLERS = "pixelnet_triton/sampling/samplers.py"
_DRAW = "pixelnet_triton/sampling/draw.py"
_PIXELS = "pixelnet_triton/sampling/pixels.py"
_UNCERTAINTY = "pixelnet_triton/sampling/uncertainty.py"
_SEEN = ("tests/test_sampling.py",)
_IGNORE = ("tests/test_ignore_index.py",)
_INPUTS = ("tests/test_sampling_inputs.py",)
_CHECKS = "pixelnet_triton/sampling/checks.py"

FAULTS = (
    Fault(
        "biased-default-5-percent",
        _SAMPLERS,
        "positive_fraction: float = 0.5",
        "positive_fraction: float = 0.05",
        ("tests/test_training_paper.py",),
    ),
    Fault("positives-are-zeros", _SAMPLERS, "positive: int = 1", "positive: int = 0", _SEEN),
    Fault(
        "shares-truncated",
        _SAMPLERS,
        "share = round(self.positive_fraction * self.n)",
        "share = int(self.positive_fraction * self.n)",
        _SEEN,
    ),
    Fault(
        "draws-in-the-default-dtype",
        _DRAW,
        "generator=generator, device=device, dtype=torch.float32)",
        "generator=generator, device=device)",
        ("tests/test_defaults.py",),
    ),
    Fault(
        "draws-ignored-pixels",
        _DRAW,
        "return torch.where(valid, keys, keys - 1)",
        "return keys",
        _SEEN,
    ),
    Fault(
        "ignored-label-not-carried",
        _PIXELS,
        "SampledPixels(points, valid_points, (height, width), self.ignore_index)",
        "SampledPixels(points, valid_points, (height, width))",
        _IGNORE,
    ),
    Fault(
        "x-and-y-exchanged",
        _PIXELS,
        "index = self.points[..., 1] * target.shape[-1] + self.points[..., 0]",
        "index = self.points[..., 0] * target.shape[-1] + self.points[..., 1]",
        _SEEN,
    ),
    Fault(
        "grid-at-a-fixed-place",
        _DRAW,
        "offset = torch.randint(length, (batch, 1), generator=generator, device=device)",
        "offset = torch.randint(1, (batch, 1), generator=generator, device=device)",
        _SEEN,
    ),
    Fault(
        "least-uncertain-drawn",
        _UNCERTAINTY,
        "chosen = scores.topk(min(round(self.important * self.n), taken)).indices",
        "chosen = (-scores).topk(min(round(self.important * self.n), taken)).indices",
        _SEEN,
    ),
    Fault(
        "important-share-all",
        _UNCERTAINTY,
        "min(round(self.important * self.n), taken)",
        "min(self.n, taken)",
        _SEEN,
    ),
    Fault(
        "margin-of-the-wrong-sign",
        _UNCERTAINTY,
        "return best[..., 1] - best[..., 0]",
        "return best[..., 0] - best[..., 1]",
        _SEEN,
    ),
    Fault(
        "fills-wrap",
        _CHECKS,
        "elif not target.is_floating_point() and not _representable(fill, target.dtype):",
        "elif not target.is_floating_point() and fill is None:",
        _INPUTS,
    ),
    Fault(
        "halves-fill-integers",
        _CHECKS,
        "if not float(value).is_integer():",
        "if value != value:",
        _INPUTS,
    ),
    Fault(
        "positive-wraps",
        _CHECKS,
        "if not _representable(positive, labels.dtype):",
        "if positive is None:",
        _INPUTS,
    ),
    Fault(
        "nan-scores-drawn",
        _CHECKS,
        "values_at_hand(score) and bool(",
        "values_at_hand(score) and score is None and bool(",
        _INPUTS,
    ),
    Fault(
        "nan-scores-first",
        _UNCERTAINTY,
        "scores.float().nan_to_num(lowest, torch.inf, lowest)",
        "scores.float().clamp(min=lowest)",
        _INPUTS,
    ),
    Fault(
        "sizes-cut-to-the-canvas",
        _PIXELS,
        "if bool(wrong.any()):",
        "if bool(wrong.all()):",
        _INPUTS,
    ),
    Fault(
        "uncertainty-beta", _UNCERTAINTY, "important: float = 0.75", "important: float = 0.5", _SEEN
    ),
    Fault(
        "uncertainty-k", _UNCERTAINTY, "oversample: float = 3.0", "oversample: float = 2.0", _SEEN
    ),
)
