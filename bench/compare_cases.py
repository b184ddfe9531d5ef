"""What bench.compare times on both sides, by kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from .compare_side import Comparison
from .random_layers import TINY, random_workloads, small_workloads
from .workloads import Workload, registry

__all__ = ["KINDS", "comparisons"]

LAYERS = 12  # random first layers

Cases = list[Comparison]


def _both(workloads: Sequence[Workload]) -> Cases:
    """Forward, and with the backward pass."""
    return [
        Comparison(f"{w.name} {'training' if training else 'forward'}", asdict(w), training)
        for w in workloads
        for training in (False, True)
    ]


def _workloads(on_cpu: bool) -> Cases:
    """W1 to W5, channels_last and NCHW."""
    named = [w for w in registry(on_cpu) if w.family == "workload"]
    planes = [replace(w, name=f"{w.name} NCHW", channels_last=False) for w in named]
    return _both([w for pair in zip(named, planes, strict=True) for w in pair])


def _host(on_cpu: bool) -> Cases:
    """Calls that compute next to nothing, so that only the way there is timed."""
    ragged, planes = replace(TINY, ragged=True), replace(TINY, channels_last=False)
    cases = [
        Comparison(f"host {name} {'training' if training else 'forward'}", asdict(w), training)
        for name, w in (("call", TINY), ("ragged", ragged), ("NCHW", planes))
        for training in (False, True)
    ]
    cases.append(Comparison("host columns forward", asdict(TINY), False, "columns"))
    cases.append(Comparison("host plan_hypercolumn", asdict(TINY), False, "plan"))
    return [replace(case, host=True) for case in cases]


#: Kinds of cases, for a machine without a GPU or with one.
KINDS: dict[str, Callable[[bool], Cases]] = {
    "workloads": _workloads,
    "random": lambda on_cpu: _both(random_workloads(LAYERS)),
    "small": lambda on_cpu: _both(small_workloads()),
    "host": _host,
}


def comparisons(wanted: Sequence[str], on_cpu: bool) -> list[tuple[str, Comparison]]:
    """The cases of these kinds, or whose name begins with one of these words, each with its kind.

    Raises:
        ValueError: a word selects nothing.
    """
    known = [(kind, case) for kind, make in KINDS.items() for case in make(on_cpu)]
    for word in wanted:
        if not any(_selects(word, *item) for item in known):
            names = dict.fromkeys(case.name.split()[0] for _, case in known)
            raise ValueError(f"{word} unknown; there are {', '.join([*KINDS, *names])}")
    return [item for item in known if any(_selects(word, *item) for word in wanted)]


def _selects(word: str, kind: str, case: Comparison) -> bool:
    return word == kind or f"{case.name} ".startswith(f"{word} ")
