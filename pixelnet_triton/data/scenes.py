"""Rendered rooms with exact normals and depths: data for regression tasks that needs no download.

A scene is a room with spheres and boxes in it, seen through a pinhole camera, with a texture on
each surface, Lambert's shading by one lamp, and a little noise. One ray goes through the centre of
each pixel, so normal and depth are those of exactly one surface, to rounding: nothing is averaged
over an edge. A scene is a function of its seed and size alone.

Frame of the camera: x right, y down, z forward, in metres. With f the focal length in pixels and
(c_x, c_y) the centre of the image, pixel (x, y) looks along

    r = ((x - c_x) / f, (y - c_y) / f, 1),     surface point = depth * r,     normal . r < 0

so depth is the distance along z, as a depth camera gives it, and normals face the camera.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from .folders import Sample, position
from .resizing import check_size

__all__ = ["RenderedScenes", "Scene", "camera_rays", "render"]

FOCAL = 0.9  # in widths of the image: a horizontal field of view of 58 degrees, as the Kinect's
WALLS = 6
NOISE = 0.01
Array = np.ndarray


@dataclass(frozen=True)
class Scene:
    """What the camera sees, and what is there.

    image: float32 (H, W, 3), RGB in [0, 1]. normals: float32 (H, W, 3), unit, in the camera's
    frame. depth: float32 (H, W), metres along z. surface: int64 (H, W), 0 to 5 are the walls, then
    come the spheres and the boxes; each box is one.
    """

    image: Array
    normals: Array
    depth: Array
    surface: Array


class RenderedScenes(Dataset[Sample]):
    """Scenes as samples of :class:`~pixelnet_triton.data.PixelDataset`, rendered when asked for.

    Args:
        count: how many.
        kind: what the target is, ``"normals"`` (3, H, W) or ``"depth"`` (H, W).
        size: (height, width) in pixels.
        seed: of the set, in [0, 2**32). Sets with different seeds have no scene in common.
        transform: a joint transform, dict -> dict.

    Raises:
        ValueError: one of them is out of its range.

    Example:
        >>> from pixelnet_triton.data import RenderedScenes
        >>> sample = RenderedScenes(10, size=(60, 80))[3]
        >>> sample["image"].shape, sample["target"].shape, sample["kind"]
        (torch.Size([3, 60, 80]), torch.Size([3, 60, 80]), 'normals')
    """

    def __init__(
        self,
        count: int,
        kind: str = "normals",
        *,
        size: tuple[int, int] = (120, 160),
        seed: int = 0,
        transform: Callable[[Sample], Sample] | None = None,
    ) -> None:
        if kind not in ("normals", "depth"):
            raise ValueError(f"kind={kind!r} is unknown; use 'normals' or 'depth'")
        if count < 0:
            raise ValueError(f"count={count}; expected 0 or more scenes")
        check_size(size)
        # NumPy cuts larger seeds into several, which a smaller seed and an index may be as well.
        if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
            raise ValueError(f"seed={seed!r}; expected an integer in [0, 2**32)")
        self.count = count
        self.kind = kind
        self.size = size
        self.seed = seed
        self.transform = transform

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        index = position(index, self.count)
        scene = render((self.seed, index), self.size)
        if self.kind == "normals":
            target = torch.from_numpy(scene.normals).permute(2, 0, 1).contiguous()
        else:
            target = torch.from_numpy(scene.depth)
        sample = {
            "image": torch.from_numpy(scene.image).permute(2, 0, 1).contiguous(),
            "target": target,
            "kind": self.kind,
            "name": f"scene{self.seed}_{index}",
        }
        return sample if self.transform is None else self.transform(sample)


def render(seed: int | tuple[int, ...], size: tuple[int, int] = (120, 160)) -> Scene:
    """The scene of a seed.

    Args:
        seed: one or several non-negative integers.
        size: (height, width) in pixels.
    """
    check_size(size)
    random = np.random.default_rng(seed)
    rotation = _camera(random)
    rays = camera_rays(size).reshape(-1, 3) @ rotation.T  # (P, 3); the camera is the world's origin
    hit = _room(rays, random)
    unit = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    objects = _spheres(rotation, random) + _boxes(rotation, random)
    for number, thing in enumerate(objects, start=WALLS):
        _put(hit, thing, number, rays, unit)
    image = _shade(hit, rays, WALLS + len(objects), random)
    normals = hit.normals @ rotation  # into the camera's frame
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Scene(
        image.astype(np.float32).reshape(*size, 3),
        normals.astype(np.float32).reshape(*size, 3),
        hit.depth.astype(np.float32).reshape(size),
        hit.surface.reshape(size),
    )


def camera_rays(size: tuple[int, int]) -> Array:
    """r of every pixel: float64 (H, W, 3) with z = 1."""
    height, width = size
    rays = np.ones((height, width, 3))
    rays[..., 0] = (np.arange(width) - (width - 1) / 2) / (FOCAL * width)
    rays[..., 1] = ((np.arange(height) - (height - 1) / 2) / (FOCAL * width))[:, None]
    return rays


def _camera(random: np.random.Generator) -> Array:
    """From the camera's frame to the world's: turned about the vertical, tilted, hardly rolled."""
    yaw, pitch, roll = random.uniform((-0.7, -0.35, -0.06), (0.7, 0.15, 0.06))
    return _turn(1, yaw) @ _turn(0, pitch) @ _turn(2, roll)


def _turn(axis: int, angle: float) -> Array:
    """The rotation by `angle` about one of the axes."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


@dataclass(frozen=True)
class _Hits:
    """The nearest surface so far of each ray, in the world's frame; objects write into it.

    depth (P,) counts in lengths of the ray: as z = 1 in the camera's frame, that is metres along z.
    """

    depth: Array
    normals: Array
    surface: Array


@dataclass(frozen=True)
class _Object:
    """A sphere of this radius, or the box with these half edges that lies in it."""

    centre: Array
    radius: float
    half: Array | None = None
    attitude: Array | None = None  # from the box's frame to the world's


def _room(rays: Array, random: np.random.Generator) -> _Hits:
    """The walls, floor and ceiling of an upright room, from inside."""
    low = -random.uniform((1.5, 0.9, 1.0), (3.5, 1.5, 2.0))
    high = random.uniform((1.5, 1.1, 3.5), (3.5, 1.7, 6.5))
    rays = _without_zeros(rays)
    depth = np.where(rays > 0, high, low) / rays  # (P, 3), of the wall ahead along each axis
    axis = depth.argmin(axis=1)
    pixels = np.arange(len(rays))
    ahead = rays[pixels, axis] > 0
    normals = np.zeros_like(rays)
    normals[pixels, axis] = np.where(ahead, -1.0, 1.0)
    return _Hits(depth[pixels, axis], normals, 2 * axis + ahead)


def _spheres(rotation: Array, random: np.random.Generator) -> list[_Object]:
    count = int(random.integers(1, 5))
    radii = random.uniform(0.15, 0.5, count)
    return [_Object(c, r) for c, r in zip(_places(count, rotation, random), radii, strict=True)]


def _boxes(rotation: Array, random: np.random.Generator) -> list[_Object]:
    """Half of them stand upright, the others in any attitude."""
    boxes = []
    for centre in _places(int(random.integers(1, 5)), rotation, random):
        half = random.uniform(0.12, 0.45, 3)
        attitude = _turn(1, random.uniform(0, np.pi))
        if random.random() < 0.5:
            attitude = attitude @ _turn(0, random.uniform(0, np.pi))
        boxes.append(_Object(centre, float(np.linalg.norm(half)), half, attitude))
    return boxes


def _put(hits: _Hits, thing: _Object, number: int, rays: Array, unit: Array) -> None:
    """Record the object where it is nearer than what was there before."""
    along = unit @ thing.centre  # of the point of each ray next to the centre
    # Distances from the centre, from the right triangle: only these rays can meet the object.
    inside = thing.radius**2 - (thing.centre @ thing.centre - along**2)
    pixels = np.flatnonzero((inside > 0) & (along > 0))
    if thing.half is None or thing.attitude is None:
        unit = unit[pixels]
        beside = along[pixels, None] * unit - thing.centre
        # Again, from the vector itself: the difference of squares above loses digits.
        room = thing.radius**2 - np.einsum("pi,pi->p", beside, beside)
        back = np.sqrt(np.maximum(room, 0))
        depth = (along[pixels] - back) / np.linalg.norm(rays[pixels], axis=1)
        normals = beside - back[:, None] * unit
    else:
        direction = _without_zeros(rays[pixels] @ thing.attitude)  # in the box's frame
        start = -thing.centre @ thing.attitude
        enter = (-np.sign(direction) * thing.half - start) / direction
        leave = (np.sign(direction) * thing.half - start) / direction
        axis = enter.argmax(axis=1)
        depth = enter.max(axis=1)
        depth[depth >= leave.min(axis=1)] = np.inf
        sign = -np.sign(np.take_along_axis(direction, axis[:, None], axis=1))
        normals = sign * thing.attitude.T[axis]
    nearer = depth < hits.depth[pixels]
    pixels = pixels[nearer]
    hits.depth[pixels] = depth[nearer]
    hits.normals[pixels] = normals[nearer]
    hits.surface[pixels] = number


def _without_zeros(direction: Array) -> Array:
    """Nothing to divide by zero: a ray parallel to a plane meets it far away."""
    return np.where(np.abs(direction) < 1e-12, 1e-12, direction)


def _places(count: int, rotation: Array, random: np.random.Generator) -> Array:
    """Centres (count, 3) before the camera, far enough that it stands in none of them."""
    depth = random.uniform(1.5, 4.0, count)
    aside = random.uniform((-0.5, -0.3), (0.5, 0.4), (count, 2)) * depth[:, None]
    return np.column_stack([aside, depth]) @ rotation.T


def _shade(hits: _Hits, rays: Array, count: int, random: np.random.Generator) -> Array:
    """RGB (P, 3): texture * (ambient + Lambert's cosine * falloff), gamma, noise."""
    points = (hits.depth[:, None] * rays).astype(np.float32)  # enough for looks, and faster
    normals, surface = hits.normals.astype(np.float32), hits.surface
    colour = random.uniform(0.15, 0.9, (count, 3))
    frequency = random.uniform(-1, 1, (2, count, 3)) * random.choice([3.0, 9.0, 25.0], (count, 1))
    contrast = random.uniform(0.0, 0.5, count)
    sharp = random.random(count) < 0.5
    texture = frequency.astype(np.float32)[:, surface]  # (2, P, 3)
    waves = np.sin(np.einsum("pi,kpi->kp", points, texture)).prod(axis=0)
    waves = np.where(sharp[surface], np.sign(waves), waves)
    albedo = colour[surface] * (1 - contrast[surface] * (0.5 + 0.5 * waves))[:, None]
    lamp = random.uniform((-1.2, -0.8, -0.5), (1.2, -0.3, 2.5))
    towards = lamp.astype(np.float32) - points
    square = np.einsum("pi,pi->p", towards, towards)
    cosine = np.einsum("pi,pi->p", towards, normals) / np.linalg.norm(normals, axis=1)
    falloff = random.uniform(1.5, 3.0) / ((1 + square) * np.sqrt(square))
    light = random.uniform(0.15, 0.35) + falloff * np.maximum(cosine, 0)
    image = np.minimum(albedo * light[:, None], 1).astype(np.float32) ** np.float32(1 / 2.2)
    noise = random.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + np.float32(NOISE) * noise, 0, 1)
