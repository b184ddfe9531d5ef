r"""Pictures after Figures 1, 3 and 5 of the paper: images, ground truth, what networks predict.

    python -m examples.figures --checkpoints out/camvid/model.safetensors
    python -m examples.figures --data bsds500=BSR --checkpoints \
        "with conv-7=out/conv7/model.safetensors" "without=out/edges/model.safetensors"

One picture for each task and data set, docs/figures/prediction-TASK-DATA.jpg: a row for each of
--images held-out images, evenly spaced over the test images, a column for each checkpoint.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from pixelnet_triton.models import PixelNet
from pixelnet_triton.recipes import TaskCard, card_of, find, load, predict_image
from pixelnet_triton.recipes.pictures import Picture, depth_colours, picture
from pixelnet_triton.recipes.ranks import Samples
from pixelnet_triton.tools.progress import progress_bar

OUT = Path(__file__).resolve().parent.parent / "docs" / "figures"
LARGEST = 300_000  # bytes of a picture
WIDTH = 2.6  # inches of a column


@dataclass(frozen=True)
class Column:
    """A network under its title."""

    title: str
    model: PixelNet
    card: TaskCard


def main(words: Sequence[str] | None = None) -> int:
    arguments = _command_line().parse_args(words)
    try:
        for columns in _grouped(arguments.checkpoints):
            samples = _test_images(columns[0].card, arguments.data)
            path = arguments.out / f"prediction-{columns[0].card.name}-{columns[0].card.data}.jpg"
            draw(path, columns, samples, arguments)
            print(f"{path}: {path.stat().st_size // 1000} kB")
    except (FileNotFoundError, ValueError) as error:
        print(f"python -m examples.figures: error: {error}", file=sys.stderr)
        return 2
    return 0


def draw(
    path: Path, columns: Sequence[Column], samples: Samples, arguments: argparse.Namespace
) -> None:
    """A row for each image: the image, its ground truth, a prediction of each network."""
    shown = np.linspace(0, len(samples) - 1, min(arguments.images, len(samples))).round()
    rows: list[list[Picture]] = []
    views: dict[str, Any] = {"scales": arguments.scales, "flip": arguments.flip}
    count = len(shown) * len(columns)
    with progress_bar(count, sys.stderr.isatty(), unit="image", desc=path.name) as done:
        for index in shown.astype(int):
            sample = samples[index]
            image = sample["image"].clamp(0, 1).permute(1, 2, 0).numpy()
            row = [(image * 255).round().astype(np.uint8)]
            outputs = []
            for column in columns:
                outputs.append(
                    predict_image(column.model, sample["image"], column.card.view, **views)
                )
                done(1)
            rows.append(row + _pictures(columns[0].card, sample["target"], outputs))
    titles = ["image", "ground truth", *(column.title for column in columns)]
    _write(path, titles, rows)


def _pictures(card: TaskCard, target: Any, outputs: Sequence[Any]) -> list[Picture]:
    """Ground truth and predictions in the same colours."""
    if card.name != "depth":
        return [picture(card, values) for values in (target, *outputs)]
    known = target[target > 0]
    limits = (float(known.min()), float(known.max())) if known.numel() else (0.0, 1.0)
    return [depth_colours(depth, limits) for depth in (target, *(output[0] for output in outputs))]


def _write(path: Path, titles: Sequence[str], rows: Sequence[Sequence[Picture]]) -> None:
    """As good a JPEG as the largest size allows."""
    height, width = rows[0][0].shape[:2]
    size = (WIDTH * len(titles), WIDTH * height / width * len(rows) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for i, row in enumerate(rows):
        for j, shown in enumerate(row):
            axes[i, j].imshow(shown, interpolation="none")
            axes[i, j].set_axis_off()
            if i == 0:
                axes[i, j].set_title(titles[j], fontsize=9)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in range(90, 20, -10):
        Image.open(drawn).convert("RGB").save(path, quality=quality, optimize=True)
        if path.stat().st_size <= LARGEST:
            return
    raise ValueError(f"{path} is larger than {LARGEST} bytes; draw fewer images")


def _grouped(checkpoints: Sequence[str]) -> list[list[Column]]:
    """Networks of the same task and data set, in the order given."""
    groups: dict[tuple[str, str], list[Column]] = {}
    for words in checkpoints:
        title, _, path = words.rpartition("=")
        model = load(Path(path))
        card = card_of(model)
        column = Column(title or "prediction", model, card)
        groups.setdefault((card.name, card.data), []).append(column)
    return list(groups.values())


def _test_images(card: TaskCard, data: Sequence[str]) -> Samples:
    """The test images of the card's data set, from its usual folder or one of `data`."""
    given = {words.partition("=")[0]: words for words in data}
    row, root = find(card.name, given.get(card.data, card.data), card.data)
    return row.read(root, "test")


def _command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--checkpoints",
        nargs="+",
        required=True,
        metavar="[TITLE=]PATH",
        help="of `python -m pixelnet_triton train`; the title is that of the column",
    )
    add(
        "--data",
        nargs="+",
        default=[],
        metavar="NAME=FOLDER",
        help="data sets that are not in their usual folders below PIXELNET_DATA",
    )
    add("--images", type=int, default=3, metavar="N", help="rows of each picture (3)")
    add("--scales", type=float, nargs="+", default=[1.0], metavar="X", help="averaged over (1)")
    add("--flip", action="store_true", help="average with the mirror image")
    add("--out", type=Path, default=OUT, metavar="FOLDER", help="of the pictures (docs/figures)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
