"""The library here against another version of it: does a change make it slower?

    python -m bench.compare main                           # the working tree against a commit
    python -m bench.compare FOLDER                         # against another checkout
    python -m bench.compare main --minutes 4               # instead of 11
    python -m bench.compare main --cases W1,random,host    # some of the cases

Cases: `workload` (W1 to W5, channels_last and NCHW), `random` (random first layers), `small` (small
calls) and `host` (calls of next to nothing: the host's time), all forward and with the backward
pass, or the first word of a case's name.

docs/benchmarks.md says how they are measured. Printed are the median ratio here / base (above 1:
slower; the base is the mean of its two processes), its range over the generations of processes, and
the same for control / base, which is 1 but for noise. The exit status is 1 if a case fails, or is
slower beyond the noise.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from .compare_side import side_of
from .own_process import Ask, Ended, Failed, in_own_process
from .results import duration
from .workloads import (
    TINY,
    Case,
    in_both_layouts,
    random_workloads,
    registry,
    small_workloads,
)

ROOT = Path(__file__).resolve().parent.parent
MINUTES, GENERATIONS = 11.0, 3  # of all; the fewest generations of processes
PART = 1.4e-3  # of all the minutes, which a case gets in a generation
LIMIT = 300.0  # seconds of one request, after which a process ends itself
SLOT, CALLS, ROUNDS, LEAST = 0.025, 200, 9, 3  # seconds and calls a turn; rounds, and the fewest
KINDS = ("workload", "random", "small", "host")
SIDES = ("base", "control", "here")
#: Relative deviations that sums of the results may have.
ALLOWED = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
#: The share of all cases whose controls make the noise that is common to them, and the share of
#: generations that has to agree on one case.
SHARE, MOST = 0.9, 0.75


@dataclass
class Compared:
    """One case: of each generation of processes the medians over the rounds.

    Args:
        seconds: of a call on the base.
        ratios: here / the mean of base and control. controls: control / base.
        problem: why it could not be compared.
    """

    case: Case
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    controls: list[float] = field(default_factory=list)
    problem: str = ""

    def verdict(self, common: float) -> str:
        """Slower or faster: by more than the control is off 1 here, and than what is common to all
        cases, and most generations agree."""
        noise = max(np.quantile(np.abs(np.log(self.controls)), MOST), common)
        logarithm = np.log(np.median(self.ratios))
        if logarithm > noise and np.quantile(self.ratios, 1 - MOST) > 1:
            return "SLOWER"
        return "faster" if logarithm < -noise and np.quantile(self.ratios, MOST) < 1 else ""

    def row(self, common: float) -> str:
        """Of the table."""
        if not self.ratios:
            return f"{self.case!s:28} {self.problem}"
        ratios, controls = (
            f"{np.median(all_):6.3f}  {f'{min(all_):.3f}-{max(all_):.3f}':13}"
            for all_ in (self.ratios, self.controls)
        )
        base, end = duration(float(np.median(self.seconds))), self.problem or self.verdict(common)
        return f"{self.case!s:28} {base:>8} {ratios}   {controls}  {end}".rstrip()


def common_noise(cases: Iterable[Compared]) -> float:
    """What SHARE of all the cases' controls stay below: |log ratio|."""
    controls = [np.median(case.controls) for case in cases if case.ratios]
    return float(np.quantile(np.abs(np.log(controls)), SHARE)) if controls else 0.0


def slower(cases: Sequence[Compared]) -> list[str]:
    """Names of the cases that are slower beyond the noise."""
    common = common_noise(cases)
    return [str(c.case) for c in cases if c.ratios and c.verdict(common) == "SLOWER"]


def table(cases: Sequence[Compared]) -> str:
    """A row for each case, and a mean for each kind."""
    common = common_noise(cases)
    rows = [f"{'case':28} {'base':>8} {'ratio':>6}  {'range':13}  {'control':>7}  {'range':13}"]
    rows += [case.row(common) for case in cases]
    for kind in KINDS:
        same = [c for c in cases if c.case.workload.family == kind and c.ratios]
        if same:
            medians = [(np.median(c.ratios), np.median(c.controls)) for c in same]
            ratio, control = np.exp(np.log(medians).mean(axis=0))
            rows.append(f"{f'all {kind}, geometric mean':37} {ratio:6.3f}  {'':13}  {control:7.3f}")
    rows.append(
        f"Noise: {SHARE:.0%} of the control's ratios are within {np.expm1(common):.1%} of 1. "
        f"Slower beyond it: {', '.join(slower(cases)) or 'none'}."
    )
    return "\n".join(rows)


def selected(words: Sequence[str], on_cpu: bool) -> list[Case]:
    """The cases of these kinds, or whose name begins with one of these words.

    Raises:
        ValueError: a word selects nothing.
    """
    named = in_both_layouts(w for w in registry(on_cpu) if w.family == "workload")
    host = [
        *in_both_layouts([TINY]),
        replace(TINY, name="host ragged", ragged=True),
        replace(TINY, name="host columns", out_features=0),
    ]
    workloads = [*named, *random_workloads(12), *small_workloads(), *host]
    first_words = [w.name.split()[0] for w in workloads]
    for word in words:
        if word not in (*KINDS, *first_words):
            names = ", ".join(dict.fromkeys((*KINDS, *first_words)))
            raise ValueError(f"{word} unknown; there are {names}")
    return [
        Case(workload, training)
        for workload, first_word in zip(workloads, first_words, strict=True)
        for training in (False, True)
        if workload.family in words or first_word in words
    ]


@contextlib.contextmanager
def checkout(base: str) -> Iterator[Path]:
    """The folder `base`, or the files of the commit `base` in a temporary folder.

    Raises:
        subprocess.CalledProcessError: git knows no such commit.
    """
    if Path(base, "pixelnet_triton", "__init__.py").is_file():
        yield Path(base).resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        git = ["git", "archive", base]
        files = subprocess.run(git, cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-f", "-", "-C", folder], input=files, check=True)
        yield Path(folder).resolve()


def measure(sides: Sequence[Ask], compared: Compared, seconds: float) -> None:
    """One case in one generation of processes, in about so many seconds.

    Raises:
        Failed: a process could not do it, or the results differ.
    """
    case = compared.case
    (second, sums), *others = [ask("prepare", case) for ask in sides]
    allowed = ALLOWED[case.workload.dtype]
    for _, other_sums in others:
        norms = np.maximum(np.array(sums)[:, :1], 1e-30)
        error = np.max(np.abs(np.subtract(sums, other_sums)) / norms)
        if not error <= allowed:
            raise Failed(f"the results differ: by {error:.2g} of their norm, {allowed} allowed")
    first = max(second, 1e-6)
    count = max(1, min(CALLS, int(SLOT / first)))
    rounds = max(LEAST, min(ROUNDS, int(seconds / (3 * (count + 1) * first))))
    turns = np.empty((len(sides), rounds))
    for turn in range(rounds):
        for side in random.sample(range(len(sides)), len(sides)):
            # less disturbed than the median of a turn, and not as lucky as the least
            turns[side, turn] = np.quantile(sides[side]("time", count, 4 * SLOT), 0.2)
    base, control, here = turns
    compared.seconds.append(float(np.median(base)))
    compared.ratios.append(float(np.median(here / np.sqrt(base * control))))
    compared.controls.append(float(np.median(control / base)))


def compare(
    base: Path,
    here: Path,
    cases: Iterable[Case],
    device: torch.device,
    minutes: float,
    least: int = GENERATIONS,
) -> list[Compared]:
    """All cases, in as many generations of processes as the minutes allow, `least` at least."""
    compared = [Compared(case) for case in cases]
    start, longest, generation = time.monotonic(), 0.0, 0
    while generation < least or time.monotonic() - start + longest < 60 * minutes:
        began = time.monotonic()
        generation += 1
        with contextlib.ExitStack() as stack:
            caches = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in SIDES]
            sides = [
                stack.enter_context(
                    in_own_process(name, side_of, library, device, cache, limit=LIMIT)
                )
                for name, library, cache in zip(SIDES, (base, base, here), caches, strict=True)
            ]
            for case in (c for c in compared if not c.problem):
                try:
                    measure(sides, case, 60 * minutes * PART)
                except Failed as error:
                    case.problem = str(error)
                    if isinstance(error, Ended):
                        break  # the next generation goes on without this case
        longest = max(longest, time.monotonic() - began)
        print(f"generation {generation}: {longest:.0f} s", file=sys.stderr, flush=True)
    return compared


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
        cases = selected(options.cases.split(","), DEVICE.type == "cpu")
    except ValueError as error:
        parser.error(f"--cases: {error}")
    try:
        with checkout(options.base) as base:
            compared = compare(base, ROOT, cases, DEVICE, options.minutes)
    except subprocess.CalledProcessError:
        parser.error(f"{options.base} is no commit, and no checkout")
    print(
        f"base {options.base}, here {ROOT.name} as it is; on {DEVICE}, "
        f"{torch.get_num_threads()} threads, "
        f"{max(len(case.ratios) for case in compared)} generations of processes"
    )
    print(table(compared))
    return 1 if slower(compared) or any(case.problem for case in compared) else 0


if __name__ == "__main__":
    sys.exit(main())
