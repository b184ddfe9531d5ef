"""Faults of the benchmarks: their clocks, checks, counts and words."""

from .fault import Fault

_CASES = ("tests/test_bench_cases.py",)
_TIMING = ("tests/test_bench_timing.py",)
_MEMORY = ("tests/test_bench_memory.py",)
_RESULTS = ("tests/test_bench_results.py",)
_REPORT = ("tests/test_bench_report.py",)
_COMPARE = ("tests/test_bench_compare.py",)

FAULTS = (
    Fault(
        "cold-calls-are-warm",
        "bench/timing.py",
        "        _elsewhere().add_(1)",
        "        _elsewhere()",
        _TIMING,
    ),
    Fault(
        "slow-peers-in-every-round",
        "bench/timing.py",
        "self.rounds = ROUNDS_OF_SLOW if",
        "self.rounds = ROUNDS if",
        _TIMING,
    ),
    Fault(
        "turns-in-one-order",
        "bench/timing.py",
        "        shuffled.shuffle(order)\n",
        "",
        _TIMING,
    ),
    Fault(
        "first-warm-call-counts",
        "bench/timing.py",
        "self.host)[uncounted:]",
        "self.host)",
        _TIMING,
    ),
    Fault(
        "cold-against-warm",
        "bench/measure.py",
        '(figures.get(n, {}).get(f"{prefix}median") for n in (name, names[0]))',
        '(figures[name].get(f"{prefix}median"), figures.get(names[0], {}).get("median"))',
        _TIMING,
    ),
    Fault(
        "wrong-peers-timed",
        "bench/measure.py",
        "if not error <= allowed:",
        "if False:",
        _TIMING,
    ),
    Fault(
        "library-held-to-no-rule",
        "bench/accuracy.py",
        "if strict and peer.plan:",
        "if False:",
        _TIMING,
    ),
    Fault(
        "inputs-count-as-kept",
        "bench/memory.py",
        "if storage.data_ptr() not in given:",
        "if True:",
        _MEMORY,
    ),
    Fault(
        "peak-is-what-is-left",
        "bench/memory.py",
        "return max(0, *totals)",
        "return [0, *totals][-1]",
        _MEMORY,
    ),
    Fault(
        "backward-pass-is-one-product",
        "bench/workloads.py",
        "(6.0 if training else 2.0)",
        "(4.0 if training else 2.0)",
        _CASES,
    ),
    Fault(
        "bytes-of-whole-maps",
        "bench/workloads.py",
        "min(CORNERS * rows, count) * channels",
        "count * channels",
        _CASES,
    ),
    Fault(
        "points-outside-the-image",
        "bench/inputs.py",
        "torch.tensor([width, height], device=device) - 0.5",
        "torch.tensor([width, height], device=device) + 0.5",
        _CASES,
    ),
    Fault(
        "relu-out-of-place",
        "bench/peers.py",
        "return F.linear(h, at.weight, at.bias).relu_()\n\n\ndef _product_fused",
        "return F.linear(h, at.weight, at.bias).relu()\n\n\ndef _product_fused",
        _CASES,
    ),
    Fault(
        "runs-mixed",
        "bench/tables.py",
        "(lines.device == run.device) & (lines.date == run.date)",
        "(lines.device == run.device)",
        _RESULTS,
    ),
    Fault(
        "latest-run-however-short",
        "bench/tables.py",
        'sort_values([key, "date"])',
        'sort_values("date")',
        _RESULTS,
    ),
    Fault(
        "oldest-device-first",
        "bench/tables.py",
        "ascending=False",
        "ascending=True",
        _RESULTS,
    ),
    Fault(
        "warm-times-shown-as-cold",
        "bench/tables.py",
        "cold.combine_first(warm)",
        "warm.combine_first(cold)",
        _REPORT,
    ),
    Fault(
        "problems-not-told",
        "bench/tables.py",
        'texts.fillna(lines.problem.str.partition(":")[0])',
        "texts",
        _REPORT,
    ),
    Fault(
        "scaled-rows-beside-full-ones",
        "bench/report_table4.py",
        'transform("min")',
        'transform("max")',
        _RESULTS,
    ),
    Fault(
        "ratios-turned-round",
        "bench/report_table4.py",
        "speed[sparse] / speed",
        "speed / speed[sparse]",
        _RESULTS,
    ),
    Fault(
        "backbone-not-subtracted",
        "bench/report_table4.py",
        "beyond / beyond[sparse]",
        "memory / memory[sparse]",
        _RESULTS,
    ),
    Fault(
        "regret-of-the-worst",
        "bench/report_planner.py",
        "best = min(measured",
        "best = max(measured",
        _REPORT,
    ),
    Fault(
        "noise-of-the-case-ignored",
        "bench/compare.py",
        "noise = max(np.quantile(np.abs(np.log(self.controls)), MOST), common)",
        "noise = common",
        _COMPARE,
    ),
    Fault(
        "noise-of-all-ignored",
        "bench/compare.py",
        "noise = max(np.quantile(np.abs(np.log(self.controls)), MOST), common)",
        "noise = np.quantile(np.abs(np.log(self.controls)), MOST)",
        _COMPARE,
    ),
    Fault(
        "generations-need-not-agree",
        "bench/compare.py",
        "if logarithm > noise and np.quantile(self.ratios, 1 - MOST) > 1:",
        "if logarithm > noise:",
        _COMPARE,
    ),
    Fault(
        "results-need-not-agree",
        "bench/compare.py",
        "if not error <= allowed:",
        "if False:",
        _COMPARE,
    ),
    Fault(
        "any-library-on-a-side",
        "bench/compare_side.py",
        "if imported != library.resolve():",
        "if False:",
        _COMPARE,
    ),
)
