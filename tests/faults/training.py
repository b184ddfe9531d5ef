"""Faults of the optimiser, the loader, the module and the tasks."""

from .fault import Fault

_PAPER = ("tests/test_training_paper.py",)
_RANKS = ("tests/test_training_ranks.py",)
_IGNORE = ("tests/test_ignore_index.py",)
_RECIPE = "pixelnet_triton/training/recipe.py"
_MODULE = "pixelnet_triton/training/module.py"
_LOADER = "pixelnet_triton/training/loader.py"
_CACHE = "pixelnet_triton/training/features.py"
_BATCHES = "pixelnet_triton/training/feature_batches.py"
_FEATURES = ("tests/test_training_features.py",)
_RECIPE_TESTS = ("tests/test_training.py::TestRecipe",)
_TASKS = "pixelnet_triton/training/tasks.py"

FAULTS = (
    Fault(
        "backbone-at-the-heads-rate",
        _RECIPE,
        '("backbone ", recipe.backbone_lr_multiplier)',
        '("backbone ", 1.0)',
        _RECIPE_TESTS,
    ),
    Fault(
        "cosine-over-half-the-training",
        _RECIPE,
        "math.pi * min(step / total_steps, 1.0)",
        "math.pi * min(2 * step / total_steps, 1.0)",
        _RECIPE_TESTS,
    ),
    Fault(
        "features-padded-with-the-first-cells",
        _BATCHES,
        "place[..., :h, w - 1 : w]",
        "place[..., :h, :1]",
        _FEATURES,
    ),
    Fault(
        "no-mirrored-features",
        _CACHE,
        "RandomHorizontalFlip(1.0)(sample) if mirrored else sample",
        "sample",
        _FEATURES,
    ),
    Fault(
        "stale-images-not-noticed",
        _CACHE,
        'if file.metadata()["image"] != _digest(image):',
        "if False:",
        _FEATURES,
    ),
    Fault(
        "stale-weights-not-noticed",
        _CACHE,
        "        digest.update(_bytes(tensor))\n",
        "",
        _FEATURES,
    ),
    Fault(
        "features-of-a-backbone-that-learns",
        _MODULE,
        "            check_frozen(self.model)\n",
        "",
        _FEATURES,
    ),
    Fault("momentum-half", _MODULE, "momentum=self.recipe.momentum", "momentum=0.5", _PAPER),
    Fault("momentum-none", _MODULE, "            momentum=self.recipe.momentum,\n", "", _PAPER),
    Fault("momentum-default", _RECIPE, "momentum: float = 0.9", "momentum: float = 0.99", _PAPER),
    Fault("schedule-by-epoch", _MODULE, '"interval": "step"', '"interval": "epoch"', _PAPER),
    Fault(
        "weight-decay-tenfold",
        _RECIPE,
        "weight_decay: float = 5e-4",
        "weight_decay: float = 5e-3",
        _PAPER,
    ),
    Fault(
        "biases-decay",
        _RECIPE,
        '"biases": (recipe.bias_lr_multiplier, 0.0)',
        '"biases": (recipe.bias_lr_multiplier, 5e-4)',
        _PAPER,
    ),
    Fault(
        "biases-at-the-weights-rate",
        _RECIPE,
        "bias_lr_multiplier: float = 2.0",
        "bias_lr_multiplier: float = 1.0",
        _PAPER,
    ),
    Fault(
        "scales-decay",
        _RECIPE,
        '"scales": (1.0, 0.0)',
        '"scales": (1.0, 5e-4)',
        _PAPER,
    ),
    Fault("decay-by-half", _RECIPE, "decay: float = 0.1", "decay: float = 0.5", _PAPER),
    Fault("decay-too-early", _RECIPE, "(80 / 96, 88 / 96)", "(70 / 96, 88 / 96)", _PAPER),
    Fault("edges-decay-too-late", _RECIPE, "(15 / 25, 20 / 25)", "(16 / 25, 20 / 25)", _PAPER),
    Fault("decay-a-step-late", _RECIPE, "sum(step >= milestone", "sum(step > milestone", _PAPER),
    Fault(
        "ranks-share-images",
        _LOADER,
        "start = first + rank * self.images_per_batch",
        "start = first",
        _RANKS,
    ),
    Fault(
        "rank-not-in-the-seed",
        _MODULE,
        "derived_seed(self.seed, self.global_rank, ",
        "derived_seed(self.seed, 0, ",
        _RANKS,
    ),
    Fault(
        "step-not-in-the-seed",
        _MODULE,
        "self.global_rank, self.global_step, batch_index)",
        "self.global_rank, 0, batch_index)",
        _RANKS,
    ),
    Fault(
        "accumulated-batches-draw-alike",
        _MODULE,
        "self.global_step, batch_index)",
        "self.global_step, 0)",
        _RANKS,
    ),
    Fault(
        "dropout-not-seeded",
        _MODULE,
        "        torch.manual_seed(step_seed)  # dropout, on every device\n",
        "",
        _RANKS,
    ),
    Fault(
        "epochs-in-one-order",
        _LOADER,
        'Generator("cpu").manual_seed(derived_seed(self.seed, epoch))',
        'Generator("cpu").manual_seed(derived_seed(self.seed, 0))',
        ("tests/test_training.py::TestStepLoader",),
    ),
    Fault(
        "images-augmented-alike",
        _LOADER,
        "derived_seed(self.seed, epoch, image)",
        "derived_seed(self.seed, epoch, 0)",
        ("tests/test_training.py::TestStepLoader",),
    ),
    Fault(
        "loader-resumes-a-batch-early",
        _LOADER,
        "(epoch, position + 1)",
        "(epoch, position)",
        ("tests/test_training.py::TestStepLoader",),
    ),
    Fault(
        "loader-four-images",
        _LOADER,
        "images_per_batch: int = 5",
        "images_per_batch: int = 4",
        _PAPER,
    ),
    Fault(
        "edges-sampled-rarely",
        _TASKS,
        "BiasedSampler(2000, positive_fraction=0.5)",
        "BiasedSampler(2000, positive_fraction=0.05)",
        _PAPER,
    ),
    Fault("half-the-points", _TASKS, "UniformSampler(2000)\n", "UniformSampler(1000)\n", _PAPER),
    Fault(
        "unknown-normals-drawn",
        _TASKS,
        "valid = target.abs().sum(dim=1) > 0",
        "valid = target.abs().sum(dim=1) >= 0",
        _PAPER,
    ),
    Fault(
        "normals-whose-sum-is-0-unknown",
        _TASKS,
        "valid = target.abs().sum(dim=1) > 0",
        "valid = target.sum(dim=1) > 0",
        _PAPER,
    ),
    Fault("unknown-depth-drawn", _TASKS, "valid = target > 0", "valid = target > -2", _PAPER),
    Fault(
        "loss-ignores-255-only",
        _TASKS,
        "return cross_entropy(scores, pixels.take(target, fill=ignored), ignore_index=ignored)",
        "return cross_entropy(scores, pixels.take(target, fill=255))",
        _IGNORE,
    ),
    Fault(
        "metric-ignores-255-only",
        _TASKS,
        "SegmentationMetrics(self.classes, ignore_index=_ignored_label(self.sampler))",
        "SegmentationMetrics(self.classes)",
        _IGNORE,
    ),
    Fault(
        "edge-metric-ignores-255-only",
        _TASKS,
        "PixelEdgeMetrics(ignore_index=_ignored_label(self.sampler))",
        "PixelEdgeMetrics()",
        _IGNORE,
    ),
    Fault(
        "edges-by-hed-sum",
        _TASKS,
        "scores, pixels.take(target, fill=ignored), ignore_index=ignored\n",
        'scores, pixels.take(target, fill=ignored), ignore_index=ignored, reduction="sum"\n',
        _PAPER,
    ),
    Fault(
        "edge-curve-in-the-default-dtype",
        "pixelnet_triton/training/edge_metrics.py",
        "torch.linspace(0, 1, thresholds, dtype=torch.float32)",
        "torch.linspace(0, 1, thresholds)",
        ("tests/test_defaults.py",),
    ),
)
