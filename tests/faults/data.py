"""Faults of the readers and the joint transforms."""

from .fault import Fault

_TRANSFORMS = "pixelnet_triton/data/transforms.py"
_RESIZING = "pixelnet_triton/data/resizing.py"
_BSDS = "pixelnet_triton/data/bsds.py"
_SEEN = ("tests/test_transforms.py",)
_INPUTS = ("tests/test_transform_inputs.py",)
_PAPER = ("tests/test_training_paper.py",)
_DECODING = "pixelnet_triton/data/decoding.py"
_FOLDERS = "pixelnet_triton/data/folders.py"
_FILES = ("tests/test_data_folders.py",)
_NYU = "pixelnet_triton/data/nyu.py"

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
        '_resize_edges(target, size) if kind == "edges"',
        '_resize_edges(target, size) if kind == "edge"',
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
        "known &= self._known(entry, normals.shape[:2])[..., None]",
        "known &= True",
        ("tests/test_data_nyu.py",),
    ),
    Fault(
        "16-bit-images-clipped",
        _DECODING,
        'if not image.mode.startswith(("I", "F")):',
        'if not image.mode.startswith("F"):',
        _FILES,
    ),
    Fault(
        "16-bit-images-by-256",
        _DECODING,
        "(grey.astype(np.int64) + 128) // 257",
        "grey.astype(np.int64) // 256",
        _FILES,
    ),
    Fault(
        "lying-photographs",
        _DECODING,
        "return ops.exif_transpose(image)",
        "return image.copy()",
        _FILES,
    ),
    Fault(
        "one-of-two-files-of-a-name",
        _FOLDERS,
        "files.setdefault(path.stem, path) != path",
        "files.setdefault(path.stem, path) is None",
        _FILES,
    ),
    Fault(
        "labels-without-image-dropped",
        _FOLDERS,
        "        if alone:\n",
        "        if False:\n",
        _FILES,
    ),
    Fault("bitmaps-not-read", _DECODING, '".jpeg", ".bmp", ".tif"', '".jpeg", ".tif"', _FILES),
    Fault(
        "damaged-files-without-a-name",
        _DECODING,
        "except Exception as error:",
        "except MemoryError as error:",
        _FILES,
    ),
    Fault(
        "first-annotator-of-a-column",
        _BSDS,
        "for person in people.ravel()",
        "for person in people[0]",
        ("tests/test_data_bsds.py",),
    ),
    Fault(
        "metres-by-type",
        _NYU,
        'if entry.target.suffix.lower() == ".png" else 1',
        "if depth.dtype.kind in 'iu' else 1",
        ("tests/test_data_nyu.py",),
    ),
    Fault(
        "normals-in-float16",
        _NYU,
        "np.result_type(normals, np.float32)",
        "normals.dtype",
        ("tests/test_data_nyu.py",),
    ),
    Fault(
        "seeds-share-scenes",
        "pixelnet_triton/data/scenes.py",
        "0 <= seed < 2**32",
        "0 <= seed < 2**64",
        ("tests/test_scenes.py",),
    ),
    Fault(
        "padded-with-true",
        _RESIZING,
        "if not target.is_floating_point():",
        "if not target.is_floating_point() and target.dtype != torch.bool:",
        _INPUTS,
    ),
    Fault(
        "soft-edges-resized-away",
        _RESIZING,
        '    if kind == "edges":\n        raise TypeError(',
        '    if kind == "edge":\n        raise TypeError(',
        _INPUTS,
    ),
    Fault(
        "other-edges-resized-away",
        _RESIZING,
        "(target != 1) & (target != IGNORE)",
        "(target == 1) & (target == IGNORE)",
        _INPUTS,
    ),
    Fault(
        "images-scaled-in-uint8",
        _RESIZING,
        "if not image.is_floating_point():",
        "if image.is_complex():",
        _INPUTS,
    ),
    Fault(
        "means-broadcast",
        _TRANSFORMS,
        "if len(self.mean) != len(image):",
        "if len(self.mean) != len(self.std):",
        _INPUTS,
    ),
    Fault(
        "voc-outlines-are-classes",
        "pixelnet_triton/data/voc.py",
        "labels != IGNORE",
        "labels != 254",
        ("tests/test_data_voc.py",),
    ),
)
