"""Train PixelNet for surface normals (section 4.2 of the paper).

    python -m examples.train_normals --out out/normals --small --accelerator cpu
    python -m examples.train_normals --out out/normals --data NYU --pretrained vgg16.pth ...

Without --data it trains on rooms that the library renders, whose normals are exact; with
it on NYUv2 and the normals of Ladicky et al. at 224 x 224, as the paper.
"""

from __future__ import annotations

import dataclasses

from pixelnet_triton.data import ColourScale, Compose, NYUNormals, RandomHorizontalFlip, Resize
from pixelnet_triton.sampling import UniformSampler
from pixelnet_triton.training import Normals, Recipe

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
        data, test = rendered("normals", small=arguments.small)
    else:
        data = NYUNormals(arguments.data, "train", RESIZE)
        test = NYUNormals(arguments.data, "test", RESIZE)
    # The authors initialise the last layer so that no output is near the zero vector.
    paper = dataclasses.replace(PAPER, steps=EPOCHS * (len(data) // PAPER.images), init="normals")
    setup = read_setup(arguments, paper=paper, small=SMALL)
    task = Normals(UniformSampler(setup.points))
    augmentation = Compose([RandomHorizontalFlip(), ColourScale()])
    model = train(arguments, setup, task, data, None, transform=augmentation, recipe=Recipe())
    print_metrics("test (angles in degrees)", evaluate(model, task, test))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
