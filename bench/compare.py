"""The library here against another version of it: does a change make it slower?

    python -m bench.compare main                           # the working tree against a commit
    python -m bench.compare FOLDER                         # against another checkout
    python -m bench.compare main --quick                   # in 4 minutes instead of 11
    python -m bench.compare main --cases W1,random,host    # some of the cases

Cases: `workloads` (W1 to W5, channels_last and NCHW), `random` (random first layers), `small`
(small calls), all forward and with the backward pass, and `host` (calls of next to nothing: the
host's time), or the first word of a case's name.

Three processes live side by side: the base, the base once more as the control, and the library
here. Whatever is on a side, this folder's code times it, by the public functions alone. In every
round each process times a few calls, in changing order; the ratios are of one round, so a drift of
the machine hits both sides of a ratio. Then the processes are started anew, as often as the time
allows: where memory happens to lie differs between processes, and does not between rounds.

Printed are the median ratio here / base (above 1: slower; the base is the mean of its two
processes), its range over the generations of processes, and the same for control / base, which is
1 but for noise. The exit status is 1 if a case fails, or is slower beyond the noise.
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

from .compare_side import Comparison, Ended, Failed, Process, Sums
from .results import duration
from .workloads import TINY, Workload, random_workloads, registry, small_workloads

ROOT = Path(__file__).resolve().parent.parent
SLOT, CALLS, ROUNDS, LEAST = 0.025, 200, 9, 3  # seconds and calls a turn; rounds, and the fewest
QUICK, WHOLE = (0.3, 3.7), (0.9, 11.0)  # seconds a case in a generation; minutes of all
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


def common_noise(cases: Iterable[Paired]) -> float:
    """What SHARE of all the cases' controls stay below: |log ratio|."""
    deviations = [abs(math.log(case.control)) for case in cases]
    return quantile(deviations, SHARE) if deviations else 0.0


def table(cases: Sequence[Paired]) -> str:
    """A row for each case, and a mean for each kind."""
    timed = [case for case in cases if case.ratios]
    common = common_noise(timed)
    rows = [f"{'case':28} {'base':>8} {'ratio':>6}  {'range':13}  {'control':>7}  {'range':13}"]
    for case in cases:
        if case.problem:
            rows.append(f"{case.case.name:28} {case.problem}")
        if case.ratios:
            base = duration(statistics.median(case.seconds))
            row = f"{case.case.name:28} {base:>8} {case.ratio:6.3f}  {_range(case.ratios)}  "
            row += f"{case.control:7.3f}  {_range(case.controls)}  {case.verdict(common)}"
            rows.append(row.rstrip())
    for kind in dict.fromkeys(case.case.kind for case in timed):
        same = [case for case in timed if case.case.kind == kind]
        ratio = statistics.geometric_mean(c.ratio for c in same)
        control = statistics.geometric_mean(c.control for c in same)
        rows.append(f"{f'all {kind}, geometric mean':37} {ratio:6.3f}  {'':13}  {control:7.3f}")
    slower = [case.case.name for case in timed if case.verdict(common) == "SLOWER"]
    rows.append(
        f"Noise: {SHARE:.0%} of the control's ratios are within {math.expm1(common):.1%} of 1. "
        f"Slower beyond it: {', '.join(slower) or 'none'}."
    )
    return "\n".join(rows)


def _range(ratios: Sequence[float]) -> str:
    return f"{min(ratios):.3f}-{max(ratios):.3f}".ljust(13)


def comparisons(wanted: Sequence[str], on_cpu: bool) -> list[Comparison]:
    """The cases of these kinds, or whose name begins with one of these words.

    Raises:
        ValueError: a word selects nothing.
    """
    named = [w for w in registry(on_cpu) if w.family == "workload"]
    planes = [replace(w, name=f"{w.name} NCHW", channels_last=False) for w in named]
    cases: list[Comparison] = []

    def add(kind: str, workloads: Iterable[Workload]) -> None:
        for w in workloads:
            for word, training in (("forward", False), ("training", True)):
                host = kind == "host"
                cases.append(Comparison(f"{w.name} {word}", kind, w, training, host=host))

    add("workloads", (w for pair in zip(named, planes, strict=True) for w in pair))
    add("random", random_workloads(12))
    add("small", small_workloads())
    ragged, apart = replace(TINY, ragged=True), replace(TINY, channels_last=False)
    tiny = (("call", TINY), ("ragged", ragged), ("NCHW", apart))
    add("host", (replace(w, name=f"host {word}") for word, w in tiny))
    for name, form in (("host columns forward", "columns"), ("host plan_hypercolumn", "plan")):
        cases.append(Comparison(name, "host", TINY, False, form, host=True))

    def selects(word: str, case: Comparison) -> bool:
        return word == case.kind or f"{case.name} ".startswith(f"{word} ")

    for word in wanted:
        if not any(selects(word, case) for case in cases):
            names = dict.fromkeys(case.name.split()[0] for case in cases)
            raise ValueError(f"{word} unknown; there are {', '.join([*KINDS, *names])}")
    return [case for case in cases if any(selects(word, case) for word in wanted)]


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


def measure(sides: list[Process], paired: Paired, share: float) -> None:
    """One case in one generation of processes (base, control, here), within about `share` seconds.

    Raises:
        Failed: a process could not do it, or the results differ.
    """
    case = paired.case
    (second, sums), *others = [side.ask("prepare", case) for side in sides]
    for _, other_sums in others:
        _agree(sums, other_sums, ALLOWED[case.workload.dtype])
    first = max(second, 1e-6)
    count = max(1, min(CALLS, int(SLOT / first)))
    rounds = max(LEAST, min(ROUNDS, int(share / (3 * (count + 1) * first))))
    seconds: list[list[float]] = [[], [], []]
    for _ in range(rounds):
        for number in random.sample(range(3), 3):
            # less disturbed than the median of a turn, and not as lucky as the least
            seconds[number].append(quantile(sides[number].ask("time", count, 4 * SLOT), 0.2))
    turns = list(zip(*seconds, strict=True))
    paired.seconds.append(statistics.median(seconds[0]))
    paired.ratios.append(statistics.median(h / (b * c) ** 0.5 for b, c, h in turns))
    paired.controls.append(statistics.median(c / b for b, c, _ in turns))


def _agree(expected: Sums, sums: Sums, allowed: float) -> None:
    if len(expected) != len(sums):
        raise Failed("the sides return different numbers of results")
    for (norm, total), (other_norm, other_total) in zip(expected, sums, strict=True):
        error = max(abs(norm - other_norm), abs(total - other_total)) / max(norm, 1e-30)
        if not error <= allowed:
            raise Failed(f"the results differ: by {error:.2g} of their norm, {allowed:.2g} allowed")


def compare(
    base: Path,
    here: Path,
    cases: list[Comparison],
    device: torch.device,
    share: float,
    minutes: float,
    least: int = 3,
) -> list[Paired]:
    """All cases, in as many generations of processes as the minutes allow, `least` at least."""
    paired = [Paired(case) for case in cases]
    start, longest, generation = time.monotonic(), 0.0, 0
    while generation < least or time.monotonic() - start + longest < 60 * minutes:
        began = time.monotonic()
        generation += 1
        with contextlib.ExitStack() as stack:
            roles = (("base", base), ("control", base), ("here", here))
            sides = [
                stack.enter_context(Process(role, folder, device, torch.get_num_threads()))
                for role, folder in roles
            ]
            for case in paired:
                if case.problem:
                    continue
                try:
                    measure(sides, case, share)
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
    parser.add_argument("--quick", action="store_true", help="4 minutes instead of 11")
    parser.add_argument("--minutes", type=float, help="how long; three generations are the least")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch's")
    options = parser.parse_args(arguments)
    try:
        cases = comparisons(options.cases.split(","), DEVICE.type == "cpu")
    except ValueError as error:
        parser.error(f"--cases: {error}")
    torch.set_num_threads(options.threads)
    share, minutes = QUICK if options.quick else WHOLE
    try:
        with checkout(options.base) as base:
            paired = compare(base, ROOT, cases, DEVICE, share, options.minutes or minutes)
    except subprocess.CalledProcessError:
        parser.exit(1, f"bench.compare: {options.base} is no commit, and no checkout\n")
    generations = max(len(case.ratios) for case in paired)
    print(
        f"base {options.base}, here {ROOT.name} as it is; on {DEVICE}, "
        f"{torch.get_num_threads()} threads, {generations} generations of processes"
    )
    print(table(paired))
    common = common_noise(case for case in paired if case.ratios)
    bad = [c for c in paired if c.problem or (c.ratios and c.verdict(common) == "SLOWER")]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
