"""Samplers: which pixels of each image a mini-batch takes (PixelNet, section 3, and Table 6).

Every sampler draws a fixed number of pixels from each image of a batch at once, on the device of
its labels and without waiting for it. No pixel is drawn twice, unless an image has fewer than n
valid ones: then each of those is drawn n // count times or once more.
"""

from .pixels import SampledPixels, pixels_of_images
from .samplers import BiasedSampler, ClassBalancedSampler, StratifiedSampler, UniformSampler
from .uncertainty import UncertaintySampler, margin_uncertainty

__all__ = [
    "BiasedSampler",
    "ClassBalancedSampler",
    "SampledPixels",
    "StratifiedSampler",
    "UncertaintySampler",
    "UniformSampler",
    "margin_uncertainty",
    "pixels_of_images",
]
