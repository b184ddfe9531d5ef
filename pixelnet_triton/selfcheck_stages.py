"""The stages of the self-check: which tests or benchmarks each runs, and how.

A dry run takes a few of each stage, so that it starts and every line that is for a GPU alone runs.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["STAGES", "Stage"]

WORKLOADS = " or ".join(f"W{number}-" for number in range(1, 6))
FAKE_GPU = ("-p", "tests.fake_cuda")  # tensors on the CPU, compilation for a GPU
# What only such a stand-in, or a fault, brings about.
ON_A_GPU = ("tests/test_bench_gpu.py", "tests/test_selfcheck.py")


@dataclass(frozen=True)
class Stage:
    """One pytest process.

    Args:
        arguments: of pytest; where it takes no paths, they are those of :func:`core_tests`.
        share: of the time that is left, against those of the later stages.
        parallel: whether processes share the device: correctness may, timing may not.
        dry: further arguments of a dry run, which takes the stand-in for a GPU if they name it.
        tool: a program that pytest runs under.
    """

    name: str
    arguments: tuple[str, ...]
    share: float
    parallel: bool = True
    dry: tuple[str, ...] = ()
    tool: tuple[str, ...] = ()

    @property
    def fake(self) -> bool:
        """Whether a dry run takes the stand-in, which processes of pytest-xdist would not load."""
        return FAKE_GPU[1] in self.dry


_SMALL = "bfloat16 and channels_last"
_FIRST_LAYER = "bench/test_first_layer.py"
_ONE_TILE = "test_gather and bfloat16 and channels_last and 16-64"
STAGES = (
    Stage(
        "compile",
        (f"{_FIRST_LAYER}::test_plan_compiles", "tests/gate", "-p", "tests.compile_only"),
        share=4,
        dry=(*FAKE_GPU, "-k", f"({_ONE_TILE}) or (W1 and auto)"),
    ),
    Stage("gate", ("tests/gate",), share=2, dry=("-k", _ONE_TILE)),
    Stage("tests", (), share=3, dry=(*ON_A_GPU, "-k", "is_the_function or bench_gpu or on_a_gpu")),
    Stage(
        "benchmarks",
        ("bench", "--benchmark-only", "-k", f"({WORKLOADS} or table4) and not test_kernels"),
        share=5,
        parallel=False,
        dry=(*FAKE_GPU, "-k", "(W1- or (table4 and fc-1)) and not test_kernels"),
    ),
    Stage(
        "kernels",
        ("bench/test_kernels.py", "--benchmark-only"),
        share=1,
        parallel=False,
        dry=(*FAKE_GPU, "-k", "W1-"),
    ),
    Stage(
        "sweeps",
        ("bench", "--benchmark-only", "-k", f"not ({WORKLOADS} or table4)"),
        share=2,
        parallel=False,
        dry=(*FAKE_GPU, "-k", "dtype-bfloat16 or (host_call and product) or biased"),
    ),
    Stage(
        "sanitize",
        ("tests/gate", "-k", _SMALL),
        share=2,
        parallel=False,
        dry=("-k", _ONE_TILE),
        tool=(
            *("compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9"),
            *("--target-processes", "all"),  # which not every version does unasked
        ),
    ),
)
