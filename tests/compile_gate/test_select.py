"""The rules that choose a tile name tiles that exist, and each of them decides somewhere."""

from __future__ import annotations

import pytest
import torch

from pixelnet_triton.kernels import band, banded, fused_linear, gather, rows
from pixelnet_triton.kernels.select import RULES, Key, choose

TABLES = {
    "gather": gather.TILES,
    "coordinate_gradient": gather.GRADIENT_TILES,
    "scatter": band.TILES,
    "collect": band.SHARED_TILES,
    "banded": banded.CHOICES,
    "fused_linear": fused_linear.TILES,
    "rows": rows.TILES,
}
KEYS = [
    Key(dtype, points, outputs, channels, capability, activation, contiguous)
    for dtype in (torch.float32, torch.bfloat16)
    for points in (100, 10_000)
    for outputs in (16, 64, 128, 512)
    for channels in (3, 64, 128, 256)
    for capability in (80, 86, 90, None)
    for activation in (None, "gelu")
    for contiguous in (True, False)
]


@pytest.mark.parametrize("kernel", RULES)
def test_every_rule_names_one_tile_and_decides_somewhere(kernel: str) -> None:
    for rule in RULES[kernel]:
        size = (rule.rows, rule.columns, rule.num_warps)
        tiles = [t for t in TABLES[kernel] if (t.rows, t.columns, t.num_warps) == size]
        assert len(tiles) == 1, rule
        assert rule.why
    assert {choose(kernel, key) for key in KEYS} == set(RULES[kernel])


def test_a_tile_depends_on_capability_dtype_and_shape() -> None:
    wide = Key(torch.bfloat16, 10_000, 256, 64, 90, "relu")
    assert choose("fused_linear", wide)[:3] == (64, 256, 4)
    assert choose("fused_linear", wide._replace(activation="gelu"))[:3] == (64, 256, 8)
    assert choose("fused_linear", wide._replace(capability=100))[:3] == (64, 256, 8)
    assert choose("fused_linear", wide._replace(outputs=128))[:3] == (64, 128, 4)
    assert choose("fused_linear", wide._replace(dtype=torch.float32))[:3] == (64, 128, 8)
    small = wide._replace(dtype=torch.float32, capability=89)
    assert choose("fused_linear", small)[:3] == (64, 64, 4)
