"""Which runs make up which table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .runs import Configuration

__all__ = ["TABLES", "Table", "configurations", "with_seed"]

CAMVID = Configuration("segmentation", steps=250)
LONGER = dataclasses.replace(CAMVID, steps=1000)
EDGES = Configuration("edges", positives=0.5, steps=250)
FC1, FC2, FC3 = (), (128,), (128, 128)
LOSS = {"last_loss": "training loss"}


@dataclass(frozen=True)
class Table:
    """One table: rows are configurations, each run with every seed.

    Args:
        name: of its plot. title: its heading.
        rows: what stands in the first column, and the configuration.
        metrics: name in the result file to heading; the first one is plotted.
        note: what has to be known to read it.
    """

    name: str
    title: str
    rows: tuple[tuple[str, Any], ...]
    metrics: dict[str, str]
    note: str


def with_seed(configuration: Any, seed: int) -> Any:
    """The same run with another seed."""
    return dataclasses.replace(configuration, seed=seed)


def configurations(tables: Iterable[Table], seeds: int) -> list[Any]:
    """The runs of the tables, each once, the first seed of all of them first."""
    rows = [row for table in tables for _, row in table.rows]
    return list(dict.fromkeys(with_seed(row, seed) for seed in range(seeds) for row in rows))


def _with(base: Configuration, **changes: Any) -> Configuration:
    return dataclasses.replace(base, **changes)


def _predictors(base: Configuration) -> tuple[tuple[str, Configuration], ...]:
    """From the best constant to PixelNet, whose features are trained along."""
    return (
        ("constant", _with(base, features="none", hidden=FC1)),
        ("linear on the pixel's colour", _with(base, features="colour", hidden=FC1)),
        (
            "linear on fixed, random hypercolumns",
            _with(base, features="random", hidden=FC1, head_batch_norm=True),
        ),
        (
            "MLP (fc-3) on fixed, random hypercolumns",
            _with(base, features="random", head_batch_norm=True),
        ),
        ("linear (fc-1), end to end", _with(base, hidden=FC1, head_batch_norm=True)),
        ("MLP (fc-3), end to end", base),
    )


def _on_fixed_features(base: Configuration) -> tuple[tuple[str, Configuration], ...]:
    """What the MLP is good for where features are not trained to be linearly separable."""
    fixed = _with(base, features="random", head_batch_norm=True)
    return (
        ("linear on fixed, random hypercolumns", _with(fixed, hidden=FC1)),
        ("MLP (512-512) on fixed, random hypercolumns", _with(fixed, hidden=(512, 512))),
    )


def _n_by_m(points: int, images: int, times: int = 1) -> tuple[str, Configuration]:
    label = f"{points:,} x {images}" + (f", {times} times the steps" if times > 1 else "")
    return label, _with(CAMVID, points=points, images=images, steps=times * CAMVID.steps)


SEGMENTATION_METRICS = {"mean_iu": "mean IU", "pixel_accuracy": "pixel accuracy", **LOSS}
EDGE_METRICS = {"ods": "ODS", "ois": "OIS", "ap": "AP", "average_precision": "pixel AP", **LOSS}
NORMAL_METRICS = {
    "mean": "mean (degrees)",
    "median": "median",
    "rmse": "RMSE",
    "within_11.25": "11.25",
    "within_22.5": "22.5",
    "within_30": "30",
}
DEPTH_METRICS = {
    "abs_rel": "abs rel",
    "rmse": "RMSE (m)",
    "log10": "log10",
    "delta1": "delta < 1.25",
}

_TABLES = (
    Table(
        "camvid",
        "CamVid: PixelNet, linear predictors, a constant",
        _predictors(CAMVID),
        SEGMENTATION_METRICS,
        "All 233 test images at 90 x 120.",
    ),
    Table(
        "bsds500",
        "BSDS500: PixelNet, linear predictors, a constant",
        _predictors(EDGES),
        EDGE_METRICS,
        "The first 25 of the 200 test images, predicted at half their size and measured at full "
        "size, with 15 thresholds instead of 99.",
    ),
    Table(
        "table1",
        "Table 1: layers of the MLP",
        (
            ("fc-1", _with(CAMVID, hidden=FC1)),
            ("fc-1, batch normalisation", _with(CAMVID, hidden=FC1, head_batch_norm=True)),
            ("fc-2", _with(CAMVID, hidden=FC2)),
            ("fc-3", CAMVID),
        ),
        SEGMENTATION_METRICS,
        "The paper: 0.7, 0.1 and 34.9% mean IU for fc-1, fc-2 and fc-3, with a pretrained VGG-16 "
        "without batch normalisation.",
    ),
    Table(
        "longer",
        "Four times the steps: linear predictor and MLP",
        (
            ("fc-1, batch normalisation", _with(LONGER, hidden=FC1, head_batch_norm=True)),
            ("fc-3", LONGER),
            *_on_fixed_features(LONGER),
        ),
        SEGMENTATION_METRICS,
        "CamVid as in Table 1, with 1,000 steps instead of 250. On fixed, random hypercolumns the "
        "MLP has to do what a trained backbone does otherwise; it is 512 wide there.",
    ),
    Table(
        "longer_edges",
        "Edges on fixed features, four times the steps: linear predictor and MLP",
        _on_fixed_features(_with(EDGES, steps=4 * EDGES.steps)),
        EDGE_METRICS,
        "BSDS500 as above, with four times the steps.",
    ),
    Table(
        "table2",
        "Table 2: pixels x images of a mini-batch",
        (
            _n_by_m(500, 5),
            _n_by_m(125, 5),
            _n_by_m(2000, 5),
            _n_by_m(500, 1),
            _n_by_m(2500, 1),
            _n_by_m(2500, 1, times=5),
        ),
        SEGMENTATION_METRICS,
        "500 of 10,800 pixels are 4.6%, 2,000 of the paper's 50,176 are 4.0%. Equally many steps, "
        "so that M = 1 sees a fifth of the images, but for the last row, which sees as many.",
    ),
    Table(
        "table6",
        "Table 6: fraction of edges among the sampled pixels",
        (
            ("uniform", _with(EDGES, positives=None)),
            ("25%", _with(EDGES, positives=0.25)),
            ("50%", EDGES),
            ("75%", _with(EDGES, positives=0.75)),
        ),
        EDGE_METRICS,
        "The paper: ODS .767 uniform, .792, .791 and .790 with 25, 50 and 75%. The loss balances "
        "the two kinds in every row, as in the paper.",
    ),
    Table(
        "normals",
        "Surface normals of rendered rooms",
        _predictors(Configuration("normals", steps=250)),
        NORMAL_METRICS,
        "100 rendered rooms that are not among the 400 of the training.",
    ),
    Table(
        "depth",
        "Depth of rendered rooms",
        _predictors(Configuration("depth", steps=500, lr=0.02)),
        DEPTH_METRICS,
        "As for normals, but 500 steps at 0.02: at 0.05, which all other runs take, the linear "
        "predictor of depth diverges.",
    ),
)
TABLES = {table.name: table for table in _TABLES}
