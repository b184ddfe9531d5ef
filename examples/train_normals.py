"""Train PixelNet for surface normals (section 4.2 of the paper).

    python -m examples.train_normals --out out/normals --small --accelerator cpu
    python -m examples.train_normals --out out/normals --data nyu=NYU --pretrained vgg16.pth

Without --data it trains on rooms that the library renders, whose normals are exact; with it on
NYUv2 and the normals of Ladicky et al. at 224 x 224, as the paper. This is ``python -m
pixelnet_triton train --task normals``.
"""

from __future__ import annotations

import sys

from pixelnet_triton.recipes.command import main as command


def main() -> int:
    return command(["train", "--task", "normals", *sys.argv[1:]])


if __name__ == "__main__":
    raise SystemExit(main())
