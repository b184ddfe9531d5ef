"""What each process of `test_distributed.py` computes; started by torchrun, writes to a folder.

Every engine sees the same four images: rank 0 the first two, rank 1 the others.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from tests.integrations.network import batch_of, loss_of, network

IMAGES = 4


def share_of_rank(rank: int, world: int) -> list[Tensor]:
    per_rank = IMAGES // world
    return [t[rank * per_rank : (rank + 1) * per_rank] for t in batch_of(IMAGES, points=300)]


def of_one_process() -> dict[str, Tensor]:
    """Gradients of the joined batch, without any engine."""
    model = network()
    loss_of(model, *batch_of(IMAGES, points=300)).backward()
    return gradients(model)


def of_ddp(rank: int, world: int) -> dict[str, Tensor]:
    model = DistributedDataParallel(network())
    loss_of(model, *share_of_rank(rank, world)).backward()
    return gradients(model.module)


def of_fsdp2(rank: int, world: int) -> dict[str, Tensor]:
    """Each layer sharded for itself; gradients are joined again to be compared."""
    mesh = dist.device_mesh.init_device_mesh("cpu", (world,))
    model = network()
    for layer in model.children():
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert model.first.weight.to_local().shape[0] == 16 // world, "the weight is not sharded"
    loss_of(model, *share_of_rank(rank, world)).backward()
    return {name: p.grad.full_tensor() for name, p in model.named_parameters()}


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def main() -> None:
    """Write one file of gradients per rank: engine to name to tensor."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    gradients = {
        "one": of_one_process(),
        "ddp": of_ddp(rank, world),
        "ddp again": of_ddp(rank, world),
    }
    if hasattr(torch.cpu.Stream, "record_event"):  # FSDP2 has no CPU in older versions of torch
        gradients["fsdp2"] = of_fsdp2(rank, world)
    torch.save(gradients, Path(sys.argv[1]) / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
