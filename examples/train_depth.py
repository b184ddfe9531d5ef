"""Train PixelNet for depth (footnote 6 of the paper).

    python -m examples.train_depth --out out/depth --small --accelerator cpu
    python -m examples.train_depth --out out/depth --data nyu=NYU --pretrained vgg16.pth

Without --data it trains on rooms that the library renders, whose depths are exact; with it on
NYUv2 at 224 x 224. This is ``python -m pixelnet_triton train --task depth``.
"""

from __future__ import annotations

import sys

from pixelnet_triton.recipes.command import main as command


def main() -> int:
    return command(["train", "--task", "depth", *sys.argv[1:]])


if __name__ == "__main__":
    raise SystemExit(main())
