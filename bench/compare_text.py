"""What bench.compare prints: for each case the ratio, its range, and the control's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .summary import duration
from .timing import quantile

__all__ = ["Paired", "common_noise", "table"]

#: The share of all cases whose controls make the noise that is common to them, and the share of
#: generations that has to agree on one case.
SHARE, MOST = 0.9, 0.75


@dataclass
class Paired:
    """One case: of each generation of processes the median ratios over the rounds.

    Args:
        name: of the case; `kind`: what it is summed up under.
        seconds: of a call on the base, the median of each generation.
        ratios: here / the mean of base and control. controls: control / base.
        problem: why it could not be compared.
    """

    name: str
    kind: str
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    controls: list[float] = field(default_factory=list)
    problem: str = ""

    @property
    def ratio(self) -> float:
        """The median over the generations."""
        return quantile(self.ratios, 0.5)

    def noise(self, common: float) -> float:
        """By how much the control's ratios are off 1 here, at least what is common to all cases."""
        return max(quantile([abs(math.log(control)) for control in self.controls], MOST), common)

    def verdict(self, common: float) -> str:
        """Slower or faster: the median is so beyond the noise, and most generations agree."""
        noise, logarithm = self.noise(common), math.log(self.ratio)
        if logarithm > noise and quantile(self.ratios, 1 - MOST) > 1:
            return "SLOWER"
        return "faster" if logarithm < -noise and quantile(self.ratios, MOST) < 1 else ""


def common_noise(cases: Iterable[Paired]) -> float:
    """What SHARE of all the cases' controls stay below: |log ratio|."""
    deviations = [abs(math.log(quantile(case.controls, 0.5))) for case in cases]
    return quantile(deviations, SHARE) if deviations else 0.0


def table(cases: Sequence[Paired]) -> str:
    """A row for each case, and a mean for each kind."""
    timed = [case for case in cases if case.ratios]
    common = common_noise(timed)
    rows = [f"{'case':28} {'base':>8} {'ratio':>6}  {'range':13}  {'control':>7}  {'range':13}"]
    for case in cases:
        if case.problem:
            rows.append(f"{case.name:28} {case.problem}")
        if not case.ratios:
            continue
        base, control = quantile(case.seconds, 0.5), quantile(case.controls, 0.5)
        row = (
            f"{case.name:28} {duration(base):>8} {case.ratio:6.3f}  {_range(case.ratios)}  "
            f"{control:7.3f}  {_range(case.controls)}  {case.verdict(common)}"
        )
        rows.append(row.rstrip())
    for kind in dict.fromkeys(case.kind for case in timed):
        same = [case for case in timed if case.kind == kind]
        ratio = _mean([case.ratio for case in same])
        control = _mean([quantile(case.controls, 0.5) for case in same])
        rows.append(f"{f'all {kind}, geometric mean':37} {ratio:6.3f}  {'':13}  {control:7.3f}")
    slower = [case.name for case in timed if case.verdict(common) == "SLOWER"]
    rows.append(
        f"Noise: {SHARE:.0%} of the control's ratios are within {math.expm1(common):.1%} of 1. "
        f"Slower beyond it: {', '.join(slower) or 'none'}."
    )
    return "\n".join(rows)


def _range(ratios: Sequence[float]) -> str:
    return f"{min(ratios):.3f}-{max(ratios):.3f}".ljust(13)


def _mean(ratios: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
