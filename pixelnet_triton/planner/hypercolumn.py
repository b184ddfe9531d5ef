"""`plan_hypercolumn`: the planner's public face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..call.plan import Plan
from ..call.profile import DeviceProfile
from ..call.shape import CallShape, LayerShape, bucket
from ..cpu.products import multiplies_half
from .choose import PLAN_NAMES, named_plan
from .cost import CostModel
from .profiles import SHIPPED
from .store import profile_for

__all__ = ["plan_hypercolumn"]

_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def plan_hypercolumn(
    features_or_shapes: Sequence[Tensor | Sequence[int]],
    n_points: int,
    out_features: int,
    *,
    plan: str | Plan = "auto",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    channels_last: bool | Sequence[bool] | None = None,
    ragged: bool = False,
    training: bool = True,
    profile: DeviceProfile | str | None = None,
) -> Plan:
    r"""How :func:`pixelnet_triton.sparse_hypercolumn` would compute a first layer, and the cost.

    Interpolation :math:`S_i` and the product with :math:`W_i` are both linear, so each layer can
    be sampled first or multiplied first, :math:`(S_i X_i) W_i^T = S_i (X_i W_i^T)`; the plan
    says which, layer by layer. Nothing is computed: shapes are enough. ``plan="auto"`` there
    makes the same choice as here. ``print(plan)`` shows predicted FLOPs, bytes and times.

    Args:
        features_or_shapes: the maps, or their shapes ``(B, C_i, H_i, W_i)``.
        n_points: N, points per image; with `ragged` P, those of all images together.
        out_features: D, the layer's width.
        plan: which plan to make, or one to predict the cost of: ``"auto"``, ``"gather"``,
            ``"project"``, ``"one_pass"``, ``"two_step"`` or a :class:`~pixelnet_triton.Plan`.
        dtype: of the maps; that of the tensors, or float32.
        device: where they are; that of the tensors, or the CPU.
        channels_last: layout of the maps, one for all or one for each; that of the tensors, or
            True.
        ragged: whether points come with a batch_index.
        training: plan for forward and backward (the default), or for the forward pass alone, as
            ``"auto"`` does where no gradient is wanted.
        profile: the device's rates, or the name of shipped ones (``"H200"``, ``"H100"``,
            ``"cpu"``). None takes those of `device`: calibrated, shipped or derived.

    Returns:
        A :class:`~pixelnet_triton.Plan` with an `estimate`, to look at or to pass on as ``plan=``.

    Raises:
        TypeError, ValueError: an argument cannot be served; the message names it and the remedy.

    Example:
        >>> from pixelnet_triton import plan_hypercolumn
        >>> vgg = [(5, 64, 224, 224), (5, 256, 56, 56), (5, 4096, 7, 7)]
        >>> plan_hypercolumn(vgg, 2000, 4096, dtype=torch.bfloat16, profile="H200").layers[2]
        'project_product'
    """
    tensors = [f for f in features_or_shapes if isinstance(f, Tensor)]
    if not features_or_shapes or len(tensors) not in (0, len(features_or_shapes)):
        raise TypeError(
            "features_or_shapes must hold at least one map, and tensors only or shapes "
            f"(B, C, H, W) only; came {[type(f).__name__ for f in features_or_shapes]}"
        )
    shapes = [_shape(i, f) for i, f in enumerate(features_or_shapes)]
    for name, number in (("n_points", n_points), ("out_features", out_features)):
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise ValueError(f"{name}={number!r}; expected an integer of at least 0")
    if dtype is None:
        dtype = tensors[0].dtype if tensors else torch.float32
    if dtype not in _DTYPES:
        raise TypeError(f"dtype={dtype}; expected one of {[str(d) for d in _DTYPES]}")
    if device is None:
        device = tensors[0].device if tensors else "cpu"
    rates = _rates(profile, torch.device(device))
    batch = shapes[0][0]
    layouts = _layouts(channels_last, tensors, len(shapes))
    call = CallShape(
        tuple(
            LayerShape(c, h, w, last or c == 1)
            for (_, c, h, w), last in zip(shapes, layouts, strict=True)
        ),
        batch,
        n_points if ragged else n_points * batch,
        out_features,
        dtype.itemsize,
        ragged,
        training,
        rates.kind == "cpu" and multiplies_half(dtype),
    )
    chosen = plan
    if isinstance(chosen, str):
        # The very question that `sparse_hypercolumn` asks, so that the answers agree.
        asked = replace(call, points=bucket(call.points))
        chosen = named_plan(chosen, asked, rates)
    elif not isinstance(chosen, Plan):
        raise TypeError(f"plan={plan!r}; expected a Plan or one of {PLAN_NAMES}")
    elif len(chosen.layers) != len(shapes):
        raise ValueError(
            f"plan has strategies for {len(chosen.layers)} layers but features_or_shapes has "
            f"{len(shapes)}; give one strategy for each layer"
        )
    return replace(chosen, estimate=CostModel(call, rates).estimate(chosen))


def _shape(i: int, feature: Tensor | Sequence[int]) -> tuple[int, int, int, int]:
    shape = tuple(feature.shape) if isinstance(feature, Tensor) else tuple(feature)
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in shape)
    if len(shape) != 4 or not whole or min(shape) < 0 or 0 in shape[1:]:
        raise ValueError(
            f"features_or_shapes[{i}] has shape {shape}; expected four integers (B, C, H, W), "
            "with at least one channel and one cell"
        )
    return shape


def _layouts(
    channels_last: bool | Sequence[bool] | None, tensors: Sequence[Tensor], layers: int
) -> Sequence[bool]:
    if channels_last is None:
        return [f.stride(1) == 1 for f in tensors] if tensors else [True] * layers
    if isinstance(channels_last, bool):
        return [channels_last] * layers
    if len(channels_last) != layers:
        raise ValueError(
            f"channels_last has {len(channels_last)} entries; expected one for each of the "
            f"{layers} layers, or a single bool"
        )
    return channels_last


def _rates(profile: DeviceProfile | str | None, device: torch.device) -> DeviceProfile:
    if profile is None:
        return profile_for(device)
    if isinstance(profile, DeviceProfile):
        return profile
    if profile not in SHIPPED:
        raise ValueError(
            f"profile={profile!r} is unknown; shipped are {tuple(SHIPPED)}, and calibrate() "
            "measures others"
        )
    return SHIPPED[profile]
