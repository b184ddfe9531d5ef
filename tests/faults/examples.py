"""Faults of the scripts: presets, splits, and what is reported."""

from .fault import Fault

_CHOICES = ("tests/test_examples_choices.py",)
_PAPER = ("tests/test_training_paper.py",)
_RANKS = ("tests/test_training_ranks.py",)
_TRAINING = "examples/training.py"
_SEGMENTATION = "examples/train_segmentation.py"
_EDGES = "examples/train_edges.py"
_BOUNDARIES = "examples/boundaries.py"

FAULTS = (
    Fault(
        "preset-halved",
        _TRAINING,
        "points: int = _option(2000,",
        "points: int = _option(1000,",
        _PAPER,
    ),
    Fault(
        "preset-of-four-images",
        _TRAINING,
        "images: int = _option(5,",
        "images: int = _option(4,",
        _PAPER,
    ),
    Fault("preset-narrow", _TRAINING, "_option((4096, 4096),", "_option((2048, 2048),", _PAPER),
    Fault(
        "preset-without-dropout",
        _TRAINING,
        "dropout: float = _option(0.5,",
        "dropout: float = _option(0.0,",
        _PAPER,
    ),
    Fault(
        "preset-rate", _TRAINING, "lr: float = _option(1e-3,", "lr: float = _option(1e-2,", _PAPER
    ),
    Fault(
        "preset-caffe-colours",
        _TRAINING,
        'normalization="torchvision")',
        "normalization=None)",
        _PAPER,
    ),
    Fault(
        "training-reported-as-test",
        _SEGMENTATION,
        "evaluate(model, task, test)",
        "evaluate(model, task, data)",
        _CHOICES,
    ),
    Fault(
        "validation-on-test",
        _SEGMENTATION,
        '("train", "val", "test")',
        '("train", "test", "test")',
        _CHOICES,
    ),
    Fault("segmentation-80-epochs", _SEGMENTATION, "EPOCHS = 96", "EPOCHS = 80", _CHOICES),
    Fault(
        "segmentation-without-flips",
        _SEGMENTATION,
        "Compose([RandomHorizontalFlip(), ColourScale()])",
        "Compose([ColourScale()])",
        _CHOICES,
    ),
    Fault(
        "normals-reported-on-training",
        "examples/train_normals.py",
        'NYUNormals(arguments.data, "test", RESIZE)',
        'NYUNormals(arguments.data, "train", RESIZE)',
        _CHOICES,
    ),
    Fault(
        "depth-reported-on-training",
        "examples/train_depth.py",
        "evaluate(model, task, test)",
        "evaluate(model, task, data)",
        _CHOICES,
    ),
    Fault(
        "normals-of-plain-gaussians",
        "examples/train_normals.py",
        ', init="normals")',
        ")",
        _CHOICES,
    ),
    Fault(
        "rendered-test-is-the-training",
        _TRAINING,
        "RenderedScenes(100, kind, size=size, seed=2)",
        "RenderedScenes(100, kind, size=size, seed=1)",
        _CHOICES,
    ),
    Fault(
        "edges-with-the-default-schedule",
        _EDGES,
        "recipe=EDGE_RECIPE,",
        "recipe=type(EDGE_RECIPE)(),",
        _CHOICES,
    ),
    Fault("edges-96-epochs", _EDGES, "EPOCHS = 25", "EPOCHS = 96", _CHOICES),
    Fault(
        "edges-trained-on-test",
        _EDGES,
        'BSDS500(arguments.data, "trainval", cache=True)',
        'BSDS500(arguments.data, "test", cache=True)',
        _CHOICES,
    ),
    Fault(
        "edges-quarter-positive",
        _EDGES,
        "positive_fraction=0.5",
        "positive_fraction=0.25",
        _CHOICES,
    ),
    Fault("edges-at-one-scale", _EDGES, "RandomScale((0.5, 1.0))", "RandomScale((1.0,))", _CHOICES),
    Fault(
        "no-nms-before-ods",
        _BOUNDARIES,
        "return edge_nms(edges[0, 0].cpu())",
        "return edges[0, 0].cpu()",
        _CHOICES,
    ),
    Fault(
        "benchmark-on-val",
        _BOUNDARIES,
        'BSDS500(folder, "test")',
        'BSDS500(folder, "val")',
        _CHOICES,
    ),
    Fault("nine-thresholds", _BOUNDARIES, "thresholds: int = 99", "thresholds: int = 9", _CHOICES),
    Fault(
        "another-image's-annotators",
        _BOUNDARIES,
        "test.annotations(index) for index in indices",
        "test.annotations(0) for index in indices",
        _CHOICES,
    ),
    Fault(
        "counted-at-the-small-size",
        _BOUNDARIES,
        'F.interpolate(model.predict(resized), size, mode="bilinear", align_corners=False)',
        "model.predict(resized)",
        _CHOICES,
    ),
    Fault(
        "every-rank-evaluates-all",
        _TRAINING,
        "return range(rank, count, world) if count >= world else range(count)",
        "return range(count)",
        _RANKS,
    ),
    Fault(
        "every-rank-prints", _TRAINING, "    if not first_process():\n        return\n", "", _RANKS
    ),
    Fault("demo-ignores-help", "examples/demo.py", "    ).parse_args()\n", "    )\n", _CHOICES),
)
