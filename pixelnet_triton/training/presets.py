"""`PRESETS`: the paper's trainings, each number in one place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from ..models.config import NetworkConfig
from ..models.presets import NETWORKS
from ..sampling import BiasedSampler, UniformSampler
from .recipe import EDGE_RECIPE, Recipe
from .tasks import Edges, Normals, Segmentation, Task

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """A training of the paper: what is trained, on what of each image, how long and how.

    Args:
        network: without weights; those of ImageNet go into its backbone (section 4).
        task: with its sampler, N pixels of each image.
        recipe: the optimiser and its schedule.
        images: M of a mini-batch.
        epochs: passes over the training images.
        scales: of the training images, one drawn each time; (1.0,) leaves them as they are.
        test_scales: of :meth:`~pixelnet_triton.models.PixelNet.predict`, averaged.
        start: the preset whose trained network this one goes on from; None: from ImageNet.

    Example:
        >>> from pixelnet_triton.training.presets import PRESETS
        >>> preset = PRESETS["edges"]
        >>> preset.images * preset.task.sampler.n, preset.epochs  # pixels of a mini-batch
        (10000, 25)
    """

    network: NetworkConfig
    task: Task
    recipe: Recipe = field(default_factory=Recipe)
    images: int = 5
    epochs: int = 96
    scales: tuple[float, ...] = (1.0,)
    test_scales: tuple[float, ...] = (1.0,)
    start: str | None = None


_POINTS = 2000
_SEGMENTATION = Preset(
    NETWORKS["segmentation"],
    Segmentation(59, UniformSampler(_POINTS)),
    scales=(0.25, 0.5),
    test_scales=(0.5,),
)
_EDGES = Preset(
    NETWORKS["edges"],
    Edges(BiasedSampler(_POINTS, positive_fraction=0.5)),
    EDGE_RECIPE,
    epochs=25,
    scales=(0.5, 1.0),
)

#: By name. Sections 4 and 4.1 (segmentation), 4.2 (normals), 4.3 (edges); tests/test_presets.py
#: compares each number with the paper's sentence.
PRESETS = {
    "segmentation-baseline": dataclasses.replace(
        _SEGMENTATION, network=NETWORKS["segmentation-baseline"]
    ),
    "segmentation": _SEGMENTATION,
    # Analysis-4: a rate of 1e-3 again, a tenth of it every 8 epochs, three scales in the test.
    "segmentation-multi-scale": dataclasses.replace(
        _SEGMENTATION,
        recipe=Recipe(decay_at=(8 / 24, 16 / 24)),
        epochs=24,
        scales=(0.25, 0.5, 1.0),
        test_scales=(0.25, 0.5, 1.0),
        start="segmentation",
    ),
    "normals": Preset(NETWORKS["normals"], Normals(UniformSampler(_POINTS))),
    "edges-baseline": dataclasses.replace(_EDGES, network=NETWORKS["edges-baseline"]),
    "edges": _EDGES,
}
