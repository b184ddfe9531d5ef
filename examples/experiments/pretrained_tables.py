"""Which runs on a pretrained backbone make up which table."""

from __future__ import annotations

import dataclasses
from typing import Any

from pixelnet_triton.data import CamVid

from .pretrained import Pretrained
from .tables import Table

__all__ = ["PRETRAINED_TABLES"]

CAMVID = Pretrained("segmentation", steps=300)
EDGES = Pretrained("edges", steps=300, sampling="50%", test="some")
FINETUNING: dict[str, Any] = {
    "finetuned": True,
    "steps": 400,
    "backbone_lr_multiplier": 0.25,
    "schedule": "cosine",
    "warmup": 0.1,
}
SEGMENTATION_METRICS = {
    "mean_iu": "mean IU",
    "mean_class_accuracy": "AC",
    "pixel_accuracy": "pixel accuracy",
    "last_loss": "training loss",
}
EDGE_METRICS = {"ods": "ODS", "ois": "OIS", "ap": "AP", "last_loss": "training loss"}
IN_SCALES = {
    "": "single scale",
    "flip_": "and mirrored",
    "half_": "scales 0.5, 1",
    "larger_": "1, 1.5",
}
AT_POINTS = (
    "CamVid, frozen efficientnet-lite0, 300 steps; the test is of 600 pixels of each of the 233 "
    "test images, the same in every run."
)
SOME_EDGES = (
    "BSDS500, frozen efficientnet-lite0, 300 steps; every eighth of the 200 test images, at full "
    "size, with 15 thresholds instead of 99."
)


def _with(base: Pretrained, **changes: Any) -> Pretrained:
    return dataclasses.replace(base, **changes)


def _n_by_m(points: int, images: int, **changes: Any) -> tuple[str, Pretrained]:
    longer = changes.get("steps", CAMVID.steps) // CAMVID.steps
    label = f"{points:,} x {images}"
    label += f", {longer} times the steps" if longer > 1 else ""
    label += "" if changes.get("head_batch_norm", True) else ", no batch normalisation"
    return label, _with(CAMVID, points=points, images=images, **changes)


WHOLE_CAMVID = (
    ("frozen", _with(CAMVID, steps=1500, schedule="cosine", test="all")),
    ("fine-tuned", _with(CAMVID, points=700, images=3, test="all", **FINETUNING)),
)
_TABLES = (
    Table(
        "pretrained_table1",
        "Table 1 on pretrained features: layers and widths of the MLP",
        (
            ("fc-1", _with(CAMVID, hidden=())),
            ("fc-2, 256", _with(CAMVID, hidden=(256,))),
            ("fc-3, 256", CAMVID),
            ("fc-3, 64", _with(CAMVID, hidden=(64, 64))),
            ("fc-3, 128", _with(CAMVID, hidden=(128, 128))),
            ("fc-3, 512", _with(CAMVID, hidden=(512, 512))),
            ("fc-1, no batch normalisation", _with(CAMVID, hidden=(), head_batch_norm=False)),
            ("fc-2, no batch normalisation", _with(CAMVID, hidden=(256,), head_batch_norm=False)),
            ("fc-3, no batch normalisation", _with(CAMVID, head_batch_norm=False)),
        ),
        SEGMENTATION_METRICS,
        AT_POINTS + " The paper: 0.7, 0.1 and 34.9% mean IU for fc-1, fc-2 and fc-3; 33.2, 34.2, "
        "34.9 and 35.1% for widths of 1,024 to 6,144.",
    ),
    Table(
        "pretrained_disparity",
        "Table 1 where the maps differ in scale: the finest times 100, the coarsest times 1",
        (
            ("fc-1, batch normalisation", _with(CAMVID, hidden=(), disparity=100.0)),
            ("fc-1", _with(CAMVID, hidden=(), head_batch_norm=False, disparity=100.0)),
            ("fc-3, 256", _with(CAMVID, head_batch_norm=False, disparity=100.0)),
        ),
        SEGMENTATION_METRICS,
        AT_POINTS + " Features without batch normalisation, as the paper's, may differ so.",
    ),
    Table(
        "pretrained_table2",
        "Table 2 on pretrained features: pixels x images of a mini-batch",
        (
            _n_by_m(200, 5),
            _n_by_m(50, 5),
            _n_by_m(800, 5),
            _n_by_m(200, 1),
            _n_by_m(1000, 1),
            _n_by_m(1000, 1, steps=5 * CAMVID.steps),
            _n_by_m(200, 5, head_batch_norm=False),
            _n_by_m(1000, 1, head_batch_norm=False),
        ),
        SEGMENTATION_METRICS,
        AT_POINTS + " The paper: 34.8 to 34.9% mean IU for 500 to 4,000 pixels of five images, "
        "24.6 and 25.2% for 2,000 and 10,000 of one.",
    ),
    Table(
        "pretrained_table6",
        "Table 6 on pretrained features: fraction of edges among the sampled pixels",
        (
            ("uniform", _with(EDGES, sampling="uniform")),
            ("25%", _with(EDGES, sampling="25%")),
            ("50%", EDGES),
            ("75%", _with(EDGES, sampling="75%")),
        ),
        EDGE_METRICS,
        SOME_EDGES + " The paper: ODS .767 uniform, .792, .791 and .790 with 25, 50 and 75%.",
    ),
    Table(
        "pretrained_conv7",
        "Table 3 on pretrained features: the coarsest map, and sampling balanced over the classes",
        (
            ("strides 2 to 32", CAMVID),
            ("with conv-7's counterpart", _with(CAMVID, conv7=True)),
            ("balanced sampling", _with(CAMVID, sampling="balanced")),
        ),
        SEGMENTATION_METRICS,
        AT_POINTS + " The counterpart of conv-7 is the network's last convolution, 1,280 channels "
        "at stride 32. The paper gains 2.2% mean IU by conv-7 (34.9 to 37.1%).",
    ),
    Table(
        "pretrained_conv7_edges",
        "Edges: the coarsest map",
        (("strides 2 to 32", EDGES), ("with conv-7's counterpart", _with(EDGES, conv7=True))),
        EDGE_METRICS,
        SOME_EDGES,
    ),
    Table(
        "pretrained_scales",
        "CamVid in several scales: mean IU",
        (("frozen", _with(CAMVID, steps=1500, schedule="cosine", test="scales")),),
        {f"{view}mean_iu": heading for view, heading in IN_SCALES.items()},
        "Every tenth of the 233 test images at all pixels; outputs averaged over the views.",
    ),
    Table(
        "pretrained_scales_edges",
        "BSDS500 in several scales: ODS",
        (("frozen", _with(EDGES, steps=1500, schedule="cosine", test="scales")),),
        {f"{view}ods": heading for view, heading in IN_SCALES.items()},
        "Every eighth of the 200 test images, with 15 thresholds; outputs averaged over the views.",
    ),
    Table(
        "pretrained_ap",
        "BSDS500, the odds of an edge divided by ten: AP is not a property of the ranking alone",
        (("frozen", _with(EDGES, steps=1500, schedule="cosine", test="scales")),),
        {
            "ap": "AP",
            "odds_ap": "AP, odds / 10",
            "ods": "ODS",
            "odds_ods": "ODS, odds / 10",
        },
        "The runs of the table above.",
    ),
    Table(
        "pretrained_camvid",
        "CamVid on a pretrained backbone: all pixels of all 233 test images",
        WHOLE_CAMVID,
        SEGMENTATION_METRICS,
        "efficientnet-lite0, head 256-256, images of 360 x 480 at a single scale.",
    ),
    Table(
        "pretrained_classes",
        "CamVid on a pretrained backbone: IU of each class",
        WHOLE_CAMVID,
        {f"iu/{name}": name for name in CamVid.CLASSES},
        "As above. The confusion matrices stand in `pretrained.jsonl`.",
    ),
    Table(
        "pretrained_bsds500",
        "BSDS500 on a pretrained backbone: all 200 test images, 99 thresholds",
        (
            ("frozen", _with(EDGES, steps=1500, schedule="cosine", test="all")),
            ("fine-tuned", _with(EDGES, points=500, images=6, test="all", **FINETUNING)),
        ),
        EDGE_METRICS,
        "efficientnet-lite0, head 256-256, trained on train and val, full size, a single scale. "
        "The paper: ODS .792, OIS .808, AP .826 with VGG-16, fine-tuned on 9,600 images.",
    ),
)
PRETRAINED_TABLES = {table.name: table for table in _TABLES}
