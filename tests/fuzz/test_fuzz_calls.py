"""Any well-formed call, with any plan, is right: values and all gradients against float64.

`tests/test_properties.py` draws shapes and conventions; here the plan of each layer, the
activation, the dtype of points and indices and the memory around the maps are drawn as well.
"""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import torch
from hypothesis import assume, event, example, given

from pixelnet_triton import Plan
from pixelnet_triton.call import MODES, PLAN_NAMES, STRATEGIES

from ..cases import Case
from ..conftest import takes_float64
from ..luck import check_but_for_luck, off_the_kink
from ..test_properties import cases
from .examples import examples

POINT_DTYPES = [torch.float32, torch.float64, torch.float16, torch.int64, torch.int16, torch.uint8]
INDEX_DTYPES = [torch.int64, torch.int32, torch.int16, torch.uint8]


@st.composite
def calls(draw: st.DrawFn) -> tuple[Case, str | Plan]:
    """A case and a plan for its layers."""
    case = draw(cases())
    changes: dict[str, object] = {"spread": draw(st.sampled_from(SPREADS))}
    if case.dtype != torch.float64:
        dtype = draw(st.sampled_from(POINT_DTYPES))
        if dtype.is_floating_point or case.coordinates == "pixel":
            changes["point_dtype"] = dtype
            if not dtype.is_floating_point:  # within the image, and expected on steps
                changes["spread"] = "integer"
    changes["index_dtype"] = draw(st.sampled_from(INDEX_DTYPES))
    if case.out_features is not None:
        changes["activation"] = draw(st.sampled_from([None, "relu", "gelu"]))
    per_layer = st.lists(
        st.sampled_from(STRATEGIES), min_size=len(case.layers), max_size=len(case.layers)
    )
    explicit = st.builds(Plan, per_layer.map(tuple), st.sampled_from(MODES))
    return replace(case, **changes), draw(st.sampled_from(PLAN_NAMES) | explicit)


SPREADS = ["inside", "outside", "edges", "integer", "duplicates"]


# What failed once is written down here as @example((Case(...), plan), seed=...).
@given(call=calls(), seed=st.integers(0, 2**16))
@example(call=(Case("empty", points=0).linear(3), Plan(("project_gather", "gather"))), seed=0)
@examples(quick=200, thorough=5000)
def test_any_call_is_right(call: tuple[Case, str | Plan], seed: int, device: torch.device) -> None:
    case, plan = call
    assume(case.dtype != torch.float64 or takes_float64(device))
    event(f"plan {plan if isinstance(plan, str) else 'of each layer'}")
    event(f"points {case.point_dtype}")
    assume(case.activation != "relu" or off_the_kink(case, seed))
    # Points that want a gradient close the way that small calls take otherwise.
    moving = seed % 2 == 0
    layout = moving or plan != "auto"
    check_but_for_luck(case, device, seed=seed, moving_points=moving, same_layout=layout, plan=plan)
