"""The samplers that go by labels, or by a mask of valid pixels, alone."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from .checks import check_classes, check_draw, valid_pixels
from .draw import cell_winners, grid_cells, random_keys, rank_by_turns, uniform
from .pixels import SampledPixels, SamplerSettings

__all__ = [
    "BiasedSampler",
    "ClassBalancedSampler",
    "StratifiedSampler",
    "UniformSampler",
]


@dataclass(frozen=True)
class _LabelSampler(SamplerSettings):
    """A sampler that needs labels, or a mask of valid pixels, and nothing else."""

    def __call__(
        self,
        labels: Tensor | None = None,
        *,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> SampledPixels:
        """Draw n pixels of each image.

        Args:
            labels: ``(B, H, W)`` integer or bool. May be None, or floating (depth), where `valid`
                is given and the sampler does not go by labels.
            valid: ``(B, H, W)`` bool, the pixels that may be drawn; with integer labels those
                among them that are not `ignore_index`.
            generator: of the random numbers, on the device of `labels`; None takes PyTorch's own.

        Returns:
            :class:`SampledPixels` with n points per image.

        Raises:
            TypeError, ValueError: labels, mask or generator cannot be served, or, on the CPU,
                labels are no class ids; the message names it and the remedy.
        """
        check_draw(labels, valid, generator)
        mask = valid_pixels(labels, valid, self.ignore_index)
        return self.pixels(self._rank(labels, mask, generator), mask)

    def _rank(
        self, labels: Tensor | None, valid: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """``(B, min(n, HW))`` distinct pixel indices, the valid ones before the others."""
        raise NotImplementedError


@dataclass(frozen=True)
class UniformSampler(_LabelSampler):
    """Uniform without replacement over the valid pixels of each image (PixelNet, section 3).

    Args:
        n: pixels drawn from each image; the paper takes 2,000.
        ignore_index: label of pixels that are never drawn; None draws them all.
        order: None, ``"rows"`` or ``"morton"``: the order of an image's points.

    Example:
        >>> import torch
        >>> from pixelnet_triton.sampling import UniformSampler
        >>> labels = torch.randint(0, 21, (5, 224, 224))
        >>> pixels = UniformSampler(2000)(labels, generator=torch.Generator().manual_seed(0))
        >>> pixels.points.shape, pixels.take(labels).shape
        (torch.Size([5, 2000, 2]), torch.Size([5, 2000]))
    """

    def _rank(
        self, labels: Tensor | None, valid: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        keys = random_keys(valid.flatten(1), generator)
        return keys.topk(min(self.n, keys.shape[1])).indices


@dataclass(frozen=True)
class StratifiedSampler(_LabelSampler):
    """Uniform within each cell of a grid: points spread over the whole image (jittered grid).

    The grid has about ``n / per_cell`` cells of the image's proportions and lies at a random
    place, so that each pixel is drawn equally often, as long as none is ignored. Every cell gives
    `per_cell` pixels at random, or all the valid ones it has; the pixels then missing to n are
    drawn uniformly from the rest. So valid pixels among ignored ones are drawn more often.

    Args:
        n: pixels drawn from each image.
        per_cell: pixels drawn from each cell; the time of a draw grows with it.
        ignore_index: label of pixels that are never drawn; None draws them all.
        order: None, ``"rows"`` or ``"morton"``: the order of an image's points.

    Example:
        >>> import torch
        >>> from pixelnet_triton.sampling import StratifiedSampler
        >>> StratifiedSampler(2000)(torch.randint(0, 21, (5, 224, 224))).points.shape
        torch.Size([5, 2000, 2])
    """

    n: int
    per_cell: int = 1

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the grid on an image: at most ``n / per_cell`` cells."""
        cells = max(1, self.n // self.per_cell)
        rows = min(height, cells, max(1, int((cells * height / width) ** 0.5)))
        return rows, min(width, cells // rows)

    def _rank(
        self, labels: Tensor | None, valid: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        batch, height, width = valid.shape
        rows, columns = self.grid(height, width)
        keys = random_keys(valid.flatten(1), generator)
        cell = grid_cells(
            height, width, rows, columns, batch, device=keys.device, generator=generator
        )
        places = cell_winners(keys, cell, rows * columns, self.per_cell)
        return (keys + places).topk(min(self.n, keys.shape[1])).indices


@dataclass(frozen=True)
class BiasedSampler(_LabelSampler):
    """A fixed fraction of positives, each kind uniform without replacement (PixelNet, Table 6).

    ``positive_fraction * n`` (rounded) of the n pixels are positive, the others valid and not
    positive. Where an image has too few of one kind, all of that kind are drawn and the other kind
    fills up to n.

    Args:
        n: pixels drawn from each image.
        positive_fraction: in [0, 1]; the paper tries 0.25, 0.5 and 0.75 for edges.
        positive: the label of positives, which the labels' dtype has to be able to hold.
        ignore_index: label of pixels that are never drawn; None draws them all.
        order: None, ``"rows"`` or ``"morton"``: the order of an image's points.

    Example:
        >>> import torch
        >>> from pixelnet_triton.sampling import BiasedSampler
        >>> edges = (torch.rand(5, 224, 224) < 0.1).long()
        >>> pixels = BiasedSampler(2000, positive_fraction=0.25)(edges)
        >>> pixels.take(edges).sum(dim=1)
        tensor([500, 500, 500, 500, 500])
    """

    n: int
    positive_fraction: float = 0.5
    _: KW_ONLY
    positive: int = 1

    def _rank(
        self, labels: Tensor | None, valid: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        labels = check_classes(self, labels)
        share = round(self.positive_fraction * self.n) / self.n
        device, batch = valid.device, len(valid)
        shares = torch.full((2,), 1 - share, device=device, dtype=torch.float32)
        shares[1:] = share
        return rank_by_turns(
            (labels == self.positive).flatten(1).long(),
            valid.flatten(1),
            shares,
            # w n + 1/2 rounds to w n
            torch.full((batch, 2), 0.5, device=device, dtype=torch.float32),
            self.n,
            smallest_weight=min(share, 1 - share) or 1.0,
            generator=generator,
        )


@dataclass(frozen=True)
class ClassBalancedSampler(_LabelSampler):
    """Equally many pixels of every class that an image has, each class uniform.

    The numbers of two classes differ by at most one; a class with fewer pixels than its share
    gives all it has, and the others share the rest equally.

    Args:
        n: pixels drawn from each image.
        num_classes: labels are in [0, num_classes), apart from `ignore_index`. A tight bound
            saves a little time.
        ignore_index: label of pixels that are never drawn; None draws them all.
        order: None, ``"rows"`` or ``"morton"``: the order of an image's points.

    Example:
        >>> import torch
        >>> from pixelnet_triton.sampling import ClassBalancedSampler
        >>> labels = (torch.rand(1, 64, 64) < 0.1).long()
        >>> ClassBalancedSampler(200, num_classes=21)(labels).take(labels).unique(
        ...     return_counts=True
        ... )
        (tensor([0, 1]), tensor([100, 100]))
    """

    n: int
    num_classes: int = 256

    def _rank(
        self, labels: Tensor | None, valid: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        labels = check_classes(self, labels, valid, self.num_classes)
        device, classes = valid.device, self.num_classes
        return rank_by_turns(
            labels.flatten(1).long(),
            valid.flatten(1),
            torch.full((classes,), 1 / classes, device=device, dtype=torch.float32),
            # Chance decides which classes give one pixel more, where they cannot give equally many.
            uniform((len(valid), classes), generator, device),
            self.n,
            smallest_weight=1 / classes,
            generator=generator,
        )
