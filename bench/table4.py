"""Table 4 of the paper: memory, model size and updates per second of training, sparse and dense.

VGG-16 on one 224 x 224 image, an MLP of fc-1 to fc-3 on conv-{1_2, 3_3, 5_3}, 2,000 sampled
pixels or all 50,176. An update is a forward and a backward pass, as the paper counts. Memory is
all that training needs, model and gradients included: on a GPU the peak of torch's allocator, on
a CPU the high-water mark of a process of its own beyond that of the idle process.

The paper gives 1,056 features for these layers; their channels are 64 + 256 + 512 = 832.
"""

from __future__ import annotations

from typing import NamedTuple

from .networks import Network, Sizes

#: By kind of device: among other benchmarks a CPU takes a quarter of everything.
SIZES = {"cuda": Sizes(), "cpu": Sizes(side=112, samples_per_image=500, hidden=1024)}


class Paper(NamedTuple):
    """A row of the paper's table: measured on a Titan X, with Caffe."""

    memory_mb: int
    size_mb: int
    updates_per_second: float


_TABLE = (
    ("dense fc-1", Network("dense", 1), Paper(2267, 1150, 6.5)),
    ("dense fc-2", Network("dense", 2), Paper(3066, 1165, 4.2)),
    ("dense fc-3", Network("dense", 3), Paper(3914, 1232, 1.4)),
    ("masked fc-1", Network("masked", 1), Paper(2092, 1150, 5.5)),
    ("masked fc-2", Network("masked", 2), Paper(2138, 1165, 5.4)),
    ("masked fc-3", Network("masked", 3), Paper(2234, 1232, 5.1)),
    ("sparse fc-1", Network("sparse", 1), Paper(322, 60, 43.3)),
    ("sparse fc-2", Network("sparse", 2), Paper(368, 74, 38.7)),
    ("sparse fc-3", Network("sparse", 3), Paper(465, 144, 24.5)),
    ("sparse conv-7 fc-3", Network("sparse", 3, conv7=True), Paper(1024, 686, 8.8)),
)
PAPER = {name: paper for name, _, paper in _TABLE}
ROWS = {name: network for name, network, _ in _TABLE} | {"backbone": Network("backbone", 1)}
