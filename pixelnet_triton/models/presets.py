"""The paper's networks, as configurations: `NETWORKS`, and `paper_network` for other classes.

Their solvers are in :mod:`pixelnet_triton.training.presets`.
"""

from __future__ import annotations

from typing import Any

from .config import NetworkConfig

__all__ = ["BASELINE_LAYERS", "CONV7_LAYERS", "NETWORKS", "paper_network"]

#: Section 4, default network: conv-{1_2, 2_2, 3_3, 4_3, 5_3}, 1,472 channels.
BASELINE_LAYERS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")
#: Section 4.1, "Adding conv-7": 5,568 channels.
CONV7_LAYERS = (*BASELINE_LAYERS, "conv7")

_WIDTH = 4096  # of the MLP's hidden layers (section 4, default network)
_DROPOUT = 0.5  # the authors' nets; the paper gives no number


def paper_network(
    output: str,
    out_features: int,
    *,
    conv7: bool = True,
    init: str = "gaussian",
    weights: str | None = None,
    normalization: str = "caffe",
) -> NetworkConfig:
    """VGG-16 and an MLP of 4096, 4096 and K (section 4, default network).

    Args:
        output: of :class:`PixelNet`.
        out_features: K, classes or values a pixel.
        conv7: whether the hypercolumns have VGG's fc7, 1/32 of the resolution, as well.
        init: of the head: ``"gaussian"``, deviation 1e-3, or the authors' ``"normals"``.
        weights: a ``.caffemodel``, a file that :meth:`VGG16.load_torchvision` takes, ``"imagenet"``
            for torchvision to fetch it, or None for random ones.
        normalization: of the images for these weights: ``"caffe"`` for those converted from the
            authors' models (:func:`load_caffe`), ``"torchvision"`` for torchvision's.

    Example:
        >>> from pixelnet_triton.models.presets import paper_network
        >>> config = paper_network("softmax", 21)  # VOC 2012
        >>> config.head["hidden_features"], len(config.backbone_options["layers"])
        ([4096, 4096], 6)
    """
    options: dict[str, Any] = {
        "layers": CONV7_LAYERS if conv7 else BASELINE_LAYERS,
        "normalization": normalization,
        "weights": weights,
    }
    head = {
        "hidden_features": (_WIDTH, _WIDTH),
        "out_features": out_features,
        "dropout": _DROPOUT,
        "init": init,
    }
    return NetworkConfig("vgg16", options, head, output)


#: By name; segmentation is that of the 59 classes of PASCAL-Context. Weights are random.
NETWORKS = {
    "segmentation-baseline": paper_network("softmax", 59, conv7=False),
    "segmentation": paper_network("softmax", 59),
    "normals": paper_network("normals", 3, conv7=False, init="normals"),
    "edges-baseline": paper_network("sigmoid", 1, conv7=False),
    "edges": paper_network("sigmoid", 1),
}
