"""The registry: what is measured, with FLOPs and compulsory bytes computed from the shapes.

W1 to W5 are the first layers that the library was designed for; the sweeps vary one quantity of
such a layer. Random layers, and small ones whose time is mostly the host's, show what these do not:
sizes nobody had in mind when the library was built.

A workload holds sizes only. Without a GPU all of them are made smaller by :func:`for_cpu`, say so
(`scaled`), and carry the smaller sizes in their results. This file takes nothing from the library,
so that two versions of it can be measured on the same cases.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

CORNERS = 4  # cells that one point is interpolated from
POINT_BYTES = 16  # (x, y) as int64
CPU_SIDE = 128


@dataclass(frozen=True)
class Workload:
    """One first layer: maps of M layers, points, and the width of the layer.

    Args:
        name: unique; `family`: "workload", or the sweep it belongs to; `value`: its place there.
        layers: (C_i, H_i, W_i) of each map.
        image_size: (H, W) in pixels. images: B. points: N per image. out_features: D.
        dtype: of maps and weights. channels_last: the layout of the maps.
        scaled: made smaller for a machine without a GPU.
        ragged: the points of all images in one list, each with the index of its image.
        pixels: points are distinct pixels, not places anywhere in the image.
    """

    name: str
    layers: tuple[tuple[int, int, int], ...]
    image_size: tuple[int, int]
    images: int
    points: int
    out_features: int
    dtype: str = "float32"
    channels_last: bool = True
    family: str = "workload"
    value: int | str = ""
    scaled: bool = False
    ragged: bool = False
    pixels: bool = True

    @property
    def channels(self) -> int:
        """C, the sum over the layers."""
        return sum(channels for channels, _, _ in self.layers)

    @property
    def all_points(self) -> int:
        """P, of all images."""
        return self.images * self.points

    @property
    def all_pixels(self) -> int:
        """Pixels of all images: the rows of a dense method."""
        return self.images * self.image_size[0] * self.image_size[1]

    @property
    def itemsize(self) -> int:
        """Bytes of an element of maps and weights."""
        return getattr(torch, self.dtype).itemsize

    def flops(self, rows: int, training: bool) -> float:
        """FLOPs of the matrix products over `rows` hypercolumns, rows x C by C x D.

        2 rows C D forward; the gradients of both operands take as much again, each. As is
        customary the interpolation, some 8 FLOPs a value against 2 D, is not counted.
        """
        return (6.0 if training else 2.0) * rows * self.channels * self.out_features

    def compulsory_bytes(self, rows: int, training: bool) -> float:
        """Bytes any method must move if each operand is read once and each result written once.

        Forward: the cells that `rows` positions can touch, weight, bias, positions; the output.
        Backward: upstream gradient, output (the ReLU's mask), weight and touched cells again;
        the gradients of maps (all cells: they are dense tensors), weight and bias.
        """
        cells = [self.images * height * width for _, height, width in self.layers]
        touched = sum(
            min(CORNERS * rows, count) * channels
            for count, (channels, _, _) in zip(cells, self.layers, strict=True)
        )
        parameters = (self.channels + 1) * self.out_features
        output = rows * self.out_features
        elements = touched + parameters + output
        if training:
            maps = sum(n * c for n, (c, _, _) in zip(cells, self.layers, strict=True))
            elements += 2 * output + touched + parameters + maps + parameters
        return float(elements * self.itemsize + rows * POINT_BYTES)

    def sizes(self) -> str:
        """The sizes in words, for tables and titles."""
        height, width = self.image_size
        maps = "+".join(str(channels) for channels, _, _ in self.layers)
        layout = ("" if self.channels_last else ", NCHW") + (", ragged" if self.ragged else "")
        return (
            f"{self.images} x {width}x{height}, C={maps}, N={self.points}, "
            f"D={self.out_features}, {self.dtype}{layout}"
        )


@dataclass(frozen=True)
class Case:
    """A workload in one direction."""

    workload: Workload
    training: bool

    @property
    def direction(self) -> str:
        """For tables: with the backward pass, or without."""
        return "training" if self.training else "forward"

    def __str__(self) -> str:
        return f"{self.workload.name}-{self.direction}"


def for_cpu(workload: Workload) -> Workload:
    """A workload that dense methods can be run on within seconds on a few cores.

    One image, its side halved until it is at most CPU_SIDE, the points divided by four each
    time: cells per point stay as they are, which is what the choice of a plan depends on. Layers
    wider than 1,024 become a quarter as wide.
    """
    height, width = workload.image_size
    layers, points = workload.layers, workload.points
    while max(height, width) > CPU_SIDE:
        height, width, points = height // 2, width // 2, points // 4
        layers = tuple((c, -(-h // 2), -(-w // 2)) for c, h, w in layers)
    wide = workload.out_features > 1024
    return replace(
        workload,
        layers=layers,
        image_size=(height, width),
        images=1,
        points=points,
        out_features=workload.out_features // 4 if wide else workload.out_features,
        scaled=True,
    )


#: (channels, stride) of conv1_2, 2_2, 3_3, 4_3, 5_3 of VGG-16 and conv-7; of ResNet-50's C2 to C5.
VGG = ((64, 1), (128, 2), (256, 4), (512, 8), (512, 16), (4096, 32))
RESNET = ((256, 4), (512, 8), (1024, 16), (2048, 32))


def pyramid(layers: Sequence[tuple[int, int]], side: int) -> tuple[tuple[int, int, int], ...]:
    """Their maps (C_i, H_i, W_i), for images of this side."""
    return tuple((channels, max(1, side // s), max(1, side // s)) for channels, s in layers)


WORKLOADS = (
    Workload("W1", pyramid(VGG[:5:2], 224), (224, 224), 1, 2000, 4096),  # the paper's Table 4
    Workload("W2", pyramid(VGG[:5], 224), (224, 224), 5, 2000, 4096),  # the paper's network
    Workload("W3", pyramid(VGG, 224), (224, 224), 5, 2000, 4096),
    Workload("W4", pyramid(RESNET, 512), (512, 512), 16, 2048, 256),
    Workload("W5", pyramid(VGG[:5], 224), (224, 224), 5, 2000, 256),  # a narrow head
)


#: The quantities that sweeps vary.
SWEEPS = ("points", "width", "layers", "image", "dtype", "layout")


def sweeps(on_cpu: bool) -> list[Workload]:
    """W5 with other values of one quantity; W3 with fewer layers."""
    deep = replace(WORKLOADS[2], out_features=256)
    narrow, deep = (for_cpu(w) if on_cpu else w for w in (WORKLOADS[4], deep))
    one = replace(narrow, images=1, points=2000)
    points: Sequence[int] = (250, 500, 1000, 2000, 4000, 16000, 50176)
    widths: Sequence[int] = (64, 256, 512, 1024, 4096, 6144)
    sides: Sequence[int] = (128, 256, 512, 1024)
    if on_cpu:  # a quarter of the points, and all pixels
        points, widths, sides = (62, 250, 1000, 4000, 12544), (64, 256, 1024, 4096, 6144), sides[:3]
    varied: dict[str, dict[int | str, Workload]] = {
        "points": {n: replace(narrow, points=n) for n in points},
        "width": {d: replace(narrow, out_features=d) for d in widths},
        "layers": {m: replace(deep, layers=deep.layers[:m]) for m, _ in enumerate(deep.layers, 1)},
        "image": {n: replace(one, layers=pyramid(VGG[:5], n), image_size=(n, n)) for n in sides},
        "dtype": {d: replace(narrow, dtype=d) for d in ("float32", "bfloat16", "float16")},
        "layout": {"NHWC": narrow, "NCHW": replace(narrow, channels_last=False)},
    }
    return [
        replace(workload, name=f"{family}-{value}", family=family, value=value)
        for family in SWEEPS
        for value, workload in varied[family].items()
    ]


def registry(on_cpu: bool) -> list[Workload]:
    """All workloads and sweeps at the sizes of such a machine.

    On a GPU in bfloat16, on the CPU in float32, but for the sweep over dtypes.
    """
    dtype = "float32" if on_cpu else "bfloat16"
    workloads = [for_cpu(w) if on_cpu else w for w in WORKLOADS] + sweeps(on_cpu)
    return [w if w.family == "dtype" else replace(w, dtype=dtype) for w in workloads]


#: The number of classifiers, and the width of their first layers.
MEMBERS, MEMBER_WIDTH = 10, 128


def ensemble(on_cpu: bool) -> Workload:
    """W5's maps and points; the weight holds all members, one under the other.

    DatasetGAN (arXiv 2104.06490) trains ten classifiers of pixels on the same features.
    """
    sizes = replace(WORKLOADS[4], name="ensemble", family="ensemble", value=MEMBERS)
    sizes = for_cpu(sizes) if on_cpu else replace(sizes, dtype="bfloat16")
    return replace(sizes, out_features=MEMBERS * MEMBER_WIDTH)


#: Three maps of eight channels and a few cells, four points, eight outputs.
TINY = Workload("host call", ((8, 8, 8), (8, 4, 4), (8, 2, 2)), (16, 16), 1, 4, 8, family="host")


def in_both_layouts(workloads: Iterable[Workload]) -> list[Workload]:
    """channels_last, and NCHW by that name."""
    return [
        layout
        for w in workloads
        for layout in (w, replace(w, name=f"{w.name} NCHW", channels_last=False))
    ]


def random_workloads(count: int = 30, seed: int = 0) -> list[Workload]:
    """First layers of one to four maps: anything from tiny to a tenth of a second."""
    source = random.Random(seed)

    def around(least: int, most: int) -> int:
        return round(least * (most / least) ** source.random())

    workloads = []
    for i in range(count):
        side, channels_last = around(32, 256), source.random() < 0.5
        strides = sorted(source.choice((1, 2, 4, 8, 16, 32)) for _ in range(source.randint(1, 4)))
        layers = pyramid([(around(3, 64) * min(8, stride), stride) for stride in strides], side)
        images = source.choice((1, 1, 2, 4))
        sizes = ((side, side), images, around(16, 3000 // images), around(8, 1024))
        workload = Workload(f"random-{seed}.{i}", layers, *sizes, family="random", pixels=False)
        ragged = source.random() < 0.2
        workloads.append(replace(workload, channels_last=channels_last, ragged=ragged))
    return workloads


def small_workloads() -> list[Workload]:
    """Calls of a few hundred thousand values at most, in the forms that people write."""
    two, three = ((16, 32, 32), (32, 8, 8)), ((32, 56, 56), (64, 28, 28), (128, 14, 14))
    sizes = (32, 32)
    return [
        Workload("small-16", two, sizes, 1, 16, 16, family="small"),
        Workload("small-256", two, sizes, 1, 256, 64, family="small"),
        Workload("small-floats", two, sizes, 1, 256, 64, family="small", pixels=False),
        Workload("small-ragged", two, sizes, 4, 100, 64, family="small", ragged=True),
        Workload("small-planes", two, sizes, 2, 256, 64, family="small", channels_last=False),
        Workload("small-bfloat16", two, sizes, 2, 256, 64, family="small", dtype="bfloat16"),
        Workload("small-three", three, (112, 112), 1, 1000, 128, family="small"),
    ]
