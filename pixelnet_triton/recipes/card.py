"""What a checkpoint says of its task, so that nothing else is needed to use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..data.voc import voc_palette
from ..sampling import BiasedSampler, UniformSampler
from ..training import Depth, Edges, Normals, Segmentation, Task
from .ranks import Samples
from .setup import Setup
from .view import View

__all__ = ["TaskCard"]

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class TaskCard:
    """A task as users see it: its name, its classes and their colours, the size of the images.

    Args:
        name: ``"segmentation"``, ``"edges"``, ``"normals"`` or ``"depth"``.
        data: the data set of the training, by its name in `DATASETS`.
        view: the size at which the network sees images.
        classes, palette: of a segmentation.

    Example:
        >>> from pixelnet_triton.recipes import TaskCard, View
        >>> card = TaskCard("edges", "bsds500", View(scale=0.5))
        >>> TaskCard.from_dict(card.as_dict()) == card
        True
    """

    name: str
    data: str
    view: View = View()  # noqa: RUF009 (frozen)
    classes: tuple[str, ...] = ()
    palette: tuple[Colour, ...] = ()

    @classmethod
    def of(cls, name: str, data: str, view: View, samples: Samples) -> TaskCard:
        """With the classes of a reader and its colours, or else VOC's from the second on."""
        source: Any = samples
        while not hasattr(source, "CLASSES") and hasattr(source, "dataset"):
            source = source.dataset
        classes: Sequence[str] = getattr(source, "CLASSES", ())
        if name == "segmentation" and not classes:
            raise ValueError(
                f"the reader {type(source).__name__} does not name its classes; give it an "
                "attribute CLASSES, a tuple of their names in the order of their labels"
            )
        if name != "segmentation":
            return cls(name, data, view)
        palette = getattr(source, "PALETTE", None) or voc_palette(range(1, len(classes) + 1))
        return cls(name, data, view, tuple(classes), tuple(palette))

    def task(self, setup: Setup) -> Task:
        """What is sampled, minimised and measured in training."""
        uniform = UniformSampler(setup.points)
        match self.name:
            case "segmentation":
                return Segmentation(len(self.classes), uniform)
            case "edges":
                return Edges(BiasedSampler(setup.points, positive_fraction=setup.positives))
            case "normals":
                return Normals(uniform)
            case "depth":
                return Depth(uniform)
        raise ValueError(f"name={self.name!r} is no task of this library")

    def as_dict(self) -> dict[str, Any]:
        """For the JSON in a checkpoint; :meth:`from_dict` is the way back."""
        return {
            "name": self.name,
            "data": self.data,
            "view": self.view.as_dict(),
            "classes": list(self.classes),
            "palette": [list(colour) for colour in self.palette],
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> TaskCard:
        """What :meth:`as_dict` gave.

        Raises:
            ValueError: a field is missing; the checkpoint was not written by these recipes.
        """
        try:
            return cls(
                fields["name"],
                fields["data"],
                View.from_dict(fields["view"]),
                tuple(fields["classes"]),
                tuple((red, green, blue) for red, green, blue in fields["palette"]),
            )
        except KeyError as error:
            raise ValueError(
                f"the checkpoint's task has no {error}; expected one that `python -m "
                "pixelnet_triton train` wrote"
            ) from error
