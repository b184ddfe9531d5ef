"""What README.md and docs/ say with a figure in it, made anew from where the figure comes from.

A quote is a document, the source, and words that have to stand in the document as they are made
here (runs of spaces and ends of lines apart). Where they are an f-string, the figure is worked out
from a file of results, or from the code that it describes; where they are not, the source is a
publication. Blocks between the figures comments are bench.report's, and no quotes are needed there.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bench import compare, results, tables, timing
from bench.report_planner import letters
from bench.report_table4 import latest_rows
from bench.table4 import PAPER
from bench.workloads import WORKLOADS, Workload
from pixelnet_triton import explain
from pixelnet_triton.call import layer_geometry
from pixelnet_triton.cpu import routes
from pixelnet_triton.gpu.routes import GATHERED
from pixelnet_triton.kernels import bands, ruler
from pixelnet_triton.metrics import normals
from pixelnet_triton.sampling import BiasedSampler

ROOT = Path(__file__).resolve().parent.parent
CPU = "Intel(R) Xeon(R) Processor, 2 threads, AVX512"
GPU = "NVIDIA H200"
PIXELNET = "arXiv 1609.06694"


class Quote(NamedTuple):
    """`words` stand in `document`; their figures come from `source`."""

    document: str
    source: str
    words: str


def quotes() -> list[Quote]:
    """Of all documents."""
    made = [*_settings(), *_published(), *_measured(), *_models(), *_bounds(), *_passes()]
    return [*made, *_routes(), *_table4(), *_runs(), *_room()]


def _settings() -> list[Quote]:
    """Figures that the code has."""
    cold, busy = (f"{count >> 20} MB" for count in (timing.COLD_BYTES, timing.BUSY_BYTES))
    share = f"{BiasedSampler(1).positive_fraction:.0%}"
    degrees = ", ".join(f"{t:g}" for t in normals.THRESHOLDS)
    kept, thin = (n.bit_length() - 1 for n in (routes.KEPT_VALUES, routes.KEPT_VALUES_OF_THIN))
    limits = (
        f"at most 2^{kept} values, P times the sum of C_i ({routes.KEPT_VALUES * 4 >> 20} MB in "
        f"float32), or 2^{thin}"
    )
    grown = re.search(r"grown < (\d+) << 20", _text("tests/integrations/test_long_runs.py"))
    assert grown is not None
    return [
        Quote("docs/benchmarks.md", "bench/compare.py", f"in {compare.MINUTES:.0f} minutes, or"),
        Quote(
            "docs/development.md",
            "bench/compare.py",
            f"in {compare.MINUTES:.0f} minutes, with its noise",
        ),
        Quote("docs/benchmarks.md", "bench/timing.py", f"{cold} on a CPU, or {busy} on a GPU"),
        Quote("docs/benchmarks.md", "bench/timing.py", f"Touching {cold} empties"),
        Quote("docs/training.md", "sampling/samplers.py", f"`BiasedSampler`, {share} by default"),
        Quote("docs/pixelnet.md", "metrics/normals.py", f"(mean, median, RMSE, {degrees} degrees)"),
        Quote("docs/planner.md", "cpu/routes.py", limits),
        Quote(
            "docs/planner.md",
            "cpu/routes.py",
            f"converted, have at most {routes.KEPT_CONVERTED >> 20} MB so",
        ),
        Quote("docs/planner.md", "explain.py", _explained()),
        Quote("docs/integration.md", "tests/integrations", f"shapes below {grown[1]} MiB."),
        Quote(
            "docs/pixelnet.md",
            "a canvas of 100 pixels around 224",
            f"saves {(424 / 224) ** 2:.1f} times the convolutions",
        ),
    ]


def _published() -> list[Quote]:
    return [
        Quote("docs/pixelnet.md", f"{PIXELNET}, section 3", '">20x" and "16x" memory of naive'),
        Quote("docs/pixelnet.md", f"{PIXELNET}, section 4.3", "biased sampling (25, 50, 75%)"),
        Quote("docs/training.md", f"{PIXELNET}, section 4.3", "for edges 25, 50 or 75% positives"),
        Quote(
            "docs/training.md",
            f"{PIXELNET}, Table 6",
            "as good (ODS 0.593 ± 0.006) as 25, 50 and 75%",
        ),
        Quote("docs/training.md", f"{PIXELNET}, Table 6", "the paper gains 0.025"),
        Quote("docs/reproduction.md", f"{PIXELNET}, Table 1", "fc-3 reaches 34.9% mean IU"),
        Quote("docs/reproduction.md", f"{PIXELNET}, Table 1", "33.2% to 35.1% mean IU from 1,024"),
        Quote("docs/reproduction.md", f"{PIXELNET}, Table 3", "adds 2.2% mean IU"),
        Quote("docs/reproduction.md", f"{PIXELNET}, Table 3", "at these add 3.4% mean IU"),
        Quote("docs/reproduction.md", f"{PIXELNET}, Table 6", "costs 0.025 ODS"),
        Quote("docs/reproduction.md", f"{PIXELNET}, Table 6", "25, 50 and 75% edges are alike"),
        Quote(
            "docs/reproduction.md", f"{PIXELNET}, Table 6", "0.714 and 0.713 with 25, 50 and 75%"
        ),
        Quote("docs/training.md", f"{PIXELNET}, Table 1", "not converge (0.7 and 0.1% mean IU)"),
        Quote("docs/training.md", f"{PIXELNET}, Table 7", "the paper has 0.792, 0.808, 0.826"),
        Quote("docs/reproduction.md", f"{PIXELNET}, Table 7", "| 0.792 | 0.808 | 0.826 |"),
        Quote(
            "docs/backbones.md",
            "torchvision's documentation of vgg16",
            "| 0.485, 0.456, 0.406 | 0.229, 0.224, 0.225 |",
        ),
    ]


def _measured() -> list[Quote]:
    """One line of a file each."""
    file = "examples/results/bsds500_full.json"
    whole = json.loads(_text(file))
    scores = ", ".join(f"{name} {whole[name.lower()]:.3f}" for name in ("ODS", "OIS", "AP"))
    minutes, seconds = divmod(whole["boundary_benchmark_seconds"], 60)
    section = _text("examples/results/README.md").partition("## Surface normals")[2]
    named = ("constant", "linear on the pixel's colour", "linear on fixed, random hypercolumns")
    degrees = {
        name: [float(n) for n in re.findall(r"[\d.]+", cell)]
        for name, cell in re.findall(r"\n\| ([^|]+) \| ([\d.]+ ± [\d.]+) \|", section)[:6]
    }
    mean, deviation = degrees["MLP (fc-3), end to end"]
    others = ", ".join(f"{degrees[name][0]:.1f}" for name in named)
    edges = "examples/results/bsds500_frozen.json"
    by_command = json.loads(_text(edges))["evaluation"]["metrics"]
    camvid = "examples/results/camvid_finetuned.json"
    finetuned = json.loads(_text(camvid))
    one, several = (finetuned[way]["metrics"] for way in ("single_scale", "scales_and_mirror"))
    means = ("mean_iu", "mean_class_accuracy", "pixel_accuracy")
    iu, others_of_one = one["mean_iu"], [f"{one[name]:.3f}" for name in means[1:]]
    more_iu, *more = [f"{several[name]:.3f}" for name in means]
    roof = _roof()
    roofs = f"{roof['flops'] / 1e9:.0f} GFLOP/s and {roof['bytes'] / 1e9:.0f} GB/s"
    dated = f"{roofs} (`bench/results/roofs.jsonl`, {roof['date'][:10]})"
    return [
        Quote("docs/training.md", file, f"**{scores}**"),
        Quote(
            "docs/reproduction.md",
            file,
            "| {ods:.3f} | {ois:.3f} | {ap:.3f} |".format(**whole),
        ),
        Quote("README.md", edges, f"an ODS of {by_command['ods']:.3f}"),
        Quote(
            "docs/reproduction.md",
            edges,
            "| {ods:.3f} | {ois:.3f} | {ap:.3f} |".format(**by_command),
        ),
        Quote(
            "docs/reproduction.md",
            camvid,
            "**{:.3f}** (AC {}, pixel accuracy {})".format(iu, *others_of_one),
        ),
        Quote("docs/reproduction.md", camvid, f"and **{more_iu}** with scales 1 and 1.5"),
        Quote("docs/reproduction.md", camvid, "(AC {}, pixel accuracy {};".format(*more)),
        Quote("docs/training.md", file, f"Counting took {minutes} min {seconds} s"),
        Quote(
            "docs/training.md",
            "examples/results/README.md",
            f"normals {mean:.1f} ± {deviation:.1f} degrees ({others})",
        ),
        Quote("docs/planning-model.md", "bench/results/roofs.jsonl", dated),
    ]


def _models() -> list[Quote]:
    """The sizes of Table 4's models, with the channels added up and with the paper's count."""
    rows = latest_rows(tables.measured("table4"))[CPU]
    made = []
    for name in ("sparse fc-1", "sparse fc-2", "sparse fc-3", "sparse conv-7 fc-3"):
        row = rows.loc[name]
        width = row["classes"] if row["fc"] == 1 else row["hidden"]
        more = 1056 - 832  # what the paper counts beyond the channels of conv-{1_2, 3_3, 5_3}
        ours, theirs = (row["parameters"] * 4e-6, (row["parameters"] + more * width) * 4e-6)
        cells = (
            f"{ours:.1f} MB ({row['features']:,}) | {theirs:.1f} MB ({row['features'] + more:,}) "
            f"| {PAPER[name].size_mb} MB"
        )
        made.append(Quote("docs/benchmarks.md", "bench/table4.py", f"| {name} | {cells} |"))
    return made


def _bounds() -> list[Quote]:
    """What bounds W1 to W5: the planner's recorded choice, FLOPs and bytes over the roofs."""
    roof, made = _roof(), []
    for workload in WORKLOADS:
        w = replace(workload, images=2 if workload.name == "W4" else 1, dtype="float32")
        plan, points = _choice(w), w.all_points
        cells = [w.images * height * width for _, height, width in w.layers]
        rows = [n if word == "p" else points for word, n in zip(plan, cells, strict=True)]
        products = sum(n * c for n, (c, _, _) in zip(rows, w.layers, strict=True))
        flops = 6 * w.out_features * products
        moved = w.compulsory_bytes(points, training=True)
        counts = [w.flops(points, training=True) / 1e9, flops / 1e9, moved / 1e6]
        times = [flops / roof["flops"], moved / roof["bytes"]]
        columns = [w.name, plan, *(f"{n:.3g}" for n in counts), *map(results.duration, times)]
        made.append(Quote("docs/planning-model.md", "bench/results", f"| {' | '.join(columns)} |"))
    return made


def _choice(w: Workload) -> str:
    """The plan of the latest line of the planner's measurements in training, for channels_last."""
    cases = {line["case"]: line["chosen"] for line in results.read("every_plan")}
    return letters(cases[w.name])


def _passes() -> list[Quote]:
    """Whole passes on a GPU: of what bench.report shows, and the fastest of the routes tried."""
    run = tables.runs(tables.measured("first_layer"), "case", tables.WANTED)[GPU]
    shown = 1e6 * run[run.direction == "forward"].pivot(
        index="case", columns="peer", values="median"
    )
    # After the line that says how they were measured.
    tried = pd.DataFrame(results.read("h200-routes")[1:])
    tried = tried[tried.workload.isin(tables.WANTED)]
    fastest = tried.groupby(["workload", "pass"]).us.min().unstack()
    made = []
    for name, us in fastest.join(shown).iterrows():
        forward = us.forward if pd.isna(us.auto) else us.auto
        alone = "" if pd.isna(us.product_fused) else f"{us.product_fused:.3g}"
        words = f"| {name} | {forward:.3g} | {alone} | {us.backward:.3g} |"
        made.append(Quote("docs/kernels.md", "bench/results", words))
    return made


def _routes() -> list[Quote]:
    """What the H200's profile was fitted to, and how much of it is open to a call."""
    tried = results.read("h200-routes")[1:]
    forward = [line["read"] for line in tried if line["pass"] == "forward"]
    gone = sum(not {*read} <= {"project_band", *GATHERED} for read in forward)
    calls = {line["workload"] for line in tried}
    assert len(calls) == 11
    file = "bench/results/h200-routes.jsonl"
    return [
        Quote("docs/planning-model.md", file, f"to {len(tried)} routes of eleven calls"),
        Quote("docs/planning-model.md", file, f"{gone} of its {len(forward)} forward passes"),
        Quote("docs/planner.md", file, f"fitted to {len(tried)} routes of eleven calls"),
    ]


def _table4() -> list[Quote]:
    """On a GPU, whose sparse rows have an upper bound of their memory alone."""
    rows = latest_rows(tables.measured("table4"))[GPU]
    dense, sparse = rows.loc["dense fc-3"], rows.loc["sparse fc-3"]
    memory = dense.memory_bytes / sparse.memory_bytes_at_most
    time = sparse.updates_per_second / dense.updates_per_second
    paper, least = PAPER["dense fc-3"], PAPER["sparse fc-3"]
    words = (
        f"at least {memory:.1f}x the memory of sparse fc-3 (paper: "
        f"{paper.memory_mb / least.memory_mb:.1f}x) and {time:.1f}x the time (paper: "
        f"{least.updates_per_second / paper.updates_per_second:.1f}x"
    )
    return [Quote("docs/reproduction.md", "bench/results/table4.jsonl", words)]


def _runs() -> list[Quote]:
    """How long the recorded experiments took."""
    hours = []
    for file in ("runs", "pretrained"):
        lines = _text(f"examples/results/{file}.jsonl").splitlines()
        hours.append(sum(json.loads(line)["seconds"] for line in lines) / 3600)
    words = "took {:.1f} hours from scratch and {:.1f} on the pretrained backbone".format(*hours)
    return [Quote("docs/training.md", "examples/results", words)]


def _room() -> list[Quote]:
    """The left operand of the banded product beside hypercolumns, with two maps projected."""
    megabytes = []
    for name in ("W2", "W4"):
        w = next(w for w in WORKLOADS if w.name == name)
        *fine, _, _ = channels = [layer[0] for layer in w.layers]
        coarse = [layer[1:] for layer in w.layers[-2:]]
        tiles = -(-w.all_points // bands.ROWS)
        sizes = tuple([layer[1:] for layer in w.layers])
        affine = layer_geometry(sizes, w.image_size).affine
        common = ruler.common_rows(sizes, affine, ruler.ruler_of(sizes, affine))
        gaps = [*map(bands.gap, coarse, common[-2:])]
        steps = bands.band_steps(coarse, gaps, w.images, tiles)
        columns = tiles * bands.whole_steps(sum(fine)) + steps * bands.STEP
        megabytes += [2e-6 * bands.ROWS * columns, 2e-6 * w.all_points * sum(channels)]
    words = "W2 needs {:.3g} MB for A, where hypercolumns have {:.3g}, and W4 {:.3g} of {:.3g}"
    return [Quote("docs/kernels.md", "kernels/bands.py", words.format(*megabytes))]


def _explained() -> str:
    """The example of the manual, but for its last line, which tells of this machine."""
    call = "64@224 256@56 512@14 --images 5 --points 2000 --outputs 4096 --profile cpu"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        explain.main(call.split())
    return "\n".join(out.getvalue().rstrip().split("\n")[:-1])


def _roof() -> results.Line:
    lines = results.read("roofs")
    return [r for r in lines if r["device"] == CPU and r["dtype"] == "float32"][-1]


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
