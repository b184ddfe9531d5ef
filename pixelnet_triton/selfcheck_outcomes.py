"""What came of a stage of the self-check: read off what tests/outcomes.py wrote, and summed up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .tools.json_lines import read_json_lines

__all__ = ["Outcome", "read_outcomes", "state_of", "summary"]


@dataclass
class Outcome:
    """What came of a stage.

    ``state``: passed, failed, out of time, interrupted, nothing run, skipped.
    """

    stage: str
    state: str
    seconds: float = 0.0
    budget: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    not_run: list[str] = field(default_factory=list)
    reason: str = ""


def read_outcomes(name: str, log: Path) -> Outcome:
    """What tests/outcomes.py wrote, which need not have come to its end."""
    lines = read_json_lines(log)
    planned = {test: "" for line in lines for test in line.get("planned", ())}
    tests = {line["test"]: line for line in lines if "test" in line}
    failures: dict[str, str] = {}
    for line in lines:
        if line.get("outcome") == "failed":  # also when what a test used is taken down, after it
            failures.setdefault(line["test"], line["message"])
    counted = Counter(
        "failed" if test in failures else line["outcome"] for test, line in tests.items()
    )
    counts = {word: counted[word] for word in ("passed", "failed", "skipped")}
    not_run = [test for test in planned if test not in tests]
    return Outcome(name, "", counts=counts, failures=failures, not_run=not_run)


def state_of(status: int | str, outcome: Outcome) -> str:
    """The state of a stage, for the exit status of its pytest, or a word for what ended it."""
    if isinstance(status, str):
        return status
    if status == 0 and outcome.counts["passed"]:
        return "passed"
    # pytest exits with 5 where nothing was collected, with 0 where everything was skipped
    return "nothing run" if status in (0, 5) else "failed"


def summary(outcome: Outcome) -> str:
    """The outcome in some lines, failures and what did not run by name."""
    numbers = {**outcome.counts, "not run": len(outcome.not_run)}
    counts = ", ".join(f"{number} {what}" for what, number in numbers.items() if number)
    head = f"{outcome.stage:<11} {outcome.state:<12} {outcome.seconds:6.1f} s  "
    failures = [f"    FAILED {name}: {why}" for name, why in outcome.failures.items()]
    # Names of one file follow one another: a hundred tiles of it need one line.
    files = Counter(name.split("[")[0] for name in outcome.not_run)
    missing = [f"    NOT RUN {name} ({number})" for name, number in files.items()]
    return "\n".join([head + (counts or outcome.reason), *failures, *missing])
