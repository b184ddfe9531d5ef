"""The definitions the library is tested against, in plain PyTorch.

There are two, and they import nothing but torch:

- :mod:`.hypercolumn`: the features of every layer at the sampled points only, point by point,
  as the library computes them. Differentiable by autograd in every argument.
- :mod:`.dense`: the features of every layer at *every* pixel of the image, as most code
  computes them, by upsampling all layers and applying the first layer as a 1x1 convolution.

Both are written to be read. They allocate freely and are slow; run them in float64 to check.
"""

from .dense import dense_hypercolumn, dense_linear, masked_dense_linear
from .hypercolumn import layer_positions, sparse_hypercolumn

__all__ = [
    "dense_hypercolumn",
    "dense_linear",
    "layer_positions",
    "masked_dense_linear",
    "sparse_hypercolumn",
]
