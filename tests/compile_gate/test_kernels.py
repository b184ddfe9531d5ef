"""Every kernel and every configuration is compiled, and the compiled code is held to its promise.

On sm_90: no register is spilled, the tile fits into shared memory, offsets are 64-bit, corners of
channels_last maps come by 16-byte loads, products of enough rows use the warp-group instruction.
The other targets compile one configuration of each kernel.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path

import pytest
import torch

from pixelnet_triton import kernels
from pixelnet_triton.kernels import gather
from pixelnet_triton.kernels.pieces import piece_of
from pixelnet_triton.kernels.select import Tile

from .launches import ACTIVATED, IMAGES, KERNELS, Problem
from .machine_code import instructions, length, loads_in_flight, resources
from .offsets import narrow_products
from .targets import PRODUCTS, TARGETS, Launch, compiling_for

Record = Callable[[Launch, str], None]

# A warp group multiplies 64 rows at once; smaller tiles are for problems with few points.
WGMMA_ROWS = 64


def compile_kernel(
    name: str, problem: Problem, tile: Tile | None, target: str, record: Record, case: str = ""
) -> list[Launch]:
    """Compile a kernel by name, put it into the table, and check what holds on every target."""
    with compiling_for(target) as launches:
        KERNELS[name].launch(problem, tile)
    assert launches, f"{name} launched nothing"
    for launch in launches:
        record(launch, case or name)
        shared = resources(launch.compiled).shared
        assert shared <= TARGETS[target].shared, f"{launch} takes {shared} bytes of shared memory"
        suspects = narrow_products(launch.compiled.asm["ttir"])
        assert not suspects, f"{launch} computes in 32 bits:\n" + "\n".join(suspects)
        assert launch.metadata["name"].startswith(f"{launch.kernel} ")
        assert launch.metadata["bytes"] > 0
        # Sums have a fixed order: nothing is added to memory.
        counts = instructions(launch.compiled)
        assert not counts.compare_and_swap
        assert not counts.reductions
    return launches


def assert_no_spill(launches: list[Launch]) -> None:
    for launch in launches:
        used = resources(launch.compiled)
        assert used.spills == 0, f"{launch} {launch.config} spills: {used}"


@pytest.mark.parametrize(
    ("name", "tile"),
    [
        pytest.param(name, tile, id=f"{name}-{'-'.join(map(str, astuple(tile)))}")
        for name, kernel in KERNELS.items()
        for tile in kernel.tiles
    ],
)
def test_every_tile_on_sm_90(name: str, tile: Tile, record_launch: Record) -> None:
    launches = compile_kernel(name, Problem(torch.bfloat16), tile, "sm_90", record_launch)
    assert_no_spill(launches)
    kernel = KERNELS[name]
    if kernel.gathers or kernel.products:
        (launch,) = launches
        counts = instructions(launch.compiled)
        assert counts.loads[16] >= 4 * kernel.gathers, counts
        # One load a corner is the least that a layer without vector loads takes; the bias,
        # of which a thread may need a single element, takes one or two in all.
        few = counts.loads[2] + counts.loads[1] < 4
        assert few or kernel.careful, f"loads of single elements: {counts}"
        if kernel.products:
            assert counts.wgmma if tile.rows >= WGMMA_ROWS else counts.products, counts


@pytest.mark.parametrize("tile", gather.TILES, ids=str)
def test_every_corner_is_under_way_before_one_is_waited_for(tile: Tile) -> None:
    with compiling_for("sm_90") as launches:
        KERNELS["gather"].launch(Problem(torch.bfloat16), tile)
    pieces = tile.columns // piece_of(tile, 2)
    assert loads_in_flight(launches[0].compiled) >= 4 * pieces


def test_a_program_works_out_its_corners_once() -> None:
    """Instructions for each 16 bytes of results: here none are jumped over."""

    def spent(tile: Tile) -> float:
        with compiling_for("sm_90") as launches:
            KERNELS["gather"].launch(
                Problem(torch.bfloat16, channels=(512,), sizes=((7, 7),)), tile
            )
        return length(launches[0].compiled) * piece_of(tile, 2) / tile.columns

    long, short = (spent(Tile(16, columns, num_warps=4, maxnreg=128)) for columns in (256, 64))
    assert long < 0.65 * short


@pytest.mark.parametrize("name", ["gather", "coordinate_gradient", "one_pass", "rows"])
def test_gathers_are_wide_on_gfx942(name: str, record_launch: Record) -> None:
    """Where the compiler takes less from hints than NVIDIA's does."""
    (launch,) = compile_kernel(name, Problem(torch.bfloat16), None, "gfx942", record_launch)
    counts = instructions(launch.compiled)
    assert counts.loads[8] + counts.loads[16] >= 4 * KERNELS[name].gathers, counts
    assert counts.loads[2] + counts.loads[1] < 4, f"loads of single elements: {counts}"


@pytest.fixture(params=["highest", "high"], ids=["ieee", "tf32"])
def float32_precision(request: pytest.FixtureRequest) -> Iterator[str]:
    """PyTorch's own switch, which the launchers follow: full float32 products, or TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield "tf32" if request.param == "high" else "float32"
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("name", KERNELS)
def test_chosen_tile_in_float32(name: str, float32_precision: str, record_launch: Record) -> None:
    if float32_precision == "tf32" and not KERNELS[name].products:
        pytest.skip("multiplies no matrices, so the precision changes nothing")
    case = f"{name} {float32_precision}"
    assert_no_spill(
        compile_kernel(name, Problem(torch.float32), None, "sm_90", record_launch, case)
    )


@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if kernel.products])
@pytest.mark.parametrize("target", ["sm_86", "sm_120"])
def test_float32_where_shared_memory_is_small(
    name: str, target: str, record_launch: Record
) -> None:
    """Not bfloat16's tiles, of which `test_other_targets` asks the same."""
    case = f"{name} float32"
    launches = compile_kernel(name, Problem(torch.float32), None, target, record_launch, case)
    assert all(resources(a.compiled).shared <= TARGETS[target].shared for a in launches)


# Kernels with a "+" are the same kernel in other uses: sm_90 has compiled them.
@pytest.mark.parametrize("name", [name for name in KERNELS if "+" not in name])
@pytest.mark.parametrize("target", [target for target in TARGETS if target != "sm_90"])
def test_other_targets(name: str, target: str, record_launch: Record) -> None:
    launches = compile_kernel(name, Problem(torch.bfloat16), None, target, record_launch)
    if KERNELS[name].products:
        assert instructions(launches[0].compiled).products[PRODUCTS[target]]


def test_every_table_of_tiles_is_compiled() -> None:
    """A table is a constant of a kernel's file whose name ends in TILES."""
    compiled = {tile for kernel in KERNELS.values() for tile in kernel.tiles}
    tables = 0
    for path in Path(kernels.__path__[0]).glob("*.py"):
        module = importlib.import_module(f"{kernels.__name__}.{path.stem}")
        for name, table in vars(module).items():
            if name.endswith("TILES"):
                assert set(table) <= compiled, f"{path.name}: {name}"
                tables += 1
    assert tables


@pytest.mark.parametrize("launcher", ACTIVATED)
def test_a_relu_keeps_nan(launcher: str) -> None:
    """`max.f32` makes NaN 0, and torch's relu keeps it."""
    maxima = {}
    for activation in ("relu", None):
        with compiling_for("sm_90") as launches:
            ACTIVATED[launcher](activation)(Problem(torch.bfloat16), None)
        code = launches[0].compiled.asm["ptx"]
        maxima[activation] = Counter(re.findall(r"max[.\w]*\.f32", code))
    extra = maxima["relu"] - maxima[None]
    assert set(extra) == {"max.NaN.f32"}


def test_launches_say_how_much_they_do() -> None:
    """Counted by hand: P = 4,000 points, C = 72 channels, D = 512 outputs, 2 bytes an element."""
    problem = Problem(torch.bfloat16, channels=(8, 64), sizes=((4, 5), (3, 3)))
    points, channels, outputs = 4000, 72, 512
    with compiling_for("sm_90") as launches:
        KERNELS["gather"].launch(problem, None)
        KERNELS["one_pass"].launch(problem, None)
        KERNELS["scatter"].launch(problem, None)
    gathered, fused, scattered = [launch.metadata for launch in launches]
    assert gathered == {
        "name": "_gather_kernel P=4000 C=8+64",
        "flops16": 8.0 * points * channels,
        "bytes": 5.0 * points * channels * 2,
    }
    assert fused["name"] == "_fused_linear_kernel P=4000 C=8+64 D=512"
    assert fused["flops16"] == 2.0 * points * channels * outputs
    # Two tiles of outputs read the corners twice; 63 tiles of points read the weight.
    corners, weight = 4 * points * channels * 2, 63 * channels * outputs
    assert fused["bytes"] == 2.0 * (corners + weight + points * outputs)
    # A point touches two rows, of eight cells each as the tiles have them; every cell is written.
    assert scattered["flops16"] == 2.0 * 2 * 8 * points * channels
    assert scattered["bytes"] == 2.0 * (2 * points * channels + IMAGES * (20 * 8 + 9 * 64))


@pytest.mark.parametrize("name", ["gather", "scatter", "collect", "one_pass+relu", "rows"])
def test_maps_of_one_cell(name: str, record_launch: Record) -> None:
    """Whose size is 1, which Triton takes for a constant where it sees it."""
    sizes = ((56, 56), (56, 56), (28, 28), (1, 1), (1, 1))
    problem = Problem(torch.bfloat16, sizes=sizes)
    case = f"{name} 1x1"
    assert_no_spill(compile_kernel(name, problem, None, "sm_90", record_launch, case))
