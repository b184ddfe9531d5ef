"""Which back end, plan, route and kernels a call gets, and why the others were passed over.

    python -m pixelnet_triton.explain 64@224 256@56 512@14 --images 5 --points 2000 --outputs 4096
    python -m pixelnet_triton.explain 64@224x320 --points 2000 --outputs 256 --dtype bfloat16 \
        --profile H200 --inference

Nothing is computed; shapes are enough, and a GPU is not needed to ask for one. The same is printed
of what :func:`pixelnet_triton.plan_hypercolumn` returns.
"""

from __future__ import annotations

import argparse

import torch

from .planning import plan_hypercolumn

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m pixelnet_triton.explain",
        description="Print how sparse_hypercolumn would compute a call, and the predicted cost.",
    )
    parser.add_argument("layers", nargs="+", metavar="C@H[xW]", help="a map, such as 256@56")
    parser.add_argument("--images", type=int, default=1, help="B (default 1)")
    parser.add_argument("--points", type=int, required=True, help="N, points an image")
    parser.add_argument("--outputs", type=int, required=True, help="D, the layer's width")
    parser.add_argument("--dtype", default="float32", help="of the maps (default float32)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1 (default cpu)")
    parser.add_argument("--profile", help="plan for a shipped profile: H200, H100 or cpu")
    parser.add_argument("--plan", default="auto", help="auto, gather, project, one_pass, two_step")
    parser.add_argument(
        "--nchw", action="store_true", help="maps are contiguous, not channels_last"
    )
    parser.add_argument("--ragged", action="store_true", help="points come with a batch_index")
    parser.add_argument("--inference", action="store_true", help="without the backward pass")
    asked = parser.parse_args(arguments)
    dtype = getattr(torch, asked.dtype, None)
    if not isinstance(dtype, torch.dtype):
        parser.error(f"--dtype {asked.dtype}: no dtype of torch; use float32, bfloat16 or float16")
    try:
        shapes = [(asked.images, *_layer(layer)) for layer in asked.layers]
        plan = plan_hypercolumn(
            shapes,
            asked.points * (asked.images if asked.ragged else 1),
            asked.outputs,
            plan=asked.plan,
            dtype=dtype,
            device=asked.device,
            channels_last=not asked.nchw,
            ragged=asked.ragged,
            training=not asked.inference,
            profile=asked.profile,
        )
    except (TypeError, ValueError, RuntimeError) as error:
        parser.error(str(error))
    print(plan)


def _layer(text: str) -> tuple[int, int, int]:
    """(C, H, W) of "C@H" or "C@HxW"."""
    channels, _, size = text.partition("@")
    rows, _, columns = size.partition("x")
    try:
        return int(channels), int(rows), int(columns or rows)
    except ValueError:
        raise ValueError(
            f"layer {text!r}; expected channels@rows or channels@rowsxcolumns"
        ) from None


if __name__ == "__main__":
    main()
