"""Faults of the metrics and of the boundary benchmark."""

from .fault import Fault

_NMS = "pixelnet_triton/metrics/nms.py"
_COUNTING = "pixelnet_triton/metrics/boundary_counting.py"
_EVALUATION = "pixelnet_triton/metrics/boundary_evaluation.py"
_METRIC = "pixelnet_triton/metrics/boundaries.py"
_SCORES = "pixelnet_triton/metrics/boundary_scores.py"
_MATCHING = "pixelnet_triton/metrics/boundary_matching.py"
_SEEN = ("tests/test_metrics.py",)
_BOUNDARIES = ("tests/test_boundaries.py",)
_DEFAULTS = ("tests/test_boundary_defaults.py",)
_INPUTS = ("tests/test_metrics_inputs.py",)
_BOUNDARY_INPUTS = ("tests/test_boundary_inputs.py",)
_NORMALS = "pixelnet_triton/metrics/normals.py"

FAULTS = (
    Fault(
        "orientation-smoothed-by-2",
        _NMS,
        "ORIENTATION_RADIUS = 4",
        "ORIENTATION_RADIUS = 2",
        ("tests/test_nms.py",),
    ),
    Fault(
        "nms-unsmoothed", _NMS, "smoothing: int = 1", "smoothing: int = 0", ("tests/test_nms.py",)
    ),
    Fault(
        "nms-tolerance",
        _NMS,
        "tolerance: float = 1.01",
        "tolerance: float = 1.05",
        ("tests/test_nms.py",),
    ),
    Fault("nms-border", _NMS, "border: int = 5", "border: int = 3", ("tests/test_nms.py",)),
    Fault(
        "nms-orientation-mirrored",
        _NMS,
        "torch.where(xy > 0, -1, 1)",
        "torch.where(xy > 0, 1, -1)",
        ("tests/test_nms.py",),
    ),
    Fault(
        "nms-in-half-precision",
        _NMS,
        "torch.autocast(maps.device.type, enabled=False)",
        "torch.autocast(maps.device.type, enabled=torch.is_autocast_enabled(maps.device.type))",
        ("tests/test_defaults.py",),
    ),
    Fault(
        "matching-twice-as-far",
        _COUNTING,
        "max_distance: float = 0.0075",
        "max_distance: float = 0.015",
        _DEFAULTS,
    ),
    Fault(
        "matching-twice-as-far-in-processes",
        _EVALUATION,
        "max_distance: float = 0.0075",
        "max_distance: float = 0.015",
        _DEFAULTS,
    ),
    Fault(
        "matching-twice-as-far-in-the-metric",
        _METRIC,
        "max_distance: float = 0.0075",
        "max_distance: float = 0.015",
        _DEFAULTS,
    ),
    Fault(
        "not-thinned-in-processes",
        _EVALUATION,
        "thin: bool = True",
        "thin: bool = False",
        _DEFAULTS,
    ),
    Fault(
        "half-the-thresholds",
        _EVALUATION,
        "thresholds: int | ArrayLike = 99",
        "thresholds: int | ArrayLike = 49",
        _DEFAULTS,
    ),
    Fault(
        "half-the-thresholds-in-the-metric",
        _METRIC,
        "thresholds: int | ArrayLike = 99",
        "thresholds: int | ArrayLike = 49",
        _DEFAULTS,
    ),
    Fault(
        "threshold-excluded",
        _COUNTING,
        "boundary = soft >= threshold",
        "boundary = soft > threshold",
        _BOUNDARIES,
    ),
    Fault(
        "found-by-the-last-annotator",
        _COUNTING,
        "matched += len(j)",
        "matched = len(j)",
        _BOUNDARIES,
    ),
    Fault(
        "distance-of-the-width",
        _COUNTING,
        "math.hypot(*soft.shape)",
        "max(soft.shape)",
        _DEFAULTS,
    ),
    Fault(
        "png-edges-refused",
        _COUNTING,
        "array.max() == 255",
        "array.max() == 254",
        ("tests/test_ignore_index.py",),
    ),
    Fault("ods-at-thresholds-only", _SCORES, "STEPS = 100", "STEPS = 2", _BOUNDARIES),
    Fault(
        "ois-of-the-worst",
        _SCORES,
        "int(np.argmax(_f_measure(*_recall_precision(counts))))",
        "int(np.argmin(_f_measure(*_recall_precision(counts))))",
        _BOUNDARIES,
    ),
    Fault("ap-without-its-ends", _SCORES, "left=0, right=0", "left=None, right=None", _BOUNDARIES),
    Fault(
        "unmatched-costs-nothing", _MATCHING, "UNMATCHED = 100  #", "UNMATCHED = 0  #", _BOUNDARIES
    ),
    Fault(
        "iu-counts-the-hits-twice",
        "pixelnet_triton/metrics/segmentation.py",
        "right / (actual + predicted - right)",
        "right / (actual + predicted)",
        _SEEN,
    ),
    Fault(
        "accuracy-by-prediction",
        "pixelnet_triton/metrics/segmentation.py",
        "accuracy = right / actual",
        "accuracy = right / predicted",
        _SEEN,
    ),
    Fault(
        "unknown-normals-counted",
        "pixelnet_triton/metrics/normals.py",
        "known = (target != 0).any(-1) & ",
        "known = ",
        _SEEN,
    ),
    Fault("nan-normals-counted", _NORMALS, " & target.isfinite().all(-1)", "", _INPUTS),
    Fault(
        "rows-taken-for-components",
        _NORMALS,
        "channel = 1 if target.dim() == 4 and target.shape[1] == 3 else -1",
        "channel = 1 if target.dim() == 4 and target.shape[-1] != 3 else -1",
        _INPUTS,
    ),
    Fault(
        "short-normals-vanish",
        _NORMALS,
        "return vectors / vectors.abs().amax(-1, keepdim=True)",
        "return vectors",
        _INPUTS,
    ),
    Fault(
        "normals-rounded-to-float32",
        _NORMALS,
        "torch.promote_types(torch.promote_types(p.dtype, n.dtype), torch.float32)",
        "torch.float32",
        _INPUTS,
    ),
    Fault(
        "one-score-is-class-0",
        "pixelnet_triton/metrics/segmentation.py",
        "if prediction.shape[channel] != self.num_classes:",
        "if prediction.shape[channel] > self.num_classes:",
        _INPUTS,
    ),
    Fault(
        "infinite-depths-counted",
        "pixelnet_triton/metrics/depth.py",
        "(target > 0) & target.isfinite()",
        "(target > 0)",
        _INPUTS,
    ),
    Fault(
        "nms-spreads-nan",
        _NMS,
        "not bool(edges.isfinite().all())",
        "not bool((edges != 0).any())",
        ("tests/test_nms.py",),
    ),
    Fault(
        "thresholds-in-float64",
        _COUNTING,
        "enumerate(values.astype(soft.dtype))",
        "enumerate(values)",
        _BOUNDARY_INPUTS,
    ),
    Fault("rounding-refused", _COUNTING, "ROUNDING = 1e-5", "ROUNDING = 0.0", _BOUNDARY_INPUTS),
    Fault(
        "limits-of-normals",
        "pixelnet_triton/metrics/normals.py",
        "(11.25, 22.5, 30.0)",
        "(11.25, 22.5, 35.0)",
        _SEEN,
    ),
    Fault(
        "shares-in-the-default-dtype",
        "pixelnet_triton/metrics/normals.py",
        "self.within.double()",
        "self.within",
        ("tests/test_defaults.py",),
    ),
    Fault(
        "delta-of-1.2",
        "pixelnet_triton/metrics/depth.py",
        "((ratio < 1.25) & known)",
        "((ratio < 1.2) & known)",
        _SEEN,
    ),
    Fault(
        "log10-is-natural",
        "pixelnet_triton/metrics/depth.py",
        "p.log10().sub(z.log10()).abs()",
        "p.log().sub(z.log()).abs()",
        _SEEN,
    ),
    Fault(
        "scale-of-all-pixels",
        "pixelnet_triton/metrics/depth.py",
        "known.sum(1, keepdim=True).clamp(min=1)",
        "d.shape[1]",
        _SEEN,
    ),
)
