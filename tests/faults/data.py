"""Faults of the readers and the joint transforms."""

from .fault import Fault

_TRANSFORMS = "pixelnet_triton/data/transforms.py"
_RESIZING = "pixelnet_triton/data/resizing.py"
_BSDS = "pixelnet_triton/data/bsds.py"
_SEEN = ("tests/test_transforms.py",)
_PAPER = ("tests/test_training_paper.py",)

FAULTS = (
    Fault(
        "flips-one-in-four",
        _TRANSFORMS,
        "probability: float = 0.5",
        "probability: float = 0.25",
        _PAPER,
    ),
    Fault("flips-the-others", _TRANSFORMS, ">= self.probability", "< self.probability", _SEEN),
    Fault(
        "normals-not-mirrored", _TRANSFORMS, 'if kind == "normals":', 'if kind == "normal":', _SEEN
    ),
    Fault("colours-darken-only", _TRANSFORMS, "high: float = 1.3", "high: float = 1.0", _PAPER),
    Fault(
        "one-factor-for-all-colours",
        _TRANSFORMS,
        "_uniform((image.shape[0], 1, 1)",
        "_uniform((1, 1, 1)",
        _SEEN,
    ),
    Fault(
        "crops-miss-the-last-row",
        _TRANSFORMS,
        "image.shape[-2] - height + 1",
        "max(1, image.shape[-2] - height)",
        _SEEN,
    ),
    Fault(
        "scales-first-only",
        _TRANSFORMS,
        "self.scales[_integer(len(self.scales), generator)]",
        "self.scales[0]",
        _SEEN,
    ),
    Fault(
        "padded-with-background",
        _RESIZING,
        '{"labels": IGNORE, "edges"',
        '{"labels": 0, "edges"',
        _SEEN,
    ),
    Fault("padded-edges-count", _RESIZING, '"edges": IGNORE,', '"edges": 0,', _SEEN),
    Fault(
        "labels-of-the-next-pixel",
        _RESIZING,
        "device=device) + 1) * old)",
        "device=device) + 2) * old)",
        _SEEN,
    ),
    Fault("shrinks-without-a-filter", _RESIZING, "antialias=shrinks", "antialias=False", _SEEN),
    Fault(
        "thin-edges-lost",
        _RESIZING,
        'if sample["kind"] == "edges":',
        'if sample["kind"] == "edge":',
        _SEEN,
    ),
    Fault(
        "ignored-beats-edge",
        _RESIZING,
        "(target == IGNORE).float() + 2 * (target == 1).float()",
        "2 * (target == IGNORE).float() + (target == 1).float()",
        _SEEN,
    ),
    Fault(
        "two-annotators-agree",
        _BSDS,
        "min_annotators: int = 3",
        "min_annotators: int = 2",
        ("tests/test_data_bsds.py",),
    ),
    Fault(
        "single-votes-are-no-edge",
        _BSDS,
        "np.where(count == 0, 0, target)",
        "np.where(count <= 1, 0, target)",
        ("tests/test_data_bsds.py",),
    ),
    Fault(
        "turned-clockwise",
        _BSDS,
        "2 * math.pi * remainder / _ANGLES",
        "-2 * math.pi * remainder / _ANGLES",
        ("tests/test_data_bsds.py",),
    ),
    Fault("eight-angles", _BSDS, "_ANGLES = 16", "_ANGLES = 8", ("tests/test_data_bsds.py",)),
    Fault(
        "void-is-a-class",
        "pixelnet_triton/data/camvid.py",
        "labels == _VOID, IGNORE",
        "labels == _VOID, 0",
        ("tests/test_data_camvid.py",),
    ),
    Fault(
        "images-in-0-to-255",
        "pixelnet_triton/data/folders.py",
        "memory_format=torch.contiguous_format)\n            / 255",
        "memory_format=torch.contiguous_format)\n            / 1",
        ("tests/test_data_camvid.py",),
    ),
    Fault(
        "context-classes-shifted",
        "pixelnet_triton/data/context.py",
        "np.array([IGNORE, *range(classes)], np.uint8)",
        "np.array([0, *range(classes)], np.uint8)",
        ("tests/test_data_context.py",),
    ),
    Fault(
        "millimetres-as-centimetres",
        "pixelnet_triton/data/nyu.py",
        "np.float32(1e-3)",
        "np.float32(1e-2)",
        ("tests/test_data_nyu.py",),
    ),
    Fault(
        "normals-mask-ignored",
        "pixelnet_triton/data/nyu.py",
        "(length < np.inf) & self._known(entry)[..., None]",
        "(length < np.inf)",
        ("tests/test_data_nyu.py",),
    ),
    Fault(
        "voc-outlines-are-classes",
        "pixelnet_triton/data/voc.py",
        "labels != IGNORE",
        "labels != 254",
        ("tests/test_data_voc.py",),
    ),
)
