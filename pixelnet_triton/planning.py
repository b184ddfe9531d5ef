"""`plan_hypercolumn`: the planner's public face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .call import (
    PLAN_NAMES,
    Backend,
    DeviceProfile,
    Geometry,
    LayerShape,
    Options,
    Plan,
    Stride,
    layer_geometry,
)
from .call.check_options import check_image_size, check_names, check_strides
from .call.checks import POINT_DTYPES
from .call.shape import layout_of
from .op.dispatch import backend_for, backend_named, passed_over, require
from .op.shapes import call_shape
from .planner import CostModel, chosen_plan, may_keep, profile_of
from .planner.profiles import SHIPPED
from .tools.settings import whole_number

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
    moving_points: bool = False,
    nearest: bool = False,
    image_size: tuple[int, int] | None = None,
    strides: Sequence[Stride] | None = None,
    align_corners: bool = False,
    coordinates: str = "pixel",
    points_dtype: torch.dtype | None = None,
    profile: DeviceProfile | str | None = None,
) -> Plan:
    r"""How :func:`pixelnet_triton.sparse_hypercolumn` would compute a first layer, and the cost.

    Interpolation :math:`S_i` and the product with :math:`W_i` are both linear, so each layer can
    be sampled first or multiplied first, :math:`(S_i X_i) W_i^T = S_i (X_i W_i^T)`; the plan
    says which, layer by layer. Nothing is computed: shapes are enough. ``plan="auto"`` there
    makes the same choice as here, if all that follows is said of the call; under autocast the
    choice is that of a plan that is named, for which nothing is kept between the passes.
    ``print(plan)`` shows predicted FLOPs, bytes and times.

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
        moving_points: whether the points want a gradient, too.
        nearest: whether interpolation is ``"nearest"``.
        image_size, strides, align_corners, coordinates: as there. Where the points lie on the maps
            decides whether a map is read without interpolation, and whether PyTorch's sampling
            finds them exactly. Without an `image_size` the image is twice as fine as the finest
            map.
        points_dtype: of the points; integers for pixels, or float32 if these move, and for other
            coordinates.
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
        'project'
    """
    if not isinstance(features_or_shapes, Sequence):
        raise TypeError(
            f"features_or_shapes is a {type(features_or_shapes).__name__}; expected a list of maps "
            "or of shapes (B, C, H, W), in the order of the weight's columns. For a single map "
            "pass it in a list"
        )
    tensors = [f for f in features_or_shapes if isinstance(f, Tensor)]
    if not features_or_shapes or len(tensors) not in (0, len(features_or_shapes)):
        raise TypeError(
            "features_or_shapes must hold at least one map, and tensors only or shapes "
            f"(B, C, H, W) only; came {[type(f).__name__ for f in features_or_shapes]}"
        )
    shapes = [_shape(i, f) for i, f in enumerate(features_or_shapes)]
    _must_agree("batch size", [shape[0] for shape in shapes], "all layers need the same images")
    n_points = whole_number("n_points", n_points, least=0)
    out_features = whole_number("out_features", out_features, least=0)
    if dtype is None:
        _must_agree("dtype", [f.dtype for f in tensors], "pass the one to plan for as dtype=")
        dtype = tensors[0].dtype if tensors else torch.float32
    if dtype not in _DTYPES:
        raise TypeError(f"dtype={dtype}; expected one of {[str(d) for d in _DTYPES]}")
    if device is None:
        _must_agree("device", [f.device for f in tensors], "pass the one to plan for as device=")
        device = tensors[0].device if tensors else "cpu"
    layouts = _layouts(channels_last, tensors, shapes)
    layers = [LayerShape(*size[1:], *layout) for size, layout in zip(shapes, layouts, strict=True)]
    geometry = _geometry(layers, image_size, strides, align_corners, coordinates, nearest)
    device = torch.device(device)
    backend, rates, why = _rates(profile, dtype, device)
    points = n_points if ragged else n_points * shapes[0][0]
    asked = call_shape(
        layers,
        shapes[0][0],
        points,
        out_features,
        dtype,
        geometry,
        backend,
        integers=_integers(points_dtype, coordinates, moving_points),
        ragged=ragged,
        training=training,
        moving_points=moving_points,
        may_keep=may_keep(plan),
    )
    if profile is None:
        require(backend, asked, device)
    if isinstance(plan, Plan):
        if len(plan.layers) != len(shapes):
            raise ValueError(
                f"plan has strategies for {len(plan.layers)} layers but features_or_shapes has "
                f"{len(shapes)}; give one strategy for each layer"
            )
    elif not isinstance(plan, str):
        raise TypeError(f"plan={plan!r}; expected a Plan or one of {PLAN_NAMES}")
    chosen = chosen_plan(plan, asked, backend, rates)
    shape = replace(asked, points=points)
    estimate = CostModel(shape, backend, rates).estimate(chosen)
    return replace(chosen, estimate=replace(estimate, notes=estimate.notes + why))


def _shape(i: int, feature: Tensor | Sequence[int]) -> tuple[int, int, int, int]:
    shape = tuple(feature.shape) if isinstance(feature, Tensor) else feature
    try:
        numbers = tuple([whole_number("size", n, least=0) for n in shape])
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 4 or 0 in numbers[1:]:
        raise ValueError(
            f"features_or_shapes[{i}] has shape {shape}; expected four integers (B, C, H, W), "
            "with at least one channel and one cell. For a single map pass it in a list"
        )
    batch, channels, rows, columns = numbers
    return batch, channels, rows, columns


def _must_agree(what: str, came: Sequence[object], remedy: str) -> None:
    """Raise `ValueError` where maps differ in what all of a call share."""
    for i, one in enumerate(came):
        if one != came[0]:
            raise ValueError(
                f"features_or_shapes[{i}] has {what} {one} but features_or_shapes[0] has "
                f"{came[0]}; {remedy}"
            )


def _layouts(
    channels_last: bool | Sequence[bool] | None,
    tensors: Sequence[Tensor],
    shapes: Sequence[tuple[int, int, int, int]],
) -> list[tuple[bool, bool]]:
    """(channels_last, dense) of each layer."""
    if channels_last is None and tensors:
        return [layout_of(tensor) for tensor in tensors]
    if channels_last is None or isinstance(channels_last, bool):
        channels_last = [channels_last is not False] * len(shapes)
    is_list = isinstance(channels_last, Sequence) and not isinstance(channels_last, str)
    if not is_list or not all(isinstance(last, bool) for last in channels_last):
        raise TypeError(
            f"channels_last={channels_last!r}; expected a bool, or a list of one for each layer"
        )
    if len(channels_last) != len(shapes):
        raise ValueError(
            f"channels_last has {len(channels_last)} entries; expected one for each of the "
            f"{len(shapes)} layers, or a single bool"
        )
    return [(last or s[1] == 1, True) for last, s in zip(channels_last, shapes, strict=True)]


def _geometry(
    layers: Sequence[LayerShape],
    image_size: tuple[int, int] | None,
    strides: Sequence[Stride] | None,
    align_corners: bool,
    coordinates: str,
    nearest: bool,
) -> Geometry:
    """Where points fall on the maps."""
    if image_size is None:
        rows, columns = zip(*[(layer.rows, layer.columns) for layer in layers], strict=True)
        image_size = (2 * max(rows), 2 * max(columns))
    interpolation = "nearest" if nearest else "bilinear"
    options = Options(
        image_size, None, strides, interpolation, align_corners, "border", coordinates
    )
    options = options.in_plain_numbers()
    check_names(options, None)
    check_image_size(options.image_size)
    if options.strides is not None:
        check_strides(options.strides, len(layers), align_corners)
    return layer_geometry(
        [(layer.rows, layer.columns) for layer in layers],
        (options.image_size[0], options.image_size[1]),
        strides=options.strides,
        interpolation=interpolation,
        align_corners=align_corners,
        coordinates=coordinates,
    )


def _integers(dtype: torch.dtype | None, coordinates: str, moving: bool) -> bool:
    """Are the points' coordinates integers?"""
    if dtype is None:
        return coordinates == "pixel" and not moving
    if dtype not in POINT_DTYPES:
        raise TypeError(
            f"points_dtype={dtype}; expected a dtype of points, one of "
            f"{[str(d) for d in POINT_DTYPES]}"
        )
    if moving and not dtype.is_floating_point:
        raise ValueError(
            f"points_dtype={dtype} with moving_points=True; integers have no gradient. Pass a "
            "floating dtype"
        )
    return not dtype.is_floating_point


def _rates(
    profile: DeviceProfile | str | None, dtype: torch.dtype, device: torch.device
) -> tuple[Backend, DeviceProfile, tuple[str, ...]]:
    """The back end, the rates of its device, and why others were passed over."""
    if profile is None:
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"device={str(device)!r}, but torch finds {torch.cuda.device_count()} GPUs. To "
                f"plan for one that is not here pass a profile=, one of {tuple(SHIPPED)}"
            )
        backend = backend_for(device)
        others = passed_over(backend, device)
        reasons = tuple(f"not {name}: it {'; it '.join(why)}" for name, why in others.items())
        return backend, profile_of(backend, device), reasons
    if isinstance(profile, str):
        if profile not in SHIPPED:
            raise ValueError(
                f"profile={profile!r} is unknown; shipped are {tuple(SHIPPED)}, and calibrate() "
                "measures others"
            )
        profile = SHIPPED[profile]
    if not isinstance(profile, DeviceProfile):
        raise TypeError(
            f"profile={profile!r}; expected a DeviceProfile, one of {tuple(SHIPPED)} or None"
        )
    if profile.kind == "gpu" and dtype == torch.float64:
        raise TypeError(
            f"dtype=torch.float64, but the profile is of a GPU ({profile.name}), for which there "
            "are no kernels of float64. Pass dtype=torch.float32, or profile='cpu'"
        )
    return backend_named(profile.kind), profile, (f"planned for the profile's {profile.kind}",)
