"""Features kept on disk: the same training as without them, and no stale file taken for fresh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
from pixelnet_triton.sampling import UniformSampler
from pixelnet_triton.training import (
    CachedFeatures,
    Normals,
    PixelNetModule,
    Recipe,
    Segmentation,
    StepLoader,
    Task,
    collate_features,
    fit,
    predict_features,
)

CLASSES = 3
SIZE = (24, 32)


class Images:
    """Random images of the given sizes, with the names that a reader of files would give."""

    def __init__(self, sizes: list[tuple[int, int]], kind: str = "labels", seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.names = [f"image{i}" for i in range(len(sizes))]
        self.samples = []
        for name, size in zip(self.names, sizes, strict=True):
            image = torch.rand(3, *size, generator=generator)
            labels = (3 * image.mean(0)).long().clamp(max=CLASSES - 1)
            target = image / image.norm(dim=0) if kind == "normals" else labels
            self.samples.append({"image": image, "target": target, "kind": kind, "name": name})

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.samples[index]


class Losses(Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.values.append(float(arguments[2]["loss"]))


def network(outputs: int = CLASSES, output: str = "softmax") -> PixelNet:
    torch.manual_seed(7)
    backbone = VGG16(("conv1_2", "conv2_2", "conv3_3"), width=1 / 16).requires_grad_(False)
    head = PixelMLP(backbone.channels, (16,), out_features=outputs, init="kaiming", batch_norm=True)
    return PixelNet(backbone, head, output=output)


def losses(data: Any, folder: Path, *, images: int, model: PixelNet | None = None) -> list[float]:
    """Of six steps on `data`."""
    model = network() if model is None else model
    task: Task = Segmentation(CLASSES, UniformSampler(50))
    seen = Losses()
    fit(
        PixelNetModule(model, task, recipe=Recipe(lr=0.05), seed=3),
        StepLoader(data, images, seed=3),
        folder=folder,
        steps=6,
        callbacks=[seen],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    return seen.values


class TestTraining:
    def test_is_the_same_as_without(self, tmp_path: Path) -> None:
        data = Images([SIZE] * 4)
        kept = CachedFeatures(data, network(), tmp_path / "kept", dtype=torch.float32)
        plain = losses(data, tmp_path / "plain", images=1)
        assert losses(kept, tmp_path / "cached", images=1) == plain
        assert len(set(plain)) == 6

    def test_of_mini_batches_is_the_same_but_for_rounding(self, tmp_path: Path) -> None:
        """float16 rounds features by 2^-12 of their value at most."""
        data = Images([SIZE] * 4)
        plain = losses(data, tmp_path / "plain", images=2)
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 1e-3)):
            kept = CachedFeatures(data, network(), tmp_path / str(dtype), dtype=dtype)
            cached = losses(kept, tmp_path / f"run{dtype}", images=2)
            assert cached == pytest.approx(plain, rel=tolerance)

    def test_does_not_run_the_backbone(self, tmp_path: Path, monkeypatch: Any) -> None:
        model = network()
        kept = CachedFeatures(Images([SIZE] * 4), model, tmp_path / "kept")
        monkeypatch.setattr(model, "backbone", nn.Identity())
        assert len(losses(kept, tmp_path / "run", images=2, model=model)) == 6

    def test_is_refused_where_the_backbone_learns(self, tmp_path: Path) -> None:
        model = network()
        kept = CachedFeatures(Images([SIZE] * 4), model, tmp_path / "kept")
        model.backbone.requires_grad_(True)
        with pytest.raises(ValueError, match="are trained, the first is"):
            losses(kept, tmp_path / "run", images=2, model=model)


class TestMaps:
    def test_mini_batch_is_float32_and_channels_last(self, tmp_path: Path) -> None:
        kept = CachedFeatures(Images([SIZE] * 2), network(), tmp_path)
        batch = next(iter(StepLoader(kept, 2)))
        assert all(m.dtype == torch.float32 for m in batch["features"])
        assert all(m.is_contiguous(memory_format=torch.channels_last) for m in batch["features"])
        assert "image" not in batch

    def test_padding_changes_no_value_at_a_pixel(self, tmp_path: Path) -> None:
        """An upright and a lying image in one mini-batch: every pixel, those at the sides too."""
        model = network().eval()
        kept = CachedFeatures(Images([(24, 40), (40, 24)]), model, tmp_path, dtype=torch.float32)
        assert model.head.first.strides is not None
        batch = kept.collate([kept[0], kept[1]])
        assert batch["target"].shape == (2, 40, 40)
        for b, (height, width) in enumerate([(24, 40), (40, 24)]):
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            points = torch.stack([x.flatten(), y.flatten()], -1)
            alone = [m[None].float() for m in kept[b]["features"]]
            own = [m[b : b + 1] for m in batch["features"]]
            expected = model.head(alone, points[None], (height, width))
            torch.testing.assert_close(model.head(own, points[None], (40, 40)), expected)
            assert (batch["target"][b, height:] == 255).all()
            assert (batch["target"][b, :, width:] == 255).all()

    def test_sizes_that_differ_need_strides(self, tmp_path: Path) -> None:
        kept = CachedFeatures(Images([(24, 40), (40, 24)]), network(), tmp_path)
        with pytest.raises(ValueError, match="the head has no strides"):
            collate_features([kept[0], kept[1]])

    @pytest.mark.parametrize("kind", ["labels", "normals"])
    def test_every_second_entry_is_the_mirror_image(self, kind: str, tmp_path: Path) -> None:
        data, model = Images([SIZE] * 2, kind), network()
        kept = CachedFeatures(data, model, tmp_path, flip=True, dtype=torch.float32)
        assert len(kept) == 4
        mirror = {"image": data[1]["image"].flip(-1), "target": data[1]["target"].flip(-1)}
        if kind == "normals":
            mirror["target"][0] *= -1
        for entry, sample in ((2, data[1]), (3, mirror)):
            assert torch.equal(kept[entry]["target"], sample["target"])
            for kept_map, fresh in zip(
                kept[entry]["features"], model.features(sample["image"][None]), strict=True
            ):
                torch.testing.assert_close(kept_map, fresh[0])

    def test_entries_count_from_the_end_too(self, tmp_path: Path) -> None:
        kept = CachedFeatures(Images([SIZE] * 2), network(), tmp_path)
        assert kept[-1]["name"] == "image1"
        with pytest.raises(IndexError):
            kept[2]

    def test_bfloat16_reaches_beyond_float16(self, tmp_path: Path) -> None:
        data, model = Images([SIZE]), network()
        with torch.no_grad():
            for parameter in model.backbone.parameters():
                parameter *= 100
        with pytest.raises(ValueError, match=r"not finite in torch.float16.*bfloat16"):
            CachedFeatures(data, model, tmp_path / "half")
        kept = CachedFeatures(data, model, tmp_path / "brain", dtype=torch.bfloat16)
        fresh = model.features(data[0]["image"][None])
        for kept_map, one in zip(kept[0]["features"], fresh, strict=True):
            torch.testing.assert_close(kept_map.float(), one[0], rtol=2**-8, atol=0)


class TestPrediction:
    @pytest.mark.parametrize("output", ["softmax", "normals"])
    def test_is_that_of_the_images(self, output: str, tmp_path: Path) -> None:
        data, model = Images([SIZE] * 2), network(output=output)
        kept = CachedFeatures(data, model, tmp_path, dtype=torch.float32)
        batch = kept.collate([kept[0], kept[1]])
        images = torch.stack([data[0]["image"], data[1]["image"]])
        prediction = predict_features(model, batch["features"], SIZE)
        torch.testing.assert_close(prediction, model.predict(images))
        assert model.training

    def test_validates_on_features(self, tmp_path: Path) -> None:
        data, model = Images([SIZE] * 2, "normals"), network(output="normals")
        kept = CachedFeatures(data, model, tmp_path, dtype=torch.float32)
        module = PixelNetModule(model, Normals(UniformSampler(50)))
        values = []
        for source in (kept, data):
            for batch in StepLoader(source, 2):
                module.validation_step(batch, 0)
            values.append(float(module.metrics.compute()["mean"]))
            module.metrics.reset()
        assert values[0] == pytest.approx(values[1], rel=1e-4)


def count_runs(model: PixelNet) -> list[Tensor]:
    """A list that grows by one with every run of the backbone."""
    runs: list[Tensor] = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: runs.append(inputs[0]))
    return runs


class TestStaleness:
    def test_what_is_there_is_not_computed_again(self, tmp_path: Path) -> None:
        data, model = Images([SIZE] * 8), network()
        CachedFeatures(data, model, tmp_path)
        runs = count_runs(model)
        CachedFeatures(data, model, tmp_path)
        assert len(runs) == 3  # the first, the middle and the last are compared

    def test_a_killed_run_goes_on(self, tmp_path: Path) -> None:
        data, model = Images([SIZE] * 8), network()
        first = CachedFeatures(data, model, tmp_path)[5]["features"]
        for entry in (5, 6):
            (tmp_path / f"{entry:06d}.safetensors").unlink()
        runs = count_runs(model)
        again = CachedFeatures(data, model, tmp_path)[5]["features"]
        assert len(runs) == 3 + 2
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))

    def other_weights(self, data: Images, model: PixelNet) -> dict[str, Any]:
        with torch.no_grad():
            next(model.backbone.parameters())[0] += 1e-3
        return {}

    def other_images(self, data: Images, model: PixelNet) -> dict[str, Any]:
        data.samples[-1] = {**data.samples[-1], "image": data.samples[-1]["image"] * 0.9}
        return {}

    def other_names(self, data: Images, model: PixelNet) -> dict[str, Any]:
        data.names = data.names[::-1]
        return {}

    def other_computation(self, data: Images, model: PixelNet) -> dict[str, Any]:
        compute = model.backbone.forward
        model.backbone.forward = lambda images: [1.1 * m for m in compute(images)]  # type: ignore
        return {}

    def more_images(self, data: Images, model: PixelNet) -> dict[str, Any]:
        data.samples.append(data.samples[0])
        return {}

    def other_dtype(self, data: Images, model: PixelNet) -> dict[str, Any]:
        return {"dtype": torch.float32}

    def mirrored_too(self, data: Images, model: PixelNet) -> dict[str, Any]:
        return {"flip": True}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("other_weights", "the backbone is another one"),
            ("other_images", "image 3 of the data set is another one"),
            ("other_names", "the names are others"),
            ("other_computation", "the backbone computes another map 0 of image 0"),
            ("more_images", "images=4, not 5"),
            ("other_dtype", "dtype='torch.float16', not 'torch.float32'"),
            ("mirrored_too", "flip=False, not True"),
        ],
    )
    def test_is_noticed(self, change: str, message: str, tmp_path: Path) -> None:
        data, model = Images([SIZE] * 4), network()
        CachedFeatures(data, model, tmp_path)
        options = getattr(self, change)(data, model)
        with pytest.raises(ValueError, match=f"{message}. Give another folder"):
            CachedFeatures(data, model, tmp_path, **options)
        anew = CachedFeatures(data, model, tmp_path, **options, overwrite=True)
        with torch.no_grad():
            fresh = model.features(data[3]["image"][None])
        entry = 6 if anew.flip else 3
        for kept, one in zip(anew[entry]["features"], fresh, strict=True):
            torch.testing.assert_close(kept.float(), one[0], rtol=2**-10, atol=1e-6)


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    data, model = Images([SIZE]), network()
    with pytest.raises(TypeError, match="model is a VGG16; expected a PixelNet"):
        CachedFeatures(data, model.backbone, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"dtype=torch.int8; expected torch.float16"):
        CachedFeatures(data, model, tmp_path, dtype=torch.int8)
    model.backbone.requires_grad_(True)
    with pytest.raises(ValueError, match=r"requires_grad_\(False\)"):
        CachedFeatures(data, model, tmp_path)
    assert not list(tmp_path.iterdir())
