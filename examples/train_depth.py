"""Train PixelNet for depth (footnote 6 of the paper).

    python -m examples.train_depth --out out/depth --small --accelerator cpu
    python -m examples.train_depth --out out/depth --data NYU --pretrained vgg16.pth ...

Without --data it trains on rooms that the library renders, whose depths are exact; with
it on NYUv2 at 224 x 224.
"""

from __future__ import annotations

import dataclasses

from pixelnet_triton.data import ColourScale, Compose, NYUDepth, RandomHorizontalFlip, Resize
from pixelnet_triton.sampling import UniformSampler
from pixelnet_triton.training import Depth, Recipe

from .training import (
    PAPER,
    SMALL,
    Samples,
    evaluate,
    parser,
    print_metrics,
    read_setup,
    rendered,
    train,
)  # fmt: skip

EPOCHS = 96
RESIZE = Resize((224, 224))


def main() -> int:
    command_line = parser(__doc__, data=None)
    command_line.add_argument("--data", help="the folder of NYUv2; rendered rooms without it")
    arguments = command_line.parse_args()
    data: Samples
    test: Samples
    if arguments.data is None:
        data, test = rendered("depth", small=arguments.small)
    else:
        data = NYUDepth(arguments.data, "train", RESIZE)
        test = NYUDepth(arguments.data, "test", RESIZE)
    paper = dataclasses.replace(PAPER, steps=EPOCHS * (len(data) // PAPER.images))
    # Squared errors: at SMALL's rate a linear predictor (--hidden) diverges.
    small = dataclasses.replace(SMALL, lr=0.02)
    setup = read_setup(arguments, paper=paper, small=small)
    task = Depth(UniformSampler(setup.points))
    augmentation = Compose([RandomHorizontalFlip(), ColourScale()])
    model = train(arguments, setup, task, data, None, transform=augmentation, recipe=Recipe())
    print_metrics("test (depths in metres)", evaluate(model, task, test))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
