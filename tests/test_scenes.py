"""Rendered scenes: normals and depth belong together, and a seed decides everything."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from pixelnet_triton.data import RandomHorizontalFlip, RenderedScenes
from pixelnet_triton.data.scenes import WALLS, camera_rays, render

SEEDS = range(12)
SIZE = (120, 160)


def inner(surface: np.ndarray) -> np.ndarray:
    """Pixels whose eight neighbours see the same surface, without the image's border."""
    same = np.zeros(surface.shape, bool)
    same[1:-1, 1:-1] = True
    middle = surface[1:-1, 1:-1]
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            moved = surface[1 + dy : surface.shape[0] - 1 + dy, 1 + dx : surface.shape[1] - 1 + dx]
            same[1:-1, 1:-1] &= moved == middle
    return same


@pytest.mark.parametrize("seed", SEEDS)
def test_normals_are_unit_and_face_the_camera(seed: int) -> None:
    scene = render(seed, SIZE)
    assert np.abs(np.linalg.norm(scene.normals, axis=-1) - 1).max() < 1e-6
    assert (np.einsum("yxi,yxi->yx", scene.normals, camera_rays(SIZE)) < 0).all()
    assert scene.depth.min() > 0.5
    assert scene.depth.max() < 10
    assert scene.image.min() >= 0
    assert scene.image.max() <= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_normals_are_those_of_the_surface_that_the_depths_describe(seed: int) -> None:
    """Central differences of the back-projected points lie in the tangent plane."""
    scene = render(seed, SIZE)
    points = scene.depth[..., None].astype(np.float64) * camera_rays(SIZE)
    normals = scene.normals.astype(np.float64)
    # Neighbours with nearly the same normal: not two faces of one box, nor a sphere's outline.
    smooth = inner(scene.surface)
    for axis in (0, 1):
        for step in (-1, 1):
            turn = np.einsum("yxi,yxi->yx", normals, np.roll(normals, step, axis))
            smooth &= turn > 0.995
    assert smooth.mean() > 0.5
    for axis in (0, 1):
        tangent = np.roll(points, -1, axis) - np.roll(points, 1, axis)
        sine = np.einsum("yxi,yxi->yx", normals, tangent) / np.linalg.norm(tangent, axis=-1)
        flat = smooth & (scene.surface < WALLS)
        assert np.abs(sine[flat]).max() < 2e-4  # float32 depths: 1e-7 of 6 m, over a pixel of 5 mm
        # On a sphere of radius r, points h apart: of the order of the normal's turn, 0.1 rad here.
        assert np.abs(sine[smooth]).max() < 0.06
        assert np.sqrt((sine[smooth] ** 2).mean()) < 0.01


def test_normals_agree_with_the_cross_product_in_direction() -> None:
    """A sign or an axis exchanged in either of them would show here."""
    scene = render(3, SIZE)
    points = scene.depth[..., None].astype(np.float64) * camera_rays(SIZE)
    across = np.roll(points, -1, 1) - np.roll(points, 1, 1)
    down = np.roll(points, -1, 0) - np.roll(points, 1, 0)
    estimate = np.cross(down, across)  # x right, y down: this order points at the camera
    estimate /= np.linalg.norm(estimate, axis=-1, keepdims=True)
    cosine = np.einsum("yxi,yxi->yx", scene.normals, estimate)
    flat = inner(scene.surface) & (scene.surface < WALLS)
    assert flat.sum() > 1000
    assert cosine[flat].min() > 0.99999


def test_every_kind_of_surface_is_seen() -> None:
    scenes = [render(seed, SIZE) for seed in SEEDS]
    assert {wall for s in scenes for wall in np.unique(s.surface[s.surface < WALLS])} >= {
        1,
        2,
        3,
        5,
    }
    assert all((scene.surface >= WALLS).mean() > 0.01 for scene in scenes)
    # Spheres have normals without end, walls and boxes a few.
    assert all(len(np.unique(s.normals[s.surface == WALLS], axis=0)) > 20 for s in scenes[:3])


def test_an_image_does_not_tell_its_normals_by_a_fixed_rule() -> None:
    """Pixels that are equal but for shading must not always have equal normals: textures differ."""
    scene, other = render(1, SIZE), render(2, SIZE)
    floor = scene.image[scene.surface == 3], other.image[other.surface == 3]
    assert all(len(pixels) > 100 for pixels in floor)
    assert np.abs(floor[0].mean(0) - floor[1].mean(0)).max() > 0.05


@pytest.mark.parametrize("kind", ["normals", "depth"])
def test_samples_are_a_function_of_seed_and_index(kind: str) -> None:
    data = RenderedScenes(5, kind, size=(24, 32), seed=7)
    again = pickle.loads(pickle.dumps(data))
    torch.manual_seed(99)
    np.random.seed(99)
    for index in (4, 0, 2):
        one, two = data[index], again[index]
        assert torch.equal(one["image"], two["image"])
        assert torch.equal(one["target"], two["target"])
        assert one["target"].shape == ((3, 24, 32) if kind == "normals" else (24, 32))
        assert one["image"].dtype == one["target"].dtype == torch.float32
        assert one["kind"] == kind
    images = [
        RenderedScenes(3, size=(24, 32), seed=s)[i]["image"] for s in (0, 1) for i in range(3)
    ]
    assert len({tuple(image.flatten().tolist()) for image in images}) == 6


def test_mirrored_normals_are_those_of_the_mirrored_depth() -> None:
    depth = RenderedScenes(2, "depth", size=SIZE, transform=RandomHorizontalFlip(1.0))[1]["target"]
    normals = RenderedScenes(2, size=SIZE, transform=RandomHorizontalFlip(1.0))[1]["target"]
    points = depth.double()[..., None].numpy() * camera_rays(SIZE)
    across = np.roll(points, -1, 1) - np.roll(points, 1, 1)
    sine = np.einsum("iyx,yxi->yx", normals.double().numpy(), across)
    sine /= np.linalg.norm(across, axis=-1)
    flat = inner(render((0, 1), SIZE).surface)[:, ::-1]
    assert np.median(np.abs(sine[flat])) < 1e-4


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="kind='labels' is unknown; use 'normals' or 'depth'"):
        RenderedScenes(3, "labels")
    with pytest.raises(ValueError, match=r"size=\(0, 5\); expected"):
        render(0, (0, 5))
    with pytest.raises(ValueError, match="count=-1"):
        RenderedScenes(-1)
    for size in ((0, 5), 64, (12.0, 16.0)):
        with pytest.raises(ValueError, match=r"size=.*; expected \(height, width\)"):
            RenderedScenes(3, size=size)  # type: ignore[arg-type]
    # Scene 0 of the seed 2**32 + 7 would be scene 1 of the seed 7.
    for seed in (-1, 2**32 + 7, 1.5):
        with pytest.raises(ValueError, match=rf"seed={seed}; expected an integer in \[0, 2\*\*32"):
            RenderedScenes(3, seed=seed)  # type: ignore[arg-type]
    assert RenderedScenes(1, size=(4, 6), seed=2**32 - 1)[0]["image"].shape == (3, 4, 6)
    with pytest.raises(IndexError, match="index 3 is out of range: there are 3 images"):
        RenderedScenes(3)[3]
