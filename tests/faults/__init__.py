"""The table of faults that `python -m tests.mutate` puts into the code, one at a time."""

from . import (
    bench,
    core,
    cpu,
    data,
    integrations,
    kernels,
    launches,
    losses,
    metrics,
    models,
    planner,
    recipes,
    sampling,
    shared,
    simulator,
    training,
)
from .fault import DoesNotApply, Fault

__all__ = ["FAULTS", "DoesNotApply", "Fault"]

FAULTS: tuple[Fault, ...] = (
    *training.FAULTS,
    *recipes.FAULTS,
    *data.FAULTS,
    *sampling.FAULTS,
    *losses.FAULTS,
    *metrics.FAULTS,
    *models.FAULTS,
    *core.FAULTS,
    *planner.FAULTS,
    *cpu.FAULTS,
    *kernels.FAULTS,
    *launches.FAULTS,
    *shared.FAULTS,
    *integrations.FAULTS,
    *bench.FAULTS,
    *simulator.FAULTS,
)
