"""What all calls of one kind share, worked out once: most are like the one before.

The checks and the choice of a way to compute take some 20 us, a tenth of a small call; finding
them by everything they look at takes 3. In a training loop it is 10, because the interpreter's code
is out of the caches by then: every Python function less counts. So nothing is looked at but the
arguments and autograd's and autocast's state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .call.geometry import Geometry, Stride
from .planner import Plan

__all__ = ["KnownCall", "recall", "remember", "signature"]


@dataclass(frozen=True)
class KnownCall:
    """Such a call passed all checks.

    geometry: how its points fall onto its maps. plan: its name, for the operator. training: a
    gradient is wanted. small: computes it, if it is a small one, from (features, points,
    batch_index, weight, bias, activation), and may return None to leave it to the operator.
    """

    geometry: Geometry
    plan: str
    training: bool
    small: Callable[..., Tensor | None] | None


_KNOWN: dict[object, KnownCall] = {}
_MOST_KNOWN = 1024
_PLAIN = (Tensor, nn.Parameter)


def recall(key: object) -> KnownCall | None:
    """What is known of calls with that signature."""
    try:
        return None if key is None else _KNOWN.get(key)
    except TypeError:  # some option is not hashable: the checks will name it
        return None


def remember(key: object, known: KnownCall) -> None:
    """Keep it, if calls of this kind can be told from others."""
    if key is not None:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[key] = known


def signature(
    features: Sequence[Tensor],
    tensors: Sequence[Tensor | None],
    image_size: tuple[int, int],
    strides: Sequence[Stride] | None,
    plan: str | Plan,
    options: tuple[str | None, str, bool, str, str],
) -> object:
    """All that checks and choices look at, hashable; None for anything out of the ordinary.

    That is: while tracing, under a transform of torch.func, for subclasses of tensors, and for
    arguments of other types than they should have. `tensors`: points, weight, bias, batch_index.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return None
    if type(features) not in (list, tuple) or type(plan) not in (str, Plan):
        return None
    found: list[object] = []
    wanted = False
    for feature in features:
        if type(feature) not in _PLAIN:
            return None
        place = feature.is_cpu or feature.device  # making the latter takes longer
        found += (feature.shape, feature.stride(), feature.dtype, place)
        wanted = wanted or feature.requires_grad
    for tensor in tensors:
        if tensor is None:
            found.append(None)
        elif type(tensor) in _PLAIN:
            place = tensor.is_cpu or tensor.device
            found += (tensor.shape, tensor.dtype, place, tensor.requires_grad)
        else:
            return None
    numbers = _numbers(image_size, strides)
    if numbers is None:
        return None
    device = "cpu" if features and features[0].is_cpu else "cuda"
    state = (wanted, torch.is_grad_enabled(), torch.is_autocast_enabled(device))
    return (*found, *numbers, plan, options, type(options[2]), state)


def _numbers(image_size: tuple[int, int], strides: Sequence[Stride] | None) -> tuple | None:
    """Both with the types of their numbers, because 1 == 1.0 == True are one key; None if odd."""
    if type(image_size) not in (tuple, torch.Size):
        return None
    if strides is None:
        plain = len(image_size) == 2 and type(image_size[0]) is type(image_size[1]) is int
        return (image_size,) if plain else None
    if type(strides) not in (list, tuple):
        return None
    kinds = tuple([type(number) for number in (*image_size, *strides)])
    return (image_size, tuple(strides), kinds) if {int, float}.issuperset(kinds) else None
