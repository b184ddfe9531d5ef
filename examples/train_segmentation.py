r"""Train PixelNet for semantic segmentation (section 4.1 of the paper).

    python -m examples.train_segmentation --out out/camvid --small --accelerator cpu
    python -m examples.train_segmentation --out out/camvid --pretrained vgg16.pth \
        --precision bf16-mixed --workers 8
    python -m examples.train_segmentation --data voc2012-aug --out out/voc --pretrained vgg16.pth
    torchrun --nproc-per-node 4 -m examples.train_segmentation --out out/camvid --strategy ddp

The paper trains 96 epochs, at one scale, on PASCAL-Context (--data context59); CamVid, the default,
is smaller. A killed run that is started again with --resume goes on from its last checkpoint, with
the same outcome. This is ``python -m pixelnet_triton train --task segmentation --data camvid``.
"""

from __future__ import annotations

import sys

from pixelnet_triton.recipes.command import main as command


def main() -> int:
    return command(["train", "--task", "segmentation", "--data", "camvid", *sys.argv[1:]])


if __name__ == "__main__":
    raise SystemExit(main())
