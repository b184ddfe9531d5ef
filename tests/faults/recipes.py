"""Faults of the recipes: presets, splits, sizes, what is reported and what is written."""

from .fault import Fault

_DATASETS = ("tests/test_recipes_datasets.py",)
_EVALUATION = ("tests/test_recipes_evaluation.py",)
_COMMANDS = ("tests/test_recipes_commands.py",)
_OPTIONS = ("tests/test_recipes_options.py",)
_FILES = ("tests/test_recipes_files.py",)
_PAPER = ("tests/test_training_paper.py",)
_RANKS = ("tests/test_training_ranks.py",)
_REQUESTS = ("tests/test_recipes_requests.py",)


def _in(module: str) -> str:
    return f"pixelnet_triton/recipes/{module}.py"


FAULTS = (
    Fault(
        "preset-halved",
        _in("setup"),
        "points: int = _option(2000,",
        "points: int = _option(1000,",
        _PAPER,
    ),
    Fault(
        "preset-of-four-images",
        "pixelnet_triton/training/presets.py",
        "images: int = 5",
        "images: int = 4",
        _PAPER,
    ),
    Fault(
        "preset-narrow",
        "pixelnet_triton/models/presets.py",
        "_WIDTH = 4096",
        "_WIDTH = 2048",
        _PAPER,
    ),
    Fault(
        "preset-without-dropout",
        "pixelnet_triton/models/presets.py",
        "_DROPOUT = 0.5",
        "_DROPOUT = 0.0",
        _PAPER,
    ),
    Fault(
        "preset-rate",
        _in("setup"),
        '_BASELINE.recipe.lr, "learning rate of weights',
        '0.01, "learning rate of weights',
        _PAPER,
    ),
    Fault(
        "preset-80-epochs",
        "pixelnet_triton/training/presets.py",
        "epochs: int = 96",
        "epochs: int = 80",
        _PAPER,
    ),
    Fault(
        "preset-of-quarter-edges",
        _in("setup"),
        '0.5, "fraction of edges',
        '0.25, "fraction of edges',
        _PAPER,
    ),
    Fault(
        "fine-tuning-at-two-scales",
        "pixelnet_triton/training/presets.py",
        "scales=(0.25, 0.5, 1.0),\n        test_scales",
        "scales=(0.5, 1.0),\n        test_scales",
        _DATASETS,
    ),
    Fault(
        "preset-caffe-colours",
        _in("setup"),
        '_option("torchvision", "of VGG',
        '_option("caffe", "of VGG',
        _PAPER,
    ),
    Fault(
        "random-features-frozen",
        _in("network"),
        "if setup.frozen and setup.pretrained is None:",
        "if False:",
        _FILES,
    ),
    Fault(
        "another-seed",
        _in("network"),
        "torch.manual_seed(setup.seed)",
        "torch.manual_seed(0)",
        _FILES,
    ),
    Fault(
        "fine-tuning-forgets-the-weights",
        _in("network"),
        "    model.load_state_dict(before.state_dict())\n",
        "",
        _COMMANDS,
    ),
    Fault(
        "split-of-training-is-tested",
        _in("datasets"),
        'zip(("train", "val", "test"), self.splits',
        'zip(("test", "val", "train"), self.splits',
        _DATASETS,
    ),
    Fault(
        "own-test-images-are-not-measured",
        _in("datasets"),
        "usual is None or has_split(root, split)",
        "usual is None",
        _DATASETS,
    ),
    Fault(
        "validation-reported-as-test",
        _in("command"),
        "    split = data.split_of(root, split)",
        "    data.split_of(root, split)",
        _COMMANDS,
    ),
    Fault(
        "official-files-anywhere",
        _in("files"),
        r'if not re.fullmatch(r"\w[\w.-]*", split):',
        "if False:",
        _FILES,
    ),
    Fault(
        "validation-on-vocs-test",
        _in("datasets"),
        ' or watched == self.split_of(root, "test")',
        "",
        _DATASETS,
    ),
    Fault(
        "validation-at-full-size",
        _in("datasets"),
        "self._read(root, watched, self.seen(setup))",
        "self._read(root, watched, None)",
        _DATASETS,
    ),
    Fault(
        "segmentation-without-flips",
        _in("datasets"),
        "    if setup.mirror:\n        transforms.append(RandomHorizontalFlip())\n",
        "",
        _DATASETS,
    ),
    Fault(
        "normals-of-plain-gaussians",
        _in("datasets"),
        '{"paper": {"init": "normals"}}',
        "{}",
        _DATASETS,
    ),
    Fault("depth-at-the-others-rate", _in("datasets"), '{"small": {"lr": 0.02}}', "{}", _DATASETS),
    Fault(
        "rendered-test-is-the-training",
        _in("datasets"),
        '"test": (100, 2)',
        '"test": (100, 1)',
        _DATASETS,
    ),
    Fault(
        "edges-with-the-default-schedule",
        _in("datasets"),
        '{"decay_at": _EDGES.recipe.decay_at}',
        "{}",
        _DATASETS,
    ),
    Fault(
        "edges-96-epochs", _in("datasets"), '    "epochs": float(_EDGES.epochs),\n', "", _DATASETS
    ),
    Fault(
        "edges-trained-on-test",
        _in("datasets"),
        'splits=("trainval", None, "test")',
        'splits=("test", None, "test")',
        _DATASETS,
    ),
    Fault(
        "edges-not-turned", _in("datasets"), '    "turned": True,  # and mirrored\n', "", _DATASETS
    ),
    Fault(
        "edges-at-one-scale",
        _in("datasets"),
        '    "random_scales": _EDGES.scales,\n',
        "",
        _DATASETS,
    ),
    Fault(
        "no-nms-before-ods",
        _in("evaluation"),
        "thin.append(edge_nms(edges[0]))",
        "thin.append(edges[0])",
        _EVALUATION,
    ),
    Fault(
        "nine-thresholds",
        _in("evaluation"),
        "thresholds: int = 99",
        "thresholds: int = 9",
        _EVALUATION,
    ),
    Fault(
        "another-image's-annotators",
        _in("evaluation"),
        "data.annotations(index) for index in indices",
        "data.annotations(0) for index in indices",
        _EVALUATION,
    ),
    Fault(
        "scales-forgotten",
        _in("view"),
        "model.predict(images.to(weight.dtype), scales=scales, flip=flip)",
        "model.predict(images.to(weight.dtype))",
        _EVALUATION,
    ),
    Fault(
        "normals-not-unit-again",
        _in("view"),
        'outputs = OUTPUTS["normals"](outputs)',
        "pass",
        _EVALUATION,
    ),
    Fault(
        "every-rank-evaluates-all",
        _in("ranks"),
        "range(dist.get_rank() if _has_ranks() else 0, count, _world())",
        "range(count)",
        _RANKS,
    ),
    Fault(
        "every-rank-reports",
        _in("ranks"),
        "return not _has_ranks() or dist.get_rank() == 0",
        "return True",
        _RANKS,
    ),
    Fault(
        "human-point-elsewhere", _in("curves"), "(0.7235, 0.9014)", "(0.6235, 0.9014)", _EVALUATION
    ),
    Fault(
        "confusion-transposed",
        _in("tables"),
        "zip(names, confusion, strict=True)",
        "zip(names, zip(*confusion), strict=True)",
        _EVALUATION,
    ),
    Fault(
        "context-numbered-from-0",
        _in("files"),
        "first = 1 if card.data in _CONTEXT else 0",
        "first = 0",
        _COMMANDS,
    ),
    Fault("voc-competition-5", _in("files"), "comp6_{split}", "comp5_{split}", _COMMANDS),
    Fault(
        "thin-edges-as-they-were",
        _in("prediction"),
        'f"{name}_thin", edge_nms(output))',
        'f"{name}_thin", output)',
        _FILES,
    ),
    Fault(
        "depths-in-centimetres", _in("prediction"), "output[0] * 1000", "output[0] * 100", _FILES
    ),
    Fault(
        "unknown-classes-in-colour",
        _in("pictures"),
        "UNKNOWN = (0, 0, 0)",
        "UNKNOWN = (9, 9, 9)",
        _FILES,
    ),
    Fault(
        "a-preset's-steps-win",
        _in("options"),
        'changes.setdefault("steps", None)',
        "pass",
        _OPTIONS,
    ),
    Fault(
        "few-images-on-every-rank",
        _in("ranks"),
        "range(dist.get_rank() if _has_ranks() else 0, count, _world())",
        "range(0, count, 1) if count < _world() else range(dist.get_rank(), count, _world())",
        _RANKS,
    ),
    Fault(
        "ranks-without-validation",
        _in("ranks"),
        "return range(count) if count < _world() else list(Share(count))",
        "return list(Share(count))",
        _RANKS,
    ),
    Fault(
        "nccl-gathers-from-the-cpu",
        _in("ranks"),
        'if _has_ranks() and "nccl" in dist.get_backend():',
        "if False:",
        _RANKS,
    ),
    Fault(
        "epochs-of-each-rank",
        _in("training"),
        '(whole_number("images", setup.images) * world)',
        'whole_number("images", setup.images)',
        _REQUESTS,
    ),
    Fault(
        "no-steps-are-the-epochs",
        _in("training"),
        "if setup.steps is not None:",
        "if setup.steps:",
        _REQUESTS,
    ),
    Fault(
        "images-replaced-by-predictions",
        _in("prediction"),
        "if output.resolve() in inputs:",
        "if False:",
        _FILES,
    ),
    Fault(
        "images-known-by-their-words",
        _in("prediction"),
        "if output.resolve() in inputs:",
        "if output in images:",
        _FILES,
    ),
    Fault(
        "predictions-replaced-by-others",
        _in("prediction"),
        "        if count > 1:\n",
        "        if False:\n",
        _FILES,
    ),
    Fault(
        "images-of-a-folder-hide-each-other",
        _in("prediction"),
        "files = files_by_stem(path, IMAGE_SUFFIXES)",
        "files = {f.stem: f for f in sorted(path.iterdir()) if f.suffix in IMAGE_SUFFIXES}",
        _FILES,
    ),
    Fault(
        "networks-asked-in-float32-alone",
        _in("view"),
        "images.to(weight.dtype)",
        "images",
        _EVALUATION,
    ),
    Fault(
        "vgg-with-fixed-statistics",
        _in("network"),
        "if setup.fixed_statistics and isinstance(model.backbone, VGG16):",
        "if False:",
        _FILES,
    ),
    Fault(
        "json-of-infinity",
        _in("tables"),
        "return str(value) if math.isinf(value) else round(value, 6)",
        "return None if math.isinf(value) else round(value, 6)",
        _EVALUATION,
    ),
    Fault(
        "by-hand-for-any-task",
        _in("command"),
        "model.output not in outputs or model.head.out_features != needed.out_features",
        "model.head.out_features != needed.out_features",
        _REQUESTS,
    ),
    Fault(
        "lightnings-refusals-as-tracebacks",
        _in("ranks"),
        "except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:",
        "except RuntimeError as error:",
        _REQUESTS,
    ),
    Fault("demo-ignores-help", "examples/demo.py", "    ).parse_args()\n", "    )\n", _OPTIONS),
)
