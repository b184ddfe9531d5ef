"""The main job on a real photograph: the first layer at sparse pixels, and the usual ways to it.

    make demo
    python -m examples.demo

The second where the extra `train` is installed.

One photograph, five layers of a VGG-16-shaped network, 2,000 sampled pixels, and the first layer
of PixelNet's MLP (1,472 -> 4,096 channels, ReLU) on their hypercolumns, four ways:

    sparse   sample the five maps at the points and multiply, fused (this library)
    sampled  `grid_sample` of each map, `cat`, `linear`
    masked   upsample all layers to all pixels, pick the points, multiply
    dense    upsample all layers, apply the layer at all pixels as a 1x1 convolution, pick

Their results are compared with float64, their time and peak memory with each other, and a
picture of it all goes to out/demo.png. The network's weights are random (He initialisation):
its features depend on the photograph, but have learned nothing. Neither time nor memory nor
rounding errors depend on that. In the end a small network learns (examples/demo_training.py).
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelnet_triton.env_report import environment
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from . import demo_training
from .measure import METHODS, Inputs, Measurement, measure

SIDE = 224
POINTS = 2000
OUT_FEATURES = 4096

# VGG-16: channels of the convolutions of each block; blocks are separated by 2x2 max pooling.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
TAPS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")  # the last one of each block

LABELS = {
    "sparse": "sparse, fused\n(this library)",
    "sampled": "grid_sample,\ncat, linear",
    "masked": "upsample all,\npick, multiply",
    "dense": "upsample all,\n1x1 convolution",
}
COLOURS = {"sparse": "#1b7837", "sampled": "#c2a5cf", "masked": "#9970ab", "dense": "#762a83"}

_start = time.perf_counter()


def say(text: str) -> None:
    """A line of progress with the seconds since the start."""
    print(f"[{time.perf_counter() - _start:5.1f} s] {text}", flush=True)


def photograph() -> Tensor:
    """(SIDE, SIDE, 3) in [0, 1]: matplotlib's portrait of Grace Hopper, cropped and shrunk."""
    import numpy as np
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
        side = min(image.size)
        square = image.convert("RGB").crop((0, 0, side, side))
        small = square.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).float() / 255


@torch.inference_mode()
def vgg16_features(photo: Tensor) -> list[Tensor]:
    """The maps (1, C_i, H_i, W_i) after the last ReLU of each block, before its pooling."""
    x = (photo - photo.mean(dim=(0, 1))) / photo.std(dim=(0, 1))
    x = x.permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)  # (1, 3, H, W)
    maps = []
    for block, widths in enumerate(BLOCKS):
        if block > 0:
            x = F.max_pool2d(x, 2)
        for width in widths:
            kernel = torch.empty(width, x.shape[1], 3, 3)
            nn.init.kaiming_normal_(kernel, nonlinearity="relu")  # He's; the biases are zero
            x = F.relu(F.conv2d(x, kernel.contiguous(memory_format=torch.channels_last), padding=1))
        maps.append(x)
    return maps


def sample_points(generator: torch.Generator) -> Tensor:
    """(1, POINTS, 2): different pixels of the photograph, uniformly at random, as (x, y)."""
    pixels = torch.randperm(SIDE * SIDE, generator=generator)[:POINTS]
    return torch.stack([pixels % SIDE, pixels // SIDE], dim=1)[None]


@torch.inference_mode()
def float64_rows(inputs: Inputs) -> Tensor:
    """(POINTS, D): the plain definition in double precision."""
    return reference_hypercolumn(
        [feature.double() for feature in inputs.features],
        inputs.points,
        inputs.image_size,
        weight=inputs.weight.double(),
        bias=inputs.bias.double(),
        activation="relu",
    )[0]


def draw(photo: Tensor, points: Tensor, results: dict[str, Measurement], path: Path) -> None:
    """The photograph with its points, and bars for memory and time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(15, 4.9), width_ratios=(0.85, 1, 1), layout="constrained"
    )
    left.imshow(photo.numpy(), interpolation="nearest")
    left.scatter(*points[0].T.numpy(), s=2.5, c="#ffd92f", linewidths=0)
    left.set_title(f"{POINTS:,} of {SIDE * SIDE:,} pixels sampled")
    left.set_xticks([])
    left.set_yticks([])

    bars = (
        (middle, "peak memory above the inputs (MB)", 1e-6, "peak_bytes"),
        (right, "time, median (ms)", 1e3, "seconds"),
    )
    for axes, title, unit, field in bars:
        values = [getattr(result, field) * unit for result in results.values()]
        drawn = axes.bar(
            [LABELS[name] for name in results], values, color=[COLOURS[name] for name in results]
        )
        labels = [f"{v:,.0f}\n({v / values[0]:.1f}x)" for v in values]
        axes.bar_label(drawn, labels, padding=3)
        axes.set_title(title)
        axes.set_ylim(0, 1.2 * max(values))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", labelsize=9)

    cpu = environment()["cpu"]
    figure.suptitle(
        f"The first MLP layer ({sum(widths[-1] for widths in BLOCKS):,} to {OUT_FEATURES:,}, "
        "ReLU) on VGG-16-shaped hypercolumns, forward, float32"
    )
    figure.supxlabel(
        f"{cpu['name']}, {cpu['threads']} threads, {cpu['vector_instructions']}; "
        f"torch {torch.__version__}; {datetime.date.today():%Y-%m-%d}; "
        "random network weights (neither time nor memory depends on them)",
        fontsize=9,
        color="0.35",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> int:
    argparse.ArgumentParser(
        prog="python -m examples.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    picture = Path(__file__).resolve().parent.parent / "out" / "demo.png"

    say("reading the photograph (matplotlib's sample data)")
    photo = photograph()
    say(f"features of {', '.join(TAPS)} (VGG-16's shapes, random weights)")
    features = vgg16_features(photo)
    for tap, feature in zip(TAPS, features, strict=True):
        print(f"          {tap}: {' x '.join(map(str, feature.shape[1:]))}")
    channels = sum(feature.shape[1] for feature in features)
    inputs = Inputs(
        features=features,
        points=sample_points(generator),
        image_size=(SIDE, SIDE),
        weight=torch.randn(OUT_FEATURES, channels, generator=generator) / channels**0.5,
        bias=torch.randn(OUT_FEATURES, generator=generator),
    )
    say(f"{POINTS:,} points through the layer ({channels:,} -> {OUT_FEATURES:,}) in float64")
    expected = float64_rows(inputs)

    results: dict[str, Measurement] = {}
    with tempfile.TemporaryDirectory() as scratch:
        torch.save(vars(inputs), Path(scratch) / "inputs.pt")
        for method in METHODS:
            say(f"measuring {method}, in a process of its own")
            results[method] = measure(method, Path(scratch))
    draw(photo, inputs.points, results, picture)

    print()
    header = ("", "max error", "relative", "time", "peak memory", "against sparse")
    print("{:<8}{:>12}{:>12}{:>12}{:>14}   {}".format(*header))
    scale = expected.abs().max().item()
    worst = 0.0
    first = results["sparse"]
    for method, result in results.items():
        error = (result.rows.double() - expected).abs().max().item()
        worst = max(worst, error / scale)
        print(
            f"{method:<8}{error:>12.2e}{error / scale:>12.1e}{result.seconds * 1e3:>9.1f} ms"
            f"{result.peak_bytes / 1e6:>11.1f} MB   "
            f"{result.seconds / first.seconds:.1f}x the time, "
            f"{result.peak_bytes / first.peak_bytes:.1f}x the memory"
        )
    print(
        "\nmax error: largest deviation from the float64 definition at the sampled pixels;"
        "\nrelative: over its largest entry. Time: the median of "
        + ", ".join(f"{result.calls}" for result in results.values())
        + " calls.\nPeak memory: high-water mark of a fresh process, less its level before the"
        "\ncall, so inputs and weights are not in it."
    )
    say(f"the picture: {picture}")
    if worst > 1e-5:
        print("the results disagree: this is a bug, please report it", file=sys.stderr)
        return 1
    print()
    say("and now it learns")
    return demo_training.learn_and_test()


if __name__ == "__main__":
    sys.exit(main())
