r"""Train PixelNet for edge detection on BSDS500 (section 4.3 of the paper).

    python -m examples.train_edges --out out/bsds --small --accelerator cpu --test-images 20
    python -m examples.train_edges --out out/bsds --pretrained vgg16.pth --precision bf16-mixed \
        --workers 8

The paper's way: the 300 images of trainval, turned by 16 angles and mirrored (9,600), each at its
own or half its size, half of the sampled pixels edges, 25 epochs with the rate lowered after 15
and 20. ``--small`` takes crops of the 300 images at half their size. Validation is pixel by pixel,
on 20 test images; in the end ODS, OIS and AP of the boundary benchmark are measured. This is
``python -m pixelnet_triton train --task edges --data bsds500``.
"""

from __future__ import annotations

import sys

from pixelnet_triton.recipes.command import main as command


def main() -> int:
    return command(["train", "--task", "edges", "--data", "bsds500", *sys.argv[1:]])


if __name__ == "__main__":
    raise SystemExit(main())
