"""Ways to compute a first layer at sparse points: the library's plans, and what else people do.

auto, two_step, ...   this library: the plan chosen for the call, and plans forced, by a name or
                      as `Plan.encode()` writes them
product               the matrix product alone, on hypercolumns that somebody has gathered:
                      the bound of every method that gathers first
product_fused         the same with bias and ReLU in the product's epilogue
grid_sample           `grid_sample` of each layer + `cat` + `linear`: what most code does
grid_sample_compiled  the same under `torch.compile`
point_sample          as PointRend has it: (B, C, N) features, and a 1x1 `conv1d`
masked                all layers upsampled to all pixels, masked to the samples, `linear`
dense                 all layers upsampled to all pixels, 1x1 convolution at every pixel

one call              this library: the first layers of an ensemble as one
ten calls             a call for each of them
one gather, ...       hypercolumns in memory, and ten products

Each is written as its best user would: nothing outlives its use, and ReLU is in place, which
autograd allows after `linear` and convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.reference import dense_hypercolumn, dense_linear

from .inputs import Inputs
from .planning import Plan, expected, plan_of
from .results import Line
from .workloads import MEMBERS, Case


@dataclass(frozen=True)
class Peer:
    """One way to compute a first layer.

    Args:
        name: as above.
        run: maps inputs to (B, N, D) or (P, D), with `every_pixel` to (B, D, H, W); where the
            hypercolumns are `given`, its second argument.
        plan: of this library, None of others.
        every_pixel: its rows are pixels, not points.
        given: it starts from hypercolumns, gathered outside of what is timed.
    """

    name: str
    run: Callable[..., Tensor]
    plan: Plan | None = None
    every_pixel: bool = False
    given: bool = False

    def rows_of(self, output: Tensor, points: Tensor) -> Tensor:
        """(B, N, D) of the output, for comparison with others."""
        return _at_points(output, points) if self.every_pixel else output

    def work(self, case: Case, device: torch.device) -> Line:
        """FLOPs it executes in products, and bytes that are compulsory for its rows.

        Of the library also its plan, and what the planner expects of that; in an ensemble its
        FLOPs are not known.
        """
        workload = case.workload
        rows = workload.all_pixels if self.every_pixel else workload.all_points
        work: Line = {"bytes": workload.compulsory_bytes(rows, case.training)}
        if self.plan:
            return work | {"plan": self.plan.encode(), **expected(self.plan, case, device)}
        if workload.family == "ensemble":
            return work
        return work | {"flops": workload.flops(rows, case.training)}


@dataclass(frozen=True)
class Call:
    """A peer on given inputs: `forward`, and the leaves that gradients are taken for."""

    forward: Callable[[], Tensor]
    leaves: dict[str, Tensor]

    def __call__(self) -> None:
        """What is timed: forward and, where the leaves want gradients, backward; the output stands
        in for the upstream gradient."""
        output = self.forward()
        if output.requires_grad:
            torch.autograd.grad(output, list(self.leaves.values()), output.detach())


def prepare(peer: Peer, inputs: Inputs) -> Call:
    """The peer's call. Where hypercolumns are given, they are gathered here."""
    if not peer.given:
        return Call(lambda: peer.run(inputs), inputs.leaves())
    with torch.no_grad():
        h = sparse_hypercolumn(**inputs.sampling())
    h.requires_grad_(inputs.weight.requires_grad)
    leaves = {"hypercolumns": h, "weight": inputs.weight, "bias": inputs.bias}
    return Call(lambda: peer.run(inputs, h), leaves)


def _library(name: str, case: Case, device: torch.device) -> Peer:
    plan = plan_of(name, case, device)
    asked = "auto" if name == "auto" else plan
    return Peer(name, lambda at: _layer(at, at.weight, at.bias, asked), plan)


def _product(at: Inputs, h: Tensor) -> Tensor:
    return F.linear(h, at.weight, at.bias).relu_()


def _product_fused(at: Inputs, h: Tensor) -> Tensor:
    y = torch._addmm_activation(at.bias, h.flatten(0, -2), at.weight.T, use_gelu=False)
    return y.unflatten(0, h.shape[:-1])


def _grid(at: Inputs) -> Tensor:
    """(B, N, 2) in [-1, 1], float32 at least: half-precision coordinates are off by whole cells."""
    dtype = torch.promote_types(at.weight.dtype, torch.float32)
    height, width = at.image_size
    x, y = at.points.to(dtype).unbind(dim=-1)
    return torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)


def _samples(maps: list[Tensor], grid: Tensor) -> Tensor:
    """(B, sum C_i, N) in the dtype of the grid (B, N, 2); the single samples end here."""
    sample = partial(F.grid_sample, padding_mode="border", align_corners=False)
    return torch.cat([sample(m.to(grid.dtype), grid[:, :, None]).squeeze(3) for m in maps], dim=1)


def _grid_sample(at: Inputs) -> Tensor:
    """Maps in half precision are promoted to the grid's float32, as autocast does it."""
    return F.linear(_hypercolumns(at), at.weight, at.bias).relu_()


def _hypercolumns(at: Inputs) -> Tensor:
    """(B, N, sum C_i), or (P, sum C_i) image by image."""
    grid, dtype = _grid(at), at.weight.dtype
    if at.batch_index is None:
        return _samples(at.maps, grid).mT.to(dtype)
    h = at.maps[0].new_empty(len(at.points), at.weight.shape[1])
    for image in range(len(at.maps[0])):
        place = (at.batch_index == image).nonzero()[:, 0]
        of_image = _samples([m[image : image + 1] for m in at.maps], grid[place][None])
        h = h.index_put((place,), of_image[0].T.to(dtype))
    return h


def _grid_sample_half(at: Inputs) -> Tensor:
    """Everything in the maps' dtype, the coordinates too: the obvious code in half precision."""
    grid = _grid(at).to(at.weight.dtype)
    return F.linear(_samples(at.maps, grid).mT, at.weight, at.bias).relu_()


def _point_sample(at: Inputs) -> Tensor:
    """PointRend's: unit coordinates, (B, C, N, 1) samples, a 1x1 convolution over the points."""
    unit = (_grid(at) + 1) / 2
    fine = _samples(at.maps, 2 * unit - 1).to(at.weight.dtype)
    return F.conv1d(fine, at.weight[:, :, None], at.bias).relu_().mT


def _masked(at: Inputs) -> Tensor:
    h = _at_points(dense_hypercolumn(at.maps, at.image_size), at.points)
    return F.linear(h, at.weight, at.bias).relu_()


def _dense(at: Inputs) -> Tensor:
    return dense_linear(at.maps, at.image_size, at.weight, at.bias).relu_()


def _at_points(pixels: Tensor, points: Tensor) -> Tensor:
    """(B, N, D) of (B, D, H, W), at integer points (B, N, 2)."""
    image = torch.arange(len(points), device=points.device)[:, None]
    x, y = points.unbind(dim=-1)
    return pixels[image, :, y, x]


def _one_call(at: Inputs) -> Tensor:
    """(B, N, E D)."""
    weight, bias = at.weight.unflatten(0, (MEMBERS, -1)), at.bias.unflatten(0, (MEMBERS, -1))
    return _layer(at, weight, bias).flatten(2)


def _ten_calls(at: Inputs) -> Tensor:
    members = zip(at.weight.chunk(MEMBERS), at.bias.chunk(MEMBERS), strict=True)
    return torch.cat([_layer(at, weight, bias) for weight, bias in members], dim=-1)


def _ten_products(at: Inputs) -> Tensor:
    h = sparse_hypercolumn(**at.sampling())
    members = zip(at.weight.chunk(MEMBERS), at.bias.chunk(MEMBERS), strict=True)
    return torch.cat([F.linear(h, weight, bias).relu_() for weight, bias in members], dim=-1)


def _layer(at: Inputs, weight: Tensor, bias: Tensor, plan: str | Plan = "auto") -> Tensor:
    """This library's."""
    return sparse_hypercolumn(
        **at.sampling(), weight=weight, bias=bias, activation="relu", plan=plan
    )


@lru_cache(maxsize=1)
def _compiled() -> Callable[[Inputs], Tensor]:
    return torch.compile(_grid_sample, dynamic=False)


#: Ways to ten first layers on the same maps and points.
ENSEMBLE = {
    "one call": Peer("one call", _one_call),
    "ten calls": Peer("ten calls", _ten_calls),
    "one gather, ten products": Peer("one gather, ten products", _ten_products),
}
OTHERS = ENSEMBLE | {
    peer.name: peer
    for peer in (
        Peer("product", _product, given=True),
        Peer("product_fused", _product_fused, given=True),
        Peer("grid_sample", _grid_sample),
        Peer("grid_sample_compiled", lambda at: _compiled()(at)),
        Peer("grid_sample_half", _grid_sample_half),
        Peer("point_sample", _point_sample),
        Peer("masked", _masked),
        Peer("dense", _dense, every_pixel=True),
    )
}


def names_for(case: Case, device: torch.device) -> list[str]:
    """Which peers a case is measured with, the library's choice first.

    On the CPU every plan has two steps. Compiling takes 15 to 30 seconds,
    so it is done for W1 alone, and on a GPU for W4. The fused epilogue has no backward pass. On a
    GPU PyTorch enlarges no maps to 2^31 values and more, as W4's would have.
    """
    on_cpu, workload = device.type == "cpu", case.workload
    if workload.family == "ensemble":
        return list(ENSEMBLE)
    if workload.family != "workload":
        small = not on_cpu or max(workload.image_size) <= 256
        dense = workload.family == "points" or (workload.family == "image" and small)
        half = workload.family == "dtype" and workload.itemsize == 2
        more = ["masked", "dense"] * dense + ["grid_sample_half"] * half
        return ["auto", "product", "grid_sample", *more]
    on_gpu = not on_cpu
    height, width = workload.image_size
    largest = workload.images * height * width * max(c for c, _, _ in workload.layers)
    dense = on_cpu or largest < 2**31
    compiled = workload.name == "W1" or (on_gpu and workload.name == "W4")
    return [
        "auto",
        *["one_pass"] * on_gpu,
        *("two_step", "project"),
        "product",
        *["product_fused"] * (not case.training),
        *("grid_sample", "point_sample"),
        *["masked", "dense"] * dense,
        *["grid_sample_compiled"] * (compiled and case.training),
    ]


def peer_of(name: str, case: Case, device: torch.device) -> Peer:
    """The peer of this name, for this case."""
    return OTHERS.get(name) or _library(name, case, device)
