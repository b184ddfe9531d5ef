"""The table of faults that `python -m tests.mutate` puts into the code, one at a time."""

from . import core, data, kernels, losses, metrics, models, recipes, sampling, training
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
    *kernels.FAULTS,
)
