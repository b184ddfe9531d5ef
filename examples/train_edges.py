r"""Train PixelNet for edge detection on BSDS500 (section 4.3 of the paper).

    python -m examples.train_edges --out out/bsds --small --accelerator cpu --boundaries 20
    python -m examples.train_edges --out out/bsds --pretrained vgg16.pth --precision bf16-mixed \
        --workers 8

The paper's way: the 300 images of trainval, turned by 16 angles and mirrored (9,600), each at its
own or half its size, half of the sampled pixels edges, 25 epochs with the rate lowered after 15
and 20. ``--small`` takes crops of the 300 images at half their size. Validation is pixel by pixel,
on 20 test images; in the end ODS, OIS and AP of the boundary benchmark are measured on the first
--boundaries test images (all 200 unless given; 0: none).
"""

from __future__ import annotations

import dataclasses

from torch.utils.data import Subset

from pixelnet_triton.data import (
    BSDS500,
    Compose,
    RandomCrop,
    RandomHorizontalFlip,
    RandomScale,
    RotatedBSDS500,
)  # fmt: skip
from pixelnet_triton.sampling import BiasedSampler
from pixelnet_triton.training import EDGE_RECIPE, Edges, Transform

from .boundaries import boundary_scores
from .training import (
    PAPER,
    SMALL,
    Samples,
    first_process,
    parser,
    print_metrics,
    read_setup,
    train,
)  # fmt: skip

EPOCHS = 25
VALIDATED = 20


def main() -> int:
    command_line = parser(__doc__, data="bsds500")
    command_line.add_argument(
        "--boundaries",
        type=int,
        default=200,
        metavar="IMAGES",
        help="test images of the boundary benchmark (200; 0: none)",
    )
    arguments = command_line.parse_args()
    if arguments.data is None:
        command_line.error("no folder bsds500 below PIXELNET_DATA: give --data")
    images = BSDS500(arguments.data, "trainval", cache=True)
    data: Samples = images
    transform: Transform
    if arguments.small:
        scale, resize = 0.5, RandomScale((0.5,))
        transform = Compose([resize, RandomCrop((144, 144)), RandomHorizontalFlip()])
        test = BSDS500(arguments.data, "test", resize)
    else:
        scale, transform = 1.0, RandomScale((0.5, 1.0))
        data = RotatedBSDS500(images)
        test = BSDS500(arguments.data, "test")
    paper = dataclasses.replace(PAPER, steps=EPOCHS * (len(data) // PAPER.images))
    setup = read_setup(arguments, paper=paper, small=SMALL)
    model = train(
        arguments,
        setup,
        Edges(BiasedSampler(setup.points, positive_fraction=0.5)),
        data,
        Subset(test, range(VALIDATED)),
        transform=transform,
        recipe=EDGE_RECIPE,
    )
    if arguments.boundaries > 0 and first_process():
        scores = boundary_scores(model, arguments.data, scale=scale, images=arguments.boundaries)
        print_metrics(f"boundary benchmark, first {arguments.boundaries} test images", scores)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
