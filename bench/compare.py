"""The library here against another version of it: does a change make it slower?

    python -m bench.compare main                           # the working tree against a commit
    python -m bench.compare FOLDER                         # against another checkout
    python -m bench.compare main --minutes 4               # instead of 11
    python -m bench.compare main --cases W1,random,host    # some of the cases

Cases: `workloads` (W1 to W5, channels_last and NCHW), `random` (random first layers), `small`
(small calls), all forward and with the backward pass, and `host` (calls of next to nothing: the
host's time), or the first word of a case's name.

docs/benchmarks.md says how they are measured. Printed are the median ratio here / base (above 1:
slower; the base is the mean of its two processes), its range over the generations of processes, and
the same for control / base, which is 1 but for noise. The exit status is 1 if a case fails, or is
slower beyond the noise.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from numpy import quantile

from .compare_side import Ask, Comparison, Ended, Failed, process
from .results import duration
from .workloads import TINY, random_workloads, registry, small_workloads

ROOT = Path(__file__).resolve().parent.parent
MINUTES, GENERATIONS = 11.0, 3  # of all; the fewest generations of processes
PART = 1.4e-3  # of all the minutes, which a case gets in a generation
SLOT, CALLS, ROUNDS, LEAST = 0.025, 200, 9, 3  # seconds and calls a turn; rounds, and the fewest
KINDS = ("workloads", "random", "small", "host")
#: Relative deviations that sums of the results may have.
ALLOWED = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
#: The share of all cases whose controls make the noise that is common to them, and the share of
#: generations that has to agree on one case.
SHARE, MOST = 0.9, 0.75


@dataclass
class Paired:
    """One case: of each generation of processes the median ratios over the rounds.

    Args:
        seconds: of a call on the base, the median of each generation.
        ratios: here / the mean of base and control. controls: control / base.
        problem: why it could not be compared.
    """

    case: Comparison
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    controls: list[float] = field(default_factory=list)
    problem: str = ""

    @property
    def ratio(self) -> float:
        """The median over the generations."""
        return statistics.median(self.ratios)

    @property
    def control(self) -> float:
        """That of the control."""
        return statistics.median(self.controls)

    def verdict(self, common: float) -> str:
        """Slower or faster: by more than the control is off 1 here, and than what is common to all
        cases, and most generations agree."""
        here = quantile([abs(math.log(control)) for control in self.controls], MOST)
        noise, logarithm = max(here, common), math.log(self.ratio)
        if logarithm > noise and quantile(self.ratios, 1 - MOST) > 1:
            return "SLOWER"
        return "faster" if logarithm < -noise and quantile(self.ratios, MOST) < 1 else ""

    def row(self, common: float) -> str:
        """Of the table."""
        if not self.ratios:
            return f"{self.case.name:28} {self.problem}"
        ratios, controls = (
            f"{median:6.3f}  {f'{min(all_):.3f}-{max(all_):.3f}':13}"
            for median, all_ in ((self.ratio, self.ratios), (self.control, self.controls))
        )
        base, end = duration(statistics.median(self.seconds)), self.problem or self.verdict(common)
        return f"{self.case.name:28} {base:>8} {ratios}   {controls}  {end}".rstrip()


def common_noise(cases: Iterable[Paired]) -> float:
    """What SHARE of all the cases' controls stay below: |log ratio|."""
    deviations = [abs(math.log(case.control)) for case in cases if case.ratios]
    return quantile(deviations, SHARE) if deviations else 0.0


def slower(cases: Sequence[Paired]) -> list[str]:
    """Names of the cases that are slower beyond the noise."""
    common = common_noise(cases)
    return [c.case.name for c in cases if c.ratios and c.verdict(common) == "SLOWER"]


def table(cases: Sequence[Paired]) -> str:
    """A row for each case, and a mean for each kind."""
    common = common_noise(cases)
    rows = [f"{'case':28} {'base':>8} {'ratio':>6}  {'range':13}  {'control':>7}  {'range':13}"]
    rows += [case.row(common) for case in cases]
    for kind in KINDS:
        if same := [case for case in cases if case.case.kind == kind and case.ratios]:
            ratio = statistics.geometric_mean(c.ratio for c in same)
            control = statistics.geometric_mean(c.control for c in same)
            rows.append(f"{f'all {kind}, geometric mean':37} {ratio:6.3f}  {'':13}  {control:7.3f}")
    rows.append(
        f"Noise: {SHARE:.0%} of the control's ratios are within {math.expm1(common):.1%} of 1. "
        f"Slower beyond it: {', '.join(slower(cases)) or 'none'}."
    )
    return "\n".join(rows)


def comparisons(wanted: Sequence[str], on_cpu: bool) -> list[Comparison]:
    """The cases of these kinds, or whose name begins with one of these words.

    Raises:
        ValueError: a word selects nothing.
    """
    named = [w for w in registry(on_cpu) if w.family == "workload"]
    planes = [replace(w, name=f"{w.name} NCHW", channels_last=False) for w in named]
    ragged, apart = replace(TINY, ragged=True), replace(TINY, channels_last=False)
    host = {"call": TINY, "ragged": ragged, "NCHW": apart}
    workloads = {
        "workloads": named + planes,
        "random": random_workloads(12),
        "small": small_workloads(),
        "host": [replace(w, name=f"host {word}") for word, w in host.items()],
    }
    cases = [
        Comparison(f"{w.name} {word}", kind, w, word == "training")
        for kind in KINDS
        for w in workloads[kind]
        for word in ("forward", "training")
    ]
    cases.append(Comparison("host columns forward", "host", TINY, False, "columns"))
    cases.append(Comparison("host plan_hypercolumn", "host", TINY, False, "plan"))
    selected = {w: [c for c in cases if w in (c.kind, c.name.split()[0])] for w in wanted}
    for word, chosen in selected.items():
        if not chosen:
            names = dict.fromkeys(case.name.split()[0] for case in cases)
            raise ValueError(f"{word} unknown; there are {', '.join([*KINDS, *names])}")
    return [case for case in cases if any(case in chosen for chosen in selected.values())]


@contextlib.contextmanager
def checkout(base: str) -> Iterator[Path]:
    """The folder `base`, or a checkout of the commit `base` in a temporary folder.

    Raises:
        subprocess.CalledProcessError: git knows no such commit.
    """

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)

    if Path(base, "pixelnet_triton", "__init__.py").is_file():
        yield Path(base).resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "base").resolve()
        git("worktree", "add", "--detach", str(path), base)
        try:
            yield path
        finally:
            git("worktree", "remove", "--force", str(path))


def measure(sides: Sequence[Ask], paired: Paired, seconds: float) -> None:
    """One case in one generation of processes (base, control, here), within about so many seconds.

    Raises:
        Failed: a process could not do it, or the results differ.
    """
    case = paired.case
    (second, sums), *others = [ask("prepare", case) for ask in sides]
    allowed = ALLOWED[case.workload.dtype]
    for _, other_sums in others:
        for (norm, total), (other_norm, other_total) in zip(sums, other_sums, strict=True):
            error = max(abs(norm - other_norm), abs(total - other_total)) / max(norm, 1e-30)
            if not error <= allowed:
                raise Failed(f"the results differ: by {error:.2g} of their norm, {allowed} allowed")
    first = max(second, 1e-6)
    count = max(1, min(CALLS, int(SLOT / first)))
    turns: list[list[float]] = []
    for _ in range(max(LEAST, min(ROUNDS, int(seconds / (3 * (count + 1) * first))))):
        turn = [0.0] * 3
        for number in random.sample(range(3), 3):
            # less disturbed than the median of a turn, and not as lucky as the least
            turn[number] = quantile(sides[number]("time", count, 4 * SLOT), 0.2)
        turns.append(turn)
    paired.seconds.append(statistics.median(b for b, _, _ in turns))
    paired.ratios.append(statistics.median(h / (b * c) ** 0.5 for b, c, h in turns))
    paired.controls.append(statistics.median(c / b for b, c, _ in turns))


def compare(
    base: Path,
    here: Path,
    cases: list[Comparison],
    device: torch.device,
    minutes: float,
    least: int = GENERATIONS,
) -> list[Paired]:
    """All cases, in as many generations of processes as the minutes allow, `least` at least."""
    paired = [Paired(case) for case in cases]
    start, longest, generation = time.monotonic(), 0.0, 0
    while generation < least or time.monotonic() - start + longest < 60 * minutes:
        began = time.monotonic()
        generation += 1
        with contextlib.ExitStack() as stack:
            sides = [
                stack.enter_context(process(role, folder, device))
                for role, folder in (("base", base), ("control", base), ("here", here))
            ]
            for case in paired:
                if case.problem:
                    continue
                try:
                    measure(sides, case, 60 * minutes * PART)
                except Failed as error:
                    case.problem = str(error)
                    if isinstance(error, Ended):
                        break  # the next generation goes on without this case
        longest = max(longest, time.monotonic() - began)
        print(f"generation {generation}: {longest:.0f} s", file=sys.stderr, flush=True)
    return paired


def main(arguments: list[str] | None = None) -> int:
    """Measure both sides in turns, and print the table; 1 if something is slower, or fails."""
    from .machine import DEVICE  # here, as it imports the library, which a side has to choose first

    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("base", metavar="BASE", help="a commit, or the folder of a checkout")
    parser.add_argument("--cases", default=",".join(KINDS), help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        cases = comparisons(options.cases.split(","), DEVICE.type == "cpu")
    except ValueError as error:
        parser.error(f"--cases: {error}")
    try:
        with checkout(options.base) as base:
            paired = compare(base, ROOT, cases, DEVICE, options.minutes)
    except subprocess.CalledProcessError:
        parser.exit(1, f"bench.compare: {options.base} is no commit, and no checkout\n")
    generations = max(len(case.ratios) for case in paired)
    print(
        f"base {options.base}, here {ROOT.name} as it is; on {DEVICE}, "
        f"{torch.get_num_threads()} threads, {generations} generations of processes"
    )
    print(table(paired))
    return 1 if slower(paired) or any(case.problem for case in paired) else 0


if __name__ == "__main__":
    sys.exit(main())
