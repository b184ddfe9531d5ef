r"""Train PixelNet for semantic segmentation on CamVid (section 4.1 of the paper).

    python -m examples.train_segmentation --out out/camvid --small --accelerator cpu
    python -m examples.train_segmentation --out out/camvid --pretrained vgg16.pth \
        --precision bf16-mixed --workers 8
    torchrun --nproc-per-node 4 -m examples.train_segmentation --out out/camvid --strategy ddp ...

The paper trains 96 epochs, at one scale, on PASCAL-Context; CamVid (--data, or a folder camvid
below PIXELNET_DATA) is smaller. A killed run that is started again with --resume goes on from its
last checkpoint, with the same outcome.
"""

from __future__ import annotations

import dataclasses

from pixelnet_triton.data import CamVid, ColourScale, Compose, RandomHorizontalFlip, Resize
from pixelnet_triton.sampling import UniformSampler
from pixelnet_triton.training import Recipe, Segmentation

from .training import PAPER, SMALL, evaluate, parser, print_metrics, read_setup, train

EPOCHS = 96
SIZE, SMALL_SIZE = (360, 480), (120, 160)


def main() -> int:
    command_line = parser(__doc__, data="camvid")
    arguments = command_line.parse_args()
    if arguments.data is None:
        command_line.error("no folder camvid below PIXELNET_DATA: give --data")
    size = SMALL_SIZE if arguments.small else SIZE
    resize = Resize(size)
    data, validation, test = (
        CamVid(arguments.data, split, resize, cache=arguments.small)
        for split in ("train", "val", "test")
    )
    paper = dataclasses.replace(PAPER, steps=EPOCHS * (len(data) // PAPER.images))
    setup = read_setup(arguments, paper=paper, small=SMALL)
    task = Segmentation(len(CamVid.CLASSES), UniformSampler(setup.points))
    model = train(
        arguments,
        setup,
        task,
        data,
        validation,
        transform=Compose([RandomHorizontalFlip(), ColourScale()]),
        recipe=Recipe(),
    )
    print_metrics(f"test at {size[0]} x {size[1]}", evaluate(model, task, test))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
