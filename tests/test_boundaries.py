"""Boundary ODS, OIS, AP: the official code's counts, exact matching, and the scores by hand.

The official counts stand here as numbers. They came from the benchmark's own C++ (`match.cc` and
`csa.cc`, as packaged by pyEdgeEval 0.2.8), on maps thinned by scikit-image. That code completes
its assignment problem with random edges, of which it may find too few: its counts vary by a pixel
or two, and lie below the optimum.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("torchmetrics")
pytest.importorskip("scipy")

from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from pixelnet_triton.data import BSDS500
from pixelnet_triton.metrics import (
    BoundaryCounts,
    BoundaryMetrics,
    boundary_counts,
    boundary_matching,
    evaluate_boundaries,
)
from pixelnet_triton.metrics.boundary_matching import (
    correspond_pixels,
    minimum_cost_matching,
    pixel_tree,
)
from pixelnet_triton.metrics.boundary_scores import best_counts, boundary_scores, stacked
from pixelnet_triton.metrics.thinning import thin

from .data_files import real_data

Mask = NDArray[np.bool_]


def rings() -> tuple[NDArray[np.float64], list[Mask]]:
    """Soft rings and a line, drawn anew by three annotators; 70 x 110 pixels."""
    y, x = np.mgrid[:70, :110]

    def off_circle(cx: float, cy: float, radius: float) -> NDArray[np.float64]:
        return np.abs(np.hypot(x - cx, y - cy) - radius)

    soft = np.maximum.reduce(
        [
            0.9 - off_circle(40, 33, 22) / 6,
            0.7 - off_circle(71, 36, 25) / 9,
            0.5 - np.abs(y - 0.31 * x - 20) / 4,
            np.zeros(x.shape),
        ]
    )
    drawn = [
        off_circle(40.5, 34, 21.3) < 0.8,
        (off_circle(71, 35, 26.2) < 0.8) | (off_circle(40, 33, 23) < 0.8),
        np.abs(y - 0.3 * x - 21) < 0.6,
    ]
    return soft, [thin(mask) for mask in drawn]


# At thresholds 0.1, 0.3, 0.5, 0.6, 0.8: found, true, right, predicted.
OFFICIAL = {
    0.0075: [(115, 506, 113, 359), (145, 506, 141, 363), (79, 506, 78, 264), (79, 506, 77, 264),
             (50, 506, 48, 124)],
    0.02: [(490, 506, 354, 359), (498, 506, 361, 363), (403, 506, 264, 264), (402, 506, 261, 264),
           (251, 506, 124, 124)],
    0.04: [(506, 506, 358, 359), (506, 506, 363, 363), (426, 506, 263, 264), (425, 506, 264, 264),
           (266, 506, 124, 124)],
}  # fmt: skip


@pytest.mark.parametrize("max_distance", OFFICIAL)
def test_counts_of_the_official_code(max_distance: float) -> None:
    counts = stacked(boundary_counts(*rings(), [0.1, 0.3, 0.5, 0.6, 0.8], max_distance))
    official = np.array(OFFICIAL[max_distance]).T
    np.testing.assert_array_equal(counts[[1, 3]], official[[1, 3]])
    assert np.abs(counts - official).max() <= 3
    assert (counts[0] >= official[0]).all()  # there was no larger matching


def test_counts_of_the_official_code_on_a_photograph() -> None:
    """One annotator of BSDS500's first test image against the other four, blurred."""
    data = BSDS500(real_data("bsds500"), "test")
    first, *others = [a.numpy() for a in data.annotations(data.names.index("100007"))]
    soft = ndimage.gaussian_filter(first.astype(float), 1.5)
    counts = stacked(boundary_counts(soft / soft.max(), others, [0.2, 0.5, 0.8]))
    official = np.array(
        [(6234, 11690, 1569, 1569), (6301, 11690, 1585, 1585), (44, 11690, 11, 11)]
    ).T
    np.testing.assert_array_equal(counts[1:], official[1:])
    np.testing.assert_allclose(counts[0], official[0], rtol=0.002)
    assert (counts[0] >= official[0]).all()


def test_thinning_is_that_of_scikit_image() -> None:
    """On blobs of all sizes, around the 64 pixels of a word and down to a single pixel."""
    morphology = pytest.importorskip("skimage.morphology")
    random = np.random.default_rng(0)
    removed = 0
    for width in (1, 2, 3, 17, 62, 63, 64, 65, 127, 128, 130):
        for height in (1, 2, 31):
            for sigma in (0.0, 1.0, 2.5):
                noise = ndimage.gaussian_filter(random.random((height, width)), sigma)
                blobs = noise >= np.quantile(noise, random.random())
                thinned = thin(blobs)
                np.testing.assert_array_equal(thinned, morphology.thin(blobs))
                removed += int(blobs.sum() - thinned.sum())
    assert removed > 1000


@pytest.mark.parametrize("block", [1, 4, boundary_matching.BLOCK])
def test_matching_is_optimal(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse random graphs of several components, against a dense solver."""
    monkeypatch.setattr(boundary_matching, "BLOCK", block)
    random = np.random.default_rng(block)
    for _ in range(40):
        shape = tuple(random.integers(1, 15, 2))
        costs = np.where(random.random(shape) < 0.15, random.integers(0, 400, shape), -1)
        rows, columns = np.nonzero(costs >= 0)
        if len(rows) == 0:
            continue
        i, j = minimum_cost_matching(
            rows, columns, costs[rows, columns].astype(float), shape, unmatched_cost=1e5
        )
        assert len(set(i.tolist())) == len(set(j.tolist())) == len(i)
        assert (costs[i, j] >= 0).all()
        dense = np.where(costs >= 0, costs, 1e5)
        best = dense[linear_sum_assignment(dense)]
        assert len(i) == (best < 1e5).sum()
        assert costs[i, j].sum() == best[best < 1e5].sum()


def test_pairs_are_as_many_as_there_can_be() -> None:
    """Nearest pairs first would leave two pixels over; a chain of shifts serves all four."""
    line = np.zeros((1, 12), dtype=bool)
    prediction, truth = line.copy(), line.copy()
    prediction[0, [2, 4, 6, 8]] = True
    truth[0, [4, 6, 8, 10]] = True  # three coincide
    i, j = correspond_pixels(pixel_tree(prediction), pixel_tree(truth), 2.0)
    assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 0), (1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize(("shift", "pairs"), [((3, 4), 1), ((3, 5), 0), ((0, 5), 1), ((0, 0), 1)])
def test_the_largest_distance_is_included(shift: tuple[int, int], pairs: int) -> None:
    prediction, truth = np.zeros((2, 20, 20), dtype=bool)
    prediction[8, 8] = truth[8 + shift[0], 8 + shift[1]] = True
    # 5 pixels of a diagonal of 20 sqrt(2), and no more than the last digits of a float64
    counts = boundary_counts(prediction, [truth], [0.5], 5 / np.hypot(20, 20) * (1 + 1e-15))
    assert counts.found.tolist() == counts.right.tolist() == [pairs]


def test_a_predicted_pixel_is_right_if_any_annotator_drew_it() -> None:
    rows = torch.zeros(4, 80, 120, dtype=torch.bool)
    rows[0, 10] = rows[1, 40] = rows[2, [10, 40]] = rows[3, [11, 40, 70]] = True
    counts = boundary_counts(rows[3], rows[:3], [0.5])  # 1 of its 3 lines is nobody's
    assert counts.true.tolist() == [120 * 4]
    assert counts.found.tolist() == [120 * 4]
    assert counts.predicted.tolist() == [120 * 3]
    assert counts.right.tolist() == [120 * 2]


def test_thresholds_are_inclusive_and_99_hundredths() -> None:
    truth = np.zeros((30, 30), dtype=bool)
    truth[15] = True
    counts = boundary_counts(0.5 * truth, [truth])
    np.testing.assert_allclose(counts.thresholds, np.arange(1, 100) / 100)
    np.testing.assert_array_equal(counts.predicted, np.where(np.arange(1, 100) <= 50, 30, 0))
    np.testing.assert_array_equal(counts.found, counts.predicted)
    np.testing.assert_array_equal(counts.true, 30)


def test_one_call_counts_as_single_thresholds_do() -> None:
    """Maps that did not change, and those that are empty, are not matched again."""
    soft, truth = rings()
    soft = np.round(soft * 5) / 5  # six levels: most thresholds change nothing
    counts = boundary_counts(soft, truth, 13)
    for k, threshold in enumerate(counts.thresholds):
        alone = boundary_counts(soft, truth, [threshold])
        np.testing.assert_array_equal(stacked(counts)[:, k], stacked(alone)[:, 0])
    assert counts.predicted[-1] == 0 < counts.predicted[-3]


def test_thinning_can_be_left_out() -> None:
    truth = np.zeros((40, 40), dtype=bool)
    truth[20] = True
    band = ndimage.binary_dilation(truth, iterations=1)
    thick = boundary_counts(band, [truth], [0.5], 0.03, thin=False)
    thinned = boundary_counts(band, [truth], [0.5], 0.03)
    assert (thick.predicted[0], thick.right[0], thick.found[0]) == (band.sum(), 40, 40)
    assert thinned.predicted[0] < 45


def test_nothing_drawn_and_nothing_predicted() -> None:
    nothing, line = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    line[4] = True
    empty = boundary_counts(nothing, [nothing], [0.5])
    assert stacked(empty).sum() == 0
    assert stacked(boundary_counts(line, [nothing], [0.5])).ravel().tolist() == [0, 0, 0, 30]
    assert stacked(boundary_counts(nothing, [line], [0.5])).ravel().tolist() == [0, 30, 0, 0]
    scores = boundary_scores(np.array([0.5]), stacked(empty), best_counts(stacked(empty)))
    assert [scores[name].item() for name in ("ods", "ois", "ap")] == [0, 0, 0]


def official_scores(thresholds: Any, images: list[Any]) -> tuple[float, float, float, float]:
    """`collect_eval_bdry.m`, step by step as it describes them."""

    def measure(counts: Any) -> tuple[Any, Any, Any]:
        matched, true, right, predicted = (np.asarray(c, dtype=float) for c in counts)
        r, p = matched / (true + (true == 0)), right / (predicted + (predicted == 0))
        return r, p, 2 * r * p / (r + p + (r + p == 0))

    chosen = sum(c[:, np.flatnonzero(measure(c)[2] == measure(c)[2].max())[0]] for c in images)
    r, p, f = measure(sum(images))
    ods, at = f[0], thresholds[0]
    for k in range(1, len(thresholds)):
        for d in np.linspace(0, 1, 100):
            between_r, between_p = r[k] * d + r[k - 1] * (1 - d), p[k] * d + p[k - 1] * (1 - d)
            here = 2 * between_r * between_p / max(between_r + between_p, 1e-300)
            if here > ods:
                ods, at = here, thresholds[k] * d + thresholds[k - 1] * (1 - d)
    unique, first = np.unique(r, return_index=True)
    grid = np.arange(101) / 100
    reached = (unique[0] <= grid) & (grid <= unique[-1])
    area = (np.interp(grid, unique, p[first]) * reached).sum() * 0.01 if len(unique) > 1 else 0.0
    return ods, at, float(measure(chosen)[2]), area


@pytest.mark.parametrize("count", [1, 2, 30])
def test_scores_are_those_of_the_official_code(count: int) -> None:
    """On curves as they come: recall falls with the threshold, precision rises unsteadily."""
    random = np.random.default_rng(count)
    thresholds = np.linspace(1 / (count + 1), 1 - 1 / (count + 1), count)
    images = []
    for _ in range(4):
        predicted = np.sort(random.integers(0, 5000, count))[::-1]
        right = np.sort((predicted * random.random(count)).astype(int))[::-1]
        matched = np.sort(random.integers(0, 8000, count))[::-1]
        images.append(
            np.stack([matched, np.full(count, 8000), right, np.maximum(predicted, right)])
        )
    total, best = sum(images), sum(best_counts(image) for image in images)
    scores = boundary_scores(thresholds, np.asarray(total), np.asarray(best))
    values = [scores[name].item() for name in ("ods", "ods_threshold", "ois", "ap")]
    np.testing.assert_allclose(values, official_scores(thresholds, images), rtol=1e-6)


def test_the_best_f_lies_between_two_thresholds() -> None:
    """R from 1 to 0.2, P from 0.2 to 1: F is largest, 0.6, in the middle, where no threshold is."""
    counts = np.array([[100, 20], [100, 100], [20, 100], [100, 100]])
    scores = boundary_scores(np.array([0.4, 0.6]), counts, best_counts(counts))
    assert scores["ods"].item() == pytest.approx(0.6, abs=1e-4)
    assert scores["ods_threshold"].item() == pytest.approx(0.5, abs=2e-3)
    assert scores["ois"].item() == pytest.approx(1 / 3)


def several_images() -> tuple[list[torch.Tensor], list[list[torch.Tensor]]]:
    soft, truth = rings()
    predictions = [torch.from_numpy(soft), torch.from_numpy(soft**2).float(), torch.zeros(70, 110)]
    predictions[2] = torch.from_numpy(0.3 * truth[1])
    annotations = [[torch.from_numpy(mask) for mask in truth]] * 2 + [[torch.from_numpy(truth[1])]]
    return predictions, annotations


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0, atol=0, msg=name)


def test_one_by_one_and_in_processes() -> None:
    predictions, annotations = several_images()
    metric = BoundaryMetrics(thresholds=9)
    for prediction, drawn in zip(predictions, annotations, strict=True):
        metric.update(prediction, drawn)
    scores = metric.compute()
    assert 0.3 < scores["ods"] < scores["ois"] < 1  # images have thresholds of their own
    options: dict[str, Any] = {"thresholds": 9, "progress": False}
    assert_same(scores, evaluate_boundaries(predictions, annotations, workers=1, **options))
    unsized = evaluate_boundaries(iter(predictions), iter(annotations), workers=2, **options)
    assert_same(scores, unsized)


def test_metrics_of_ranks_add_up_and_reset() -> None:
    predictions, annotations = several_images()
    whole, *ranks = (BoundaryMetrics(thresholds=5) for _ in range(3))
    for index, image in enumerate(zip(predictions, annotations, strict=True)):
        whole.update(*image)
        ranks[index % 2].update(*image)
    expected = whole.compute()
    for name in ("images", "total", "best"):  # what torchmetrics does for dist_reduce_fx="sum"
        setattr(ranks[0], name, getattr(ranks[0], name) + getattr(ranks[1], name))
    ranks[0]._computed = None
    assert_same(expected, ranks[0].compute())
    whole.reset()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert torch.isnan(whole.compute()["ods"])


SCRIPT = """
import torch
from pixelnet_triton.metrics import evaluate_boundaries
line = torch.eye(30, dtype=torch.bool)
{guard}
    scores = evaluate_boundaries([line], [[line]], thresholds=1, workers=2)
    print("ods", scores["ods"].item())
"""


@pytest.mark.parametrize(
    ("guard", "code", "said"),
    [('if __name__ == "__main__":', 0, "ods 1.0"), ("if True:", 1, "pass workers=1")],
)
def test_a_script(guard: str, code: int, said: str, tmp_path: Path) -> None:
    """Processes import it; one that would start processes then is told so."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(guard=guard))
    run = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=200,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": ""},
    )
    assert run.returncode == code, run.stderr
    assert said in run.stdout + run.stderr
    if code == 0:
        assert "1/1" in run.stderr  # the bar


LINE = np.eye(20, dtype=bool)
SOFT = LINE.astype(np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: boundary_counts(SOFT[None], [LINE]), ValueError, r"prediction has shape \(1, 20"),
        (lambda: boundary_counts(SOFT[:0], [LINE]), ValueError, r"prediction has shape \(0, 20"),
        (lambda: boundary_counts(SOFT * 255, [LINE]), ValueError, r"over \[0, 255\]; expected"),
        (lambda: boundary_counts(SOFT - 1, [LINE]), ValueError, r"over \[-1, 0\]; expected"),
        (lambda: boundary_counts(SOFT / 0.0 * 0, [LINE]), ValueError, "without NaN"),
        (lambda: boundary_counts(SOFT.astype(np.uint8), [LINE]), TypeError, "by 255.0"),
        (lambda: boundary_counts([[0.5]], [LINE]), TypeError, "prediction is a list"),
        (lambda: boundary_counts(SOFT, []), ValueError, "annotations is empty"),
        (lambda: boundary_counts(SOFT, LINE), ValueError, r"as \[annotation\]"),
        (
            lambda: boundary_counts(SOFT, [LINE, LINE[1:]]),
            ValueError,
            r"annotations\[1\] has shape",
        ),
        (lambda: boundary_counts(SOFT, [LINE * 255]), ValueError, "other than 0 and 1"),
        (lambda: boundary_counts(SOFT, ["line"]), TypeError, r"annotations\[0\] is a str"),
        (lambda: boundary_counts(SOFT, [LINE], 0), ValueError, "thresholds=0"),
        (lambda: boundary_counts(SOFT, [LINE], [0.0, 0.5]), ValueError, r"in \(0, 1\]"),
        (lambda: boundary_counts(SOFT, [LINE], [0.5, 0.4]), ValueError, "increasing"),
        (lambda: BoundaryMetrics(thresholds=[]), ValueError, "thresholds="),
        (lambda: boundary_counts(SOFT, [LINE], 9, 0.0), ValueError, "max_distance=0.0"),
        (lambda: boundary_counts(SOFT, [LINE], 9, float("nan")), ValueError, "max_distance=nan"),
        (lambda: evaluate_boundaries([], []), ValueError, "at least one image"),
        (lambda: evaluate_boundaries([SOFT], []), ValueError, "has 1 images but annotations 0"),
        (lambda: evaluate_boundaries([SOFT], [[LINE]], workers=0), ValueError, "workers=0"),
        (
            lambda: evaluate_boundaries([SOFT, 2 * SOFT], [[LINE]] * 2, workers=1, progress=False),
            ValueError,
            "image 1: prediction ranges",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")
def test_bad_input(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_types_of_prediction_and_annotations() -> None:
    result = boundary_counts(SOFT, [LINE], [0.5])
    assert isinstance(result, BoundaryCounts)
    assert result.right.tolist() == [20]
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.bool):
        same = boundary_counts(torch.from_numpy(SOFT).to(dtype), [LINE.astype(np.int64)], [0.5])
        np.testing.assert_array_equal(stacked(same), stacked(result))
