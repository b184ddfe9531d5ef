"""The library here against another version of it: does a change make it slower?

    python -m bench.compare main                           # the working tree against a commit
    python -m bench.compare --against FOLDER               # against another checkout
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
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from .compare_cases import KINDS, comparisons
from .compare_processes import Ended, Failed, Process, copied_side
from .compare_side import Comparison
from .compare_text import Paired, common_noise, table
from .machine import DEVICE
from .timing import quantile

__all__ = ["main", "worktree"]

ROOT = Path(__file__).resolve().parent.parent
SLOT, CALLS, ROUNDS, LEAST = 0.025, 200, 9, 3  # seconds and calls a turn; rounds, and the fewest
QUICK, WHOLE = (0.3, 3.7), (0.9, 11.0)  # seconds a case in a generation; minutes of all
#: Relative deviations that sums of the results may have.
ALLOWED = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}


@contextlib.contextmanager
def worktree(base: str) -> Iterator[Path]:
    """A checkout of `base` in a temporary folder.

    Raises:
        subprocess.CalledProcessError: git knows no such commit.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "base")
        _git("worktree", "add", "--detach", str(path), base)
        try:
            yield path
        finally:
            _git("worktree", "remove", "--force", str(path))


def measure(sides: list[Process], case: Comparison, share: float) -> tuple[float, float, float]:
    """One case in one generation of processes, within about `share` seconds.

    Args:
        sides: base, control, here.

    Returns:
        Medians over the rounds: seconds of the base; here / the geometric mean of base and
        control; control / base.

    Raises:
        Failed: a process could not do it, or the results differ.
    """
    answers = [side.ask("prepare", asdict(case)) for side in sides]
    for answer in answers[1:]:
        _agree(answers[0]["sums"], answer["sums"], ALLOWED[case.workload["dtype"]])
    first = max(answers[0]["seconds"], 1e-6)
    count = max(1, min(CALLS, int(SLOT / first)))
    rounds = max(LEAST, min(ROUNDS, int(share / (3 * (count + 1) * first))))
    seconds: list[list[float]] = [[], [], []]
    order = [0, 1, 2]
    for _ in range(rounds):
        random.shuffle(order)
        for number in order:
            # less disturbed than the median of a turn, and not as lucky as the least
            seconds[number].append(quantile(sides[number].ask("time", [count, 4 * SLOT]), 0.2))
    base, control, here = seconds
    ratios = [h / (b * c) ** 0.5 for b, c, h in zip(base, control, here, strict=True)]
    controls = [c / b for b, c in zip(base, control, strict=True)]
    return quantile(base, 0.5), quantile(ratios, 0.5), quantile(controls, 0.5)


def _agree(expected: list[list[float]], sums: list[list[float]], allowed: float) -> None:
    if len(expected) != len(sums):
        raise Failed("the sides return different numbers of results")
    for (norm, total), (other_norm, other_total) in zip(expected, sums, strict=True):
        error = max(abs(norm - other_norm), abs(total - other_total)) / max(norm, 1e-30)
        if not error <= allowed:
            raise Failed(f"the results differ: by {error:.2g} of their norm, {allowed:.2g} allowed")


def compare(
    base: Path,
    here: Path,
    cases: list[tuple[str, Comparison]],
    share: float,
    minutes: float,
    least: int = 3,
) -> list[Paired]:
    """All cases, in as many generations of processes as the minutes allow, `least` at least."""
    paired = {case.name: Paired(case.name, kind) for kind, case in cases}
    start = time.monotonic()
    longest, generation = 0.0, 0
    with copied_side() as folder:
        while generation < least or time.monotonic() - start + longest < 60 * minutes:
            began = time.monotonic()
            generation += 1
            _generation(folder, base, here, [case for _, case in cases], share, paired)
            longest = max(longest, time.monotonic() - began)
            print(f"generation {generation}: {longest:.0f} s", file=sys.stderr, flush=True)
    return list(paired.values())


def _generation(
    folder: Path,
    base: Path,
    here: Path,
    cases: list[Comparison],
    share: float,
    paired: dict[str, Paired],
) -> None:
    """All cases that have no problem yet, in three new processes."""
    options = {"device": str(DEVICE), "threads": torch.get_num_threads()}  # as in this process
    roles = {"base": base, "control": base, "here": here}
    with contextlib.ExitStack() as stack:
        sides = [
            stack.enter_context(Process(folder, library, role, options))
            for role, library in roles.items()
        ]
        for case in cases:
            total = paired[case.name]
            if total.problem:
                continue
            try:
                second, ratio, control = measure(sides, case, share)
            except Failed as error:
                total.problem = str(error)
                if isinstance(error, Ended):
                    return  # the next generation goes on without this case
                continue
            total.seconds.append(second)
            total.ratios.append(ratio)
            total.controls.append(control)


def main(arguments: list[str] | None = None) -> int:
    """Measure both sides in turns, and print the table; 1 if something is slower, or fails."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("base", metavar="BASE", nargs="?", help="a commit, tag or branch")
    parser.add_argument("--against", metavar="FOLDER", type=Path, help="a checkout instead of BASE")
    parser.add_argument("--cases", default=",".join(KINDS), help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="4 minutes instead of 11")
    parser.add_argument("--minutes", type=float, help="how long; three generations are the least")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch's")
    parser.add_argument("--json", type=Path, help="write all ratios to this file")
    options = parser.parse_args(arguments)
    try:
        cases = comparisons(options.cases.split(","), DEVICE.type == "cpu")
    except ValueError as error:
        parser.error(f"--cases: {error}")
    if (options.base is None) == (options.against is None):
        parser.error("give either BASE, a commit, or --against, a checkout")
    if options.against and not (options.against / "pixelnet_triton" / "__init__.py").is_file():
        parser.error(f"--against {options.against}: no pixelnet_triton/ in there")
    torch.set_num_threads(options.threads)
    share, minutes = QUICK if options.quick else WHOLE
    minutes = options.minutes or minutes
    try:
        with contextlib.ExitStack() as stack:
            base = options.against or stack.enter_context(worktree(options.base))
            paired = compare(base.resolve(), ROOT, cases, share, minutes)
    except subprocess.CalledProcessError as error:
        parser.exit(1, f"bench.compare: {' '.join(map(str, error.cmd[:4]))} failed\n")
    generations = max(len(case.ratios) for case in paired)
    print(
        f"base {options.base or options.against.name}, here {ROOT.name} as it is; on {DEVICE}, "
        f"{torch.get_num_threads()} threads, {generations} generations of processes"
    )
    print(table(paired))
    if options.json:
        options.json.write_text(json.dumps([asdict(case) for case in paired], indent=1) + "\n")
    common = common_noise(case for case in paired if case.ratios)
    bad = [c for c in paired if c.problem or (c.ratios and c.verdict(common) == "SLOWER")]
    return 1 if bad else 0


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(main())
