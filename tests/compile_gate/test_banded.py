"""The banded product's two kernels as compiled: TMA, asynchronous products, no spill."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

from pixelnet_triton.call import Linear
from pixelnet_triton.kernels.banded import CHOICES, banded
from pixelnet_triton.kernels.order import Order
from pixelnet_triton.kernels.ruler import ruler_of
from pixelnet_triton.kernels.select import Tile

from .launches import IMAGES, OUTPUTS, POINTS, Problem
from .machine_code import instructions, resources
from .offsets import narrow_products
from .targets import TARGETS, Launch, compiling_for

PROBLEM = Problem(torch.bfloat16)
# What may be 32 bits wide: numbers of points, tiles, steps and columns, rows of maps and of R (TMA
# takes them so), and a bit.
NARROW = {
    "_left_kernel": {
        "image", "top", "steps", "strips", "begin", "row", "end", "k", "first", "column", "d", "p",
        "square",
    },
    "_banded_kernel": {"count", "stride", "t", "first", "block", "a", "row", "m", "n", "bad"},
}  # fmt: skip


def compiled(
    target: str,
    tile: Tile | None = None,
    activation: str | None = "relu",
    channels_last: bool = True,
) -> list[Launch]:
    """The left operand's launch, and the product's."""
    s = PROBLEM.sampling
    if not channels_last:
        s = s._replace(features=[m.contiguous() for m in s.features])
    ruler = ruler_of(s.sizes, s.geometry.affine)
    place = torch.zeros(POINTS, dtype=torch.int64)
    starts = torch.zeros(IMAGES, ruler.spaces, dtype=torch.int64)
    order = Order(place, torch.zeros(POINTS, 2), None, starts, ruler)
    head = Linear(PROBLEM.weight, torch.empty(OUTPUTS, dtype=torch.bfloat16), activation)
    with compiling_for(target) as launches:
        banded(s, head, (3, 4), order, tile)
    return launches


@pytest.mark.parametrize(
    ("tile", "activation"),
    [(tile, "relu") for tile in CHOICES] + [(None, "gelu"), (None, None)],
    ids=str,
)
def test_on_sm_90(
    tile: Tile | None,
    activation: str | None,
    record_launch: Callable[[Launch, str], None],
) -> None:
    launches = compiled("sm_90", tile, activation)
    assert [launch.kernel for launch in launches] == list(NARROW)
    for launch in launches:
        record_launch(launch, f"banded {activation}")
        used = resources(launch.compiled)
        assert used.spills == 0, f"{launch} {launch.config}: {used}"
        assert used.shared <= TARGETS["sm_90"].shared
        assert launch.metadata["name"].startswith(f"{launch.kernel} ")
        assert launch.metadata["bytes"] > 0
        products = narrow_products(launch.compiled.asm["ttir"])
        names = {re.match(r"%([a-z]*)", line)[1] for line in products}  # type: ignore[index]
        assert names <= NARROW[launch.kernel]
    left, product = [instructions(launch.compiled) for launch in launches]
    assert left.loads[16] >= 4 * 3
    assert left.loads[2] == left.stores[2] == 0
    assert product.wgmma
    code = launches[1].compiled.asm["ptx"]
    assert len(re.findall(r"cp\.async\.bulk\.tensor\S*shared\S*global", code)) >= 2
    # In the loop one product may be under way while the next is issued.
    assert re.search(r"wgmma\.wait_group\.sync\.aligned 1", code)
    # Loads of the first steps are under way before the loop, those of later ones ahead in it.
    code = launches[1].compiled.asm["ttgir"]
    before = code[: code.rindex("scf.for", 0, code.index("warp_group_dot "))]
    stages = launches[1].compiled.metadata.num_stages
    assert before.count("async_tma_copy_global_to_local") == 2 * (stages - 1)
    code = launches[1].compiled.asm["ptx"]
    if activation == "relu":
        assert set(re.findall(r"max[.\w]*\.f32", code)) == {"max.NaN.f32"}


def test_channels_one_by_one_do_not_spill() -> None:
    left, _ = compiled("sm_90", channels_last=False)
    assert resources(left.compiled).spills == 0


def test_on_sm_100(record_launch: Callable[[Launch, str], None]) -> None:
    launches = compiled("sm_100")
    for launch in launches:
        record_launch(launch, "banded relu")
        assert resources(launch.compiled).shared <= TARGETS["sm_100"].shared
    assert instructions(launches[1].compiled).products["UTCHMMA"]
