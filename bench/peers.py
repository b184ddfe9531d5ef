"""Ways to compute a first layer at sparse points: the library's plans, and what else people do.

auto, gather, project, ...   this library: the plan chosen for the call, and plans forced
product               the matrix product alone, on hypercolumns that somebody has gathered:
                      the bound of every method that gathers first
grid_sample           `grid_sample` of each layer + `cat` + `linear`: what most code does
grid_sample_compiled  the same under `torch.compile`
point_sample          as PointRend has it: (B, C, N) features, and a 1x1 `conv1d`
masked                all layers upsampled to all pixels, masked to the samples, `linear`
dense                 all layers upsampled to all pixels, 1x1 convolution at every pixel
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelnet_triton import Plan, sparse_hypercolumn
from pixelnet_triton.planner.choose import named_plan
from pixelnet_triton.planner.cost import CostModel
from pixelnet_triton.planner.store import profile_for
from pixelnet_triton.reference import dense_linear, masked_dense_linear

from .inputs import Inputs
from .planning import call_shape
from .workloads import Workload

__all__ = ["Call", "Peer", "peers_for", "plan_of", "prepare"]


@dataclass(frozen=True)
class Peer:
    """One way. `own`: it is the library's. `every_pixel`: its rows are pixels, not points.

    `run` maps inputs to (B, N, D), with `every_pixel` to (B, D, H, W).
    """

    name: str
    run: Callable[[Inputs], Tensor]
    own: bool = False
    every_pixel: bool = False

    def rows_of(self, output: Tensor, points: Tensor) -> Tensor:
        """(B, N, D) of the output, for comparison with others."""
        if not self.every_pixel:
            return output
        image = torch.arange(len(points), device=points.device)[:, None]
        x, y = points.unbind(dim=-1)
        return output[image, :, y, x]

    def work(self, workload: Workload, training: bool, device: torch.device) -> tuple[float, float]:
        """(FLOPs it executes in products, bytes that are compulsory for its rows)."""
        rows = workload.all_pixels if self.every_pixel else workload.all_points
        moved = workload.compulsory_bytes(rows, training)
        if self.own:
            model = CostModel(call_shape(workload, training, device), profile_for(device))
            return model.work(plan_of(self.name, workload, training, device)).flops, moved
        return workload.flops(rows, training), moved


@dataclass(frozen=True)
class Call:
    """A peer on given inputs: `forward`, and the leaves that gradients are taken for."""

    forward: Callable[[], Tensor]
    leaves: dict[str, Tensor]

    def training(self) -> None:
        """Forward and backward; the output stands in for the upstream gradient."""
        output = self.forward()
        torch.autograd.grad(output, list(self.leaves.values()), output.detach())

    def once(self, training: bool) -> Callable[[], object]:
        """What is timed."""
        return self.training if training else self.forward


def prepare(peer: Peer, inputs: Inputs) -> Call:
    """The peer's call. The bound gets its gathered matrix here, outside of what is timed."""
    if peer.name != "product":
        return Call(lambda: peer.run(inputs), inputs.leaves())
    with torch.no_grad():
        h = sparse_hypercolumn(inputs.maps, inputs.points, inputs.image_size)
    weight, bias = inputs.weight, inputs.bias
    h.requires_grad_(weight.requires_grad)
    leaves = {"hypercolumns": h, "weight": weight, "bias": bias}
    return Call(lambda: F.linear(h, weight, bias).relu(), leaves)


def plan_of(name: str, workload: Workload, training: bool, device: torch.device) -> Plan:
    """The plan behind the name of one of the library's own rows."""
    layers = len(workload.layers)
    if name.startswith("project_"):
        model = CostModel(call_shape(workload, training, device), profile_for(device))
        offered = [model.strategies(i) for i in range(layers)]
        # Interpolation as a product is offered for coarse maps; gathered rows always are.
        strategies = tuple(name if name in s else "project_gather" for s in offered)
        return Plan(strategies, model.modes[-1])
    return named_plan(name, call_shape(workload, training, device), profile_for(device))


def _library(name: str, workload: Workload, training: bool, device: torch.device) -> Peer:
    plan: str | Plan = "auto"
    if name != "auto":
        plan = plan_of(name, workload, training, device)

    def run(at: Inputs) -> Tensor:
        return sparse_hypercolumn(
            at.maps,
            at.points,
            at.image_size,
            weight=at.weight,
            bias=at.bias,
            activation="relu",
            plan=plan,
        )

    return Peer(name, run, own=True)


def _grid(at: Inputs) -> Tensor:
    """(B, N, 2) in [-1, 1], float32 at least: half-precision coordinates are off by whole cells."""
    dtype = torch.promote_types(at.weight.dtype, torch.float32)
    height, width = at.image_size
    x, y = at.points.to(dtype).unbind(dim=-1)
    return torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)


def _grid_sample(at: Inputs) -> Tensor:
    """Maps in half precision are promoted to the grid's float32, as autocast does it."""
    grid = _grid(at)[:, None]  # (B, 1, N, 2)
    sampled = [
        F.grid_sample(m.to(grid.dtype), grid, padding_mode="border", align_corners=False)[:, :, 0]
        for m in at.maps
    ]
    hypercolumns = torch.cat(sampled, dim=1).mT.to(at.weight.dtype)  # (B, N, sum C_i)
    return F.linear(hypercolumns, at.weight, at.bias).relu()


def _grid_sample_half(at: Inputs) -> Tensor:
    """Everything in the maps' dtype, the coordinates too: the obvious code in half precision."""
    grid = _grid(at)[:, None].to(at.weight.dtype)
    sampled = [
        F.grid_sample(m, grid, padding_mode="border", align_corners=False)[:, :, 0] for m in at.maps
    ]
    return F.linear(torch.cat(sampled, dim=1).mT, at.weight, at.bias).relu()


def _point_sample(at: Inputs) -> Tensor:
    """PointRend's: unit coordinates, (B, C, N, 1) samples, a 1x1 convolution over the points."""
    unit = (_grid(at) + 1) / 2
    sampled = [
        F.grid_sample(
            m.to(unit.dtype),
            2 * unit[:, :, None] - 1,
            padding_mode="border",
            align_corners=False,
        ).squeeze(3)
        for m in at.maps
    ]
    fine = torch.cat(sampled, dim=1).to(at.weight.dtype)  # (B, sum C_i, N)
    return F.conv1d(fine, at.weight[:, :, None], at.bias).relu().mT


def _masked(at: Inputs) -> Tensor:
    return masked_dense_linear(
        at.maps, at.points, at.image_size, at.weight, at.bias, activation="relu"
    )


def _dense(at: Inputs) -> Tensor:
    return dense_linear(at.maps, at.image_size, at.weight, at.bias, activation="relu")


def _product(at: Inputs) -> Tensor:
    raise NotImplementedError("the product alone needs its gathered matrix: see prepare()")


@lru_cache(maxsize=1)
def _compiled() -> Callable[[Inputs], Tensor]:
    return torch.compile(_grid_sample, dynamic=False)


_OTHERS = {
    peer.name: peer
    for peer in (
        Peer("product", _product),
        Peer("grid_sample", _grid_sample),
        Peer("grid_sample_compiled", lambda at: _compiled()(at)),
        Peer("grid_sample_half", _grid_sample_half),
        Peer("point_sample", _point_sample),
        Peer("masked", _masked),
        Peer("dense", _dense, every_pixel=True),
    )
}


def names_for(workload: Workload, training: bool, device: torch.device) -> list[str]:
    """Which peers a workload is measured with, the library's own choice first.

    On the CPU every plan has two steps, and one way to project. Compiling takes 15 to 30 seconds,
    so it is done for W1 alone, and on a GPU for W4.
    """
    on_cpu = device.type == "cpu"
    if workload.family != "workload":
        small = not on_cpu or max(workload.image_size) <= 256
        extra = {"points": ["masked", "dense"], "image": ["masked", "dense"] if small else []}
        half = ["grid_sample_half"] if workload.dtype in ("bfloat16", "float16") else []
        wanted = half if workload.family == "dtype" else extra.get(workload.family, [])
        return ["auto", "product", "grid_sample", *wanted]
    plans = ["two_step", "project_gather"] if on_cpu else ["one_pass", "two_step"]
    plans += [] if on_cpu else ["project_gather", "project_product"]
    compiled = training and workload.name in (("W1",) if on_cpu else ("W1", "W4"))
    others = ["product", "grid_sample", "point_sample", "masked", "dense"]
    return ["auto", *plans, *others, *(["grid_sample_compiled"] if compiled else [])]


def peers_for(
    names: list[str], workload: Workload, training: bool, device: torch.device
) -> list[Peer]:
    """The peers of these names, for this workload."""
    return [_OTHERS.get(name) or _library(name, workload, training, device) for name in names]
