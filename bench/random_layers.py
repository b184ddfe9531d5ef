"""Random first layers, and small ones, whose time is mostly the host's.

They show what the workloads do not: sizes nobody had in mind when the library was built.
"""

from __future__ import annotations

import random

from .workloads import Workload

__all__ = ["TINY", "random_workloads", "small_workloads"]

#: Three maps of eight channels and a few cells, four points, eight outputs.
TINY = Workload("tiny", ((8, 8, 8), (8, 4, 4), (8, 2, 2)), (16, 16), 1, 4, 8, family="overhead")


def random_workloads(count: int, seed: int = 0) -> list[Workload]:
    """First layers of one to four maps: anything from tiny to a tenth of a second."""
    source = random.Random(seed)
    return [_random_workload(f"random-{seed}.{i}", source) for i in range(count)]


def _random_workload(name: str, source: random.Random) -> Workload:
    def around(least: int, most: int) -> int:
        return round(least * (most / least) ** source.random())

    side = around(32, 256)
    channels_last = source.random() < 0.5
    strides = sorted(source.choice((1, 2, 4, 8, 16, 32)) for _ in range(source.randint(1, 4)))
    layers = []
    for stride in strides:
        cells = max(1, side // stride)
        layers.append((around(3, 64) * min(8, stride), cells, cells))
    images = source.choice((1, 1, 2, 4))
    points, out_features = around(16, 3000 // images), around(8, 1024)
    return Workload(
        name,
        tuple(layers),
        (side, side),
        images,
        points,
        out_features,
        channels_last=channels_last,
        family="random",
        ragged=source.random() < 0.2,
        pixels=False,
    )


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
