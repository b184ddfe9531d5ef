"""Sampling where a model is least sure, as PointRend does (arXiv 1912.08193)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import check_draw, check_score, valid_pixels
from .draw import random_keys, uniform
from .pixels import SampledPixels, SamplerSettings

__all__ = ["UncertaintySampler", "margin_uncertainty"]


@dataclass(frozen=True)
class UncertaintySampler(SamplerSettings):
    """Mostly the pixels a model is least sure of (PointRend, arXiv 1912.08193, section 3.1).

    Draws ``oversample * n`` candidates uniformly, keeps the ``important * n`` of highest score
    and fills up with others of the candidates, uniformly.

    Args:
        n: pixels drawn from each image.
        oversample: candidates per pixel, k in the paper; at least 1.
        important: fraction chosen by score, beta in the paper; in [0, 1].
        ignore_index: label of pixels that are never drawn; None draws them all.
        order: None, ``"rows"`` or ``"morton"``: the order of an image's points.

    Example:
        >>> import torch
        >>> from pixelnet_triton.sampling import UncertaintySampler, margin_uncertainty
        >>> logits = torch.randn(2, 21, 64, 64)
        >>> score = margin_uncertainty(logits.movedim(1, -1))
        >>> labels = torch.randint(0, 21, (2, 64, 64))
        >>> UncertaintySampler(500)(labels, score=score).points.shape
        torch.Size([2, 500, 2])
    """

    n: int
    oversample: float = 3.0
    important: float = 0.75

    def __call__(
        self,
        labels: Tensor | None = None,
        *,
        score: Tensor | Callable[[Tensor], Tensor],
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> SampledPixels:
        """Draw n pixels of each image.

        Args:
            labels, valid, generator: as in :class:`UniformSampler`.
            score: ``(B, H, W)``, higher where the model is less sure; or a function from
                candidate points ``(B, M, 2)`` int64 to their scores ``(B, M)``, which is called
                without gradients, and needs the network at the candidates only.
                Where it is NaN, a pixel has the lowest score; on the CPU, NaN raises.

        Returns:
            :class:`SampledPixels` with n points per image.

        Raises:
            TypeError, ValueError: labels, mask, generator or score cannot be served, or, on the
                CPU, a score is NaN; the message names it and the remedy.
        """
        check_draw(labels, valid, generator)
        mask = valid_pixels(labels, valid, self.ignore_index)
        if not callable(score):
            check_score(score, tuple(mask.shape), mask)
        width = mask.shape[2]
        keys = random_keys(mask.flatten(1), generator)
        many = min(keys.shape[1], round(self.oversample * self.n))
        candidate = keys.topk(many).indices  # (B, M), valid ones first
        usable = torch.arange(many, device=keys.device) < mask.flatten(1).sum(1)[:, None]
        with torch.no_grad():
            if callable(score):
                scores = score(torch.stack([candidate % width, candidate // width], dim=-1))
                check_score(scores, (len(keys), many), usable)
            else:
                scores = score.flatten(1).gather(1, candidate)
        lowest = torch.finfo(torch.float32).min
        scores = scores.float().nan_to_num(lowest, torch.inf, lowest)  # topk puts NaN first
        scores = torch.where(usable, scores, -torch.inf)
        taken = min(self.n, many)
        chosen = scores.topk(min(round(self.important * self.n), taken)).indices
        # Fresh keys: which of equal scores were chosen depends on the candidates' order.
        place = uniform(scores.shape, generator, keys.device)
        place = torch.where(usable, place, place + 1).scatter(1, chosen, 3)
        others = place.topk(taken - chosen.shape[1], largest=False).indices
        rank = candidate.gather(1, torch.cat([chosen, others], dim=1))
        return self.pixels(rank, mask)


def margin_uncertainty(scores: Tensor) -> Tensor:
    """How close a decision is: minus the margin between the two best classes.

    ``s_2 - s_1`` for sorted raw scores ``s_1 >= s_2 >= ...``; ``-|s|`` for one sigmoid score
    (PointRend, section 3.1). Zero is least sure.

    Args:
        scores: ``(..., K)`` raw scores.

    Returns:
        ``(...)``.

    Example:
        >>> import torch
        >>> from pixelnet_triton.sampling import margin_uncertainty
        >>> margin_uncertainty(torch.tensor([[5.0, 1.0, 2.0], [4.0, 4.0, 0.0]]))
        tensor([-3.,  0.])
    """
    if scores.shape[-1] == 1:
        return -scores[..., 0].abs()
    best = scores.topk(2, dim=-1).values
    return best[..., 1] - best[..., 0]
