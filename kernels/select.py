"""Which tile a kernel runs with, and why.

A kernel's tiles stand in a table above the kernel. Here stand the rules that choose among them: for
each kernel a list, of which the first row that holds decides. A tuner may be asked before.

Nothing here needs Triton: the cost model asks the same rules on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..call.sampling import Sampling

__all__ = [
    "RULES",
    "Key",
    "Question",
    "Rule",
    "Tile",
    "choose",
    "ruled",
    "set_tuner",
    "tile_for",
    "tuner",
]


@dataclass(frozen=True)
class Tile:
    """A launch configuration.

    Args:
        rows, columns: results that one program computes.
        terms: of the sum behind each result, in one step; 0 where nothing is multiplied.
        num_warps, num_stages, maxnreg: Triton's own; None leaves them to the compiler.
    """

    rows: int
    columns: int
    terms: int = 0
    num_warps: int = 4
    num_stages: int | None = None
    maxnreg: int | None = None


class Key(NamedTuple):
    """What a choice may depend on.

    Args:
        dtype: of what is read and multiplied.
        points: P. outputs: D, 0 where it does not count. channels: of the narrowest layer, or of
            the one width that all have.
        capability: of the device, ten times the major version and the minor one: 80, 90, 100;
            None if it is unknown or no NVIDIA GPU.
        activation: None, "relu" or "gelu".
        contiguous: channels of every map that is read lie side by side, as in channels_last ones.
    """

    dtype: torch.dtype
    points: int
    outputs: int = 0
    channels: int = 0
    capability: int | None = None
    activation: str | None = None
    contiguous: bool = True


class Rule(NamedTuple):
    """`rows` x `columns` on `num_warps` warps, where `holds`; `why` says so in words."""

    rows: int
    columns: int
    num_warps: int
    why: str
    holds: Callable[[Key], bool]


def _always(key: Key) -> bool:
    return True


def _float32(key: Key) -> bool:
    return key.dtype == torch.float32


def _small_float32(key: Key) -> bool:
    return _float32(key) and key.capability in (86, 89, 120, 121)


def _few(key: Key) -> bool:
    return key.outputs <= 64 or key.points < 512


def _wide(key: Key) -> bool:
    """On Hopper, whose registers hold so many sums without spilling."""
    return key.capability == 90 and key.channels >= 256 and key.points >= 4096


def _lean(key: Key) -> bool:
    return key.capability == 90 and key.activation != "gelu"


def _sparse(key: Key) -> bool:
    """So few points that longer programs would leave multiprocessors idle."""
    return key.points < 1024


def _short(key: Key) -> bool:
    return _sparse(key) or not key.contiguous


def _narrow(key: Key) -> bool:
    return key.channels < 64


RULES: dict[str, tuple[Rule, ...]] = {
    "gather": (
        Rule(
            32,
            64,
            4,
            "narrow layers of few points, in float32, or whose channels come one by one",
            lambda key: _narrow(key) and (_short(key) or _float32(key)),
        ),
        Rule(32, 128, 4, "a layer has less than 64 channels", _narrow),
        Rule(16, 64, 4, "few points, or channels that come one by one", _short),
        Rule(16, 128, 4, "corners of more channels in float32 take too many registers", _float32),
        Rule(16, 256, 4, "a point's place is worked out once for as many channels", _always),
    ),
    "coordinate_gradient": (
        Rule(16, 128, 4, "every layer has 128 channels", lambda key: key.channels >= 128),
        Rule(16, 64, 4, "every layer has 64 channels", lambda key: key.channels >= 64),
        Rule(32, 32, 4, "a layer has less than 64 channels", _always),
    ),
    "rows": (
        Rule(32, 64, 4, "less than 64 outputs", lambda key: key.outputs < 64),
        Rule(16, 64, 4, "few points", _sparse),
        Rule(16, 64, 4, "corners of more outputs in float32 take too many registers", _float32),
        Rule(16, 128, 4, "a point's place is worked out once for as many outputs", _always),
    ),
    "scatter": (
        Rule(32, 32, 4, "a layer has 32 channels or less", lambda key: key.channels <= 32),
        Rule(64, 64, 4, "float32 products take more registers", _float32),
        Rule(64, 256, 4, "on Hopper, every layer has 256 channels: fewest instructions", _wide),
        Rule(64, 128, 4, "every layer has 128 channels", lambda key: key.channels >= 128),
        Rule(128, 64, 4, "a layer has less than 128 channels", _always),
    ),
    "collect": (
        Rule(32, 32, 4, "32 outputs or less", lambda key: key.channels <= 32),
        Rule(64, 64, 4, "float32 products take more registers", _float32),
        Rule(64, 256, 4, "on Hopper, 256 outputs or more: fewest instructions", _wide),
        Rule(64, 128, 4, "half precision", _always),
    ),
    "fused_linear": (
        Rule(64, 64, 4, "float32, and 99 KB of shared memory", _small_float32),
        Rule(64, 128, 8, "float32 sums of products take more registers", _float32),
        Rule(32, 64, 4, "64 outputs or 512 points do not fill a wider tile", _few),
        Rule(64, 128, 4, "128 outputs or less", lambda key: key.outputs <= 128),
        Rule(64, 256, 4, "on Hopper, without a GELU: measured fastest", _lean),
        Rule(64, 256, 8, "enough outputs for the widest tile", _always),
    ),
    "banded": (
        Rule(128, 128, 8, "a GELU spills beside more sums", lambda key: key.activation == "gelu"),
        Rule(128, 128, 4, "128 outputs or less", lambda key: key.outputs <= 128),
        Rule(128, 256, 8, "measured fastest", _always),
    ),
}


def choose(kernel: str, key: Key) -> Rule:
    """The rule that decides about a launch.

    >>> rule = choose("fused_linear", Key(torch.float32, points=10_000, outputs=256))
    >>> rule.columns, rule.why
    (128, 'float32 sums of products take more registers')
    """
    return next(rule for rule in RULES[kernel] if rule.holds(key))


class Question(NamedTuple):
    """A launch that is about to happen, as a tuner is asked about it.

    Args:
        kernel: its name. tiles: its table. key: what the rules see. s: maps, points, geometry.
        trial: launches with a given tile, as often as it is called, and changes nothing.
    """

    kernel: str
    tiles: Sequence[Tile]
    key: Key
    s: Sampling
    trial: Callable[[Tile], object]


Tuner = Callable[[Question], "Tile | None"]
_tuner: Tuner | None = None


def set_tuner(tuner: Tuner | None) -> None:
    """Whom launches ask first: it returns a tile of the table, or None for no opinion."""
    global _tuner
    _tuner = tuner


def tuner() -> Tuner | None:
    """Whom launches ask first, if anybody."""
    return _tuner


def tile_for(
    kernel: str,
    tiles: Sequence[Tile],
    key: Key,
    s: Sampling,
    trial: Callable[[Tile], object],
) -> Tile:
    """The tile of a launch: the tuner's, if there is one with an opinion, or that of the rules."""
    if _tuner is not None:
        tuned = _tuner(Question(kernel, tiles, key, s, trial))
        if tuned is not None:
            return tuned
    return ruled(kernel, tiles, key)


def ruled(kernel: str, tiles: Sequence[Tile], key: Key) -> Tile:
    """The tile of the rules."""
    rule = choose(kernel, key)
    size = (rule.rows, rule.columns, rule.num_warps)
    return next(tile for tile in tiles if (tile.rows, tile.columns, tile.num_warps) == size)
