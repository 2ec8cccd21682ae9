"""How fast the pixel regressor is, from file to mask.

`python -m benchmarks.studies.pixels.speed --results RUN`

LightGBM's own prediction against this program's trees, on the CPU and on a GPU if there is one; features
against trees against post-processing; and the floor under them. Three tables, each in a folder of its own:
`images`, `trees` and `floor`. The model is one that a benchmark run stored; without one, a small one is
fitted on phantoms. LUNGSEG_DATA and LUNGSEG_WEIGHTS are read; without data, the images are phantoms.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.studies.ceilings import Ceilings, measure_ceilings
from benchmarks.studies.pixels.floor import floor_rows
from benchmarks.studies.pixels.models import (
    OURS,
    Stored,
    chosen_samples,
    first_fit,
    fit_small,
    stored_fit,
    with_engine,
    write_files,
)
from benchmarks.studies.pixels.trees import tree_rows, tree_verdicts
from benchmarks.studies.study import NO_CUDA, with_counts, write_study
from benchmarks.studies.turns import Measured, synchronise, take_turns
from lungseg.approaches.vgg19_context.approach import Vgg19Context
from lungseg.data.files.images import read_image
from lungseg.harness.runtime import resolve_runtime
from lungseg.spec import RuntimeSpec, parse_changes
from lungseg.system.errors import InputError
from lungseg.system.machine import cuda_name, usable_cores
from lungseg.system.runtime import Runtime, use_threads
from lungseg.timing.statistics import Steps

BATCHES = {"cpu": (1, 8), "cuda": (1, 8, 64)}
THRESHOLD = 0.5  # at or above it a pixel is lung
SMALLEST = 16  # pixels a side: of fewer rows LightGBM grows no trees
AIM_SIZE, AIM_SECONDS, AIM_RATIO = 512, 0.5, 5  # on the CPU, of one image
GPU_AIM_SIZE, GPU_AIM_IMAGES = 256, 300


@dataclass(frozen=True)
class Job:
    """What is timed: a model on files, by their pixels a side, in batches (None: `BATCHES`)."""

    stored: Stored
    files: dict[int, list[Path]]
    batches: tuple[int, ...] | None
    repeats: int


def steps(approach: Vgg19Context, size: int, batch: int) -> Steps:
    """A prediction: from files of size x size pixels to masks of that size in the host's memory."""
    sizes = [(size, size)] * batch
    return [
        ("decode, prepare", lambda files: approach.prepare([read_image(file) for file in files])),
        *((stage.name, stage.run) for stage in approach.stages()),
        ("finish", lambda maps: [found >= THRESHOLD for found in approach.finish(maps, sizes)]),
    ]


def time_device(job: Job, runtime: Runtime, ceilings: Ceilings) -> tuple[list[dict], list[dict]]:
    """Rows of the tables `images` and `floor` for one device."""
    device, fitted = runtime.device.type, job.stored.load(runtime)
    ours = OURS[device]
    engines, images, floor = {}, [], []
    for name in ("lightgbm", ours):
        try:
            engines[name] = with_engine(fitted, name)
        except InputError as error:
            images.append({"device": device, "engine": name, "why empty": str(error)})
    for size, files in job.files.items():
        apart = _apart([engine.predict([read_image(file) for file in files]) for engine in engines.values()])
        for batch in job.batches or BATCHES[device]:
            chains = {name: steps(engine, size, batch) for name, engine in engines.items()}
            measured = take_turns(chains, lambda turn, f=files, b=batch: _some(f, turn, b), job.repeats)
            for name, found in measured.items():
                row = {"device": device, "engine": name, "size": size, "batch": batch}
                row |= _speed(found, engines[name], batch)
                if name == ours:
                    row |= found.faster_than(measured["lightgbm"]) | apart
                images.append(row)
            if ours in measured and size == min(job.files):
                taken = {step: 1e3 * measured[ours].percentiles(step)[1] for step in ("features", "trees")}
                floor += floor_rows(engines[ours], batch, ceilings, taken)
    return images, floor


def _some(files: Sequence[Path], turn: int, batch: int) -> list[Path]:
    """The files of a turn: other ones from turn to turn, and all of them before one comes again."""
    return [files[(turn * batch + place) % len(files)] for place in range(batch)]


def _apart(maps: list[list[np.ndarray]]) -> dict[str, Any]:
    """How far the engines' maps of the same images are apart, and in how many pixels their masks differ."""
    first, last = np.stack(maps[0]), np.stack(maps[-1])
    return {
        "largest difference of maps": float(np.abs(first - last).max()),
        "pixels of masks that differ": int(((first >= THRESHOLD) != (last >= THRESHOLD)).sum()),
    }


def _speed(found: Measured, approach: Vgg19Context, batch: int) -> dict[str, Any]:
    low, median, high = found.percentiles() * 1e3 / batch
    rows = batch * sum(stage.grid**2 for stage in approach.cascade)
    stages = [step for step in found.seconds if step != "whole"]
    return {
        "ms an image": median,
        "p10": low,
        "p90": high,
        "images/s": 1e3 / median,
        **{f"{step} ms": found.percentiles(step)[1] * 1e3 / batch for step in stages},
        "million rows/s in the trees stage": rows / found.percentiles("trees")[1] / 1e6,
        "repeats": len(found.seconds["whole"]),
    }


def image_verdicts(table: pd.DataFrame) -> list[str]:
    """Whether the aims of whole predictions are kept, as far as they were measured."""
    found = []
    cpu = table.query(f"device == 'cpu' and engine == '{OURS['cpu']}' and size == {AIM_SIZE} and batch == 1")
    for _, row in cpu.iterrows():
        seconds, ratio = row["ms an image"] / 1e3, row["times as fast"]
        found.append(
            f"Aim: a {AIM_SIZE} x {AIM_SIZE} image from file to mask on the CPU in {AIM_SECONDS} s at most: "
            f"{seconds:.3f} s, {_kept(seconds <= AIM_SECONDS)}. Aim: {AIM_RATIO} times as fast as with "
            f"LightGBM's own prediction at least: {ratio:.2f} times, {_kept(ratio >= AIM_RATIO)}."
        )
    gpu = table.query(f"device == 'cuda' and engine == '{OURS['cuda']}' and size == {GPU_AIM_SIZE}")
    if len(gpu):
        best = gpu["images/s"].max()
        found.append(
            f"Aim: {GPU_AIM_IMAGES} images/s at {GPU_AIM_SIZE} px from file to mask on the GPU at least: "
            f"{best:.0f}, {_kept(best >= GPU_AIM_IMAGES)}."
        )
    return found


def _kept(kept: bool) -> str:
    return "kept" if kept else "missed"


def image_notes(table: pd.DataFrame, threads: int) -> list[str]:
    return [
        *image_verdicts(table),
        "An image goes from an 8-bit PNG file to a mask (map at or above 0.5) of its own size in the host's "
        "memory; writing the mask isn't in it. ms, p10 and p90 are of whole passes and divided by the batch; "
        "the stages are medians of other passes with a wait after each. One process decodes, one file after "
        "the other.",
        "The trees stage also makes the columns that read earlier maps. Both engines do everything else with "
        "the same code; on a GPU the engine lightgbm gets its rows copied to the CPU.",
        "times as fast: LightGBM's time over ours, by the medians of turns A B, B A on the same images; the "
        "median of the turns, the lowest and the highest. Maps are compared on all images.",
        f"{threads} CPU threads. Trees, grids and columns are the same for all sizes: an image is resized to "
        "the model's own size first.",
    ]


def tree_notes(table: pd.DataFrame, threads: int) -> list[str]:
    return [
        *tree_verdicts(table),
        "Rows and scores stay in the engine's own memory. LightGBM's own prediction gets rows one after the "
        "other, ours a column's values side by side, as maps are: what suits each.",
        f"{threads} CPU threads. p10 is the slower end. In our engines a row visits every node, in "
        "LightGBM's those of its paths. The floor is what the table of that name has for trees: visits of "
        "nodes, or bytes of the columns that they read, at the ceiling measured here.",
    ]


def floor_notes(ceilings: dict[str, Ceilings]) -> list[str]:
    found = []
    for device, own in ceilings.items():
        visits = f"{own.visits:.1f} billion node visits/s" if own.visits else "no figure for node visits"
        found.append(
            f"Ceilings of {device}, measured in this run: {own.gflops:.0f} GFLOP/s of a large matrix product "
            f"in the model's precision, {own.gbytes:.1f} GB/s of a large copy (read and written), {visits}."
        )
    return [
        *found,
        "The floor is the longest of the three times; it takes all three to go on at once, and nothing else. "
        "Times are of a whole batch, with our engine. GFLOP: 2 a multiply-add of the convolutions, the "
        "projections and the shape prior. MB: what can't be avoided, that is weights and fitted values once, "
        "images in, planes out; for trees the columns that they read and the scores. Layer by layer: maps of "
        "all convolutions if each is read and written once; caches hold much of it, so it is no floor.",
        "A node visit is two byte comparisons and a selection for a row and a node; its ceiling is that step "
        "alone, on codes in registers or the first-level cache. Coding the columns, adding up the leaves and "
        "making the columns that read earlier maps are in the measured trees and not in the floor. "
        "A convolution with fewer multiplications (Winograd's) could go below the floor.",
    ]


def parse(words: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", type=Path, help="a stored fit, RESULTS/models/NAME/f0-s0")
    which.add_argument("--results", type=Path, help="results of a run; its first fit of vgg19-context")
    parser.add_argument("--set", nargs="+", default=[], help="KEY=VALUE, settings of the small model")
    parser.add_argument("--out", type=Path, default=Path("results/pixel-speed"))
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: both")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--batches", type=int, nargs="+", help="default: 1 8, on a GPU 64 too")
    parser.add_argument("--forest", type=int, nargs=2, default=[300, 63], metavar=("TREES", "LEAVES"))
    arguments = parser.parse_args(words)
    trees, leaves = arguments.forest
    if min(arguments.threads, arguments.repeats, arguments.images, trees, *(arguments.batches or [1])) < 1:
        parser.error("--threads, --repeats, --images, --batches and the TREES of --forest are at least 1")
    if min(arguments.sizes) < SMALLEST or leaves < 2:
        parser.error(f"--sizes are at least {SMALLEST}, the LEAVES of --forest at least 2")
    return parser, arguments


def measure(arguments: argparse.Namespace) -> Iterator[tuple[str, str, pd.DataFrame, list[str]]]:
    """The three tables, each as soon as it is measured: folder, title, table, notes.

    Raises InputError for a model that can't be timed.
    """
    use_threads(arguments.threads)
    wanted = ["cpu", "cuda"] if arguments.device == "auto" else [arguments.device]
    absent = arguments.device == "auto" and not torch.cuda.is_available()
    spec = RuntimeSpec(threads=arguments.threads)
    runtimes = [resolve_runtime(spec, device) for device in wanted if device == "cpu" or not absent]
    said, samples = chosen_samples(arguments.images)
    images, floor, ceilings = [], [], {}
    with tempfile.TemporaryDirectory(prefix="lungseg-pixel-speed-") as scratch:
        stored = _model(arguments, runtimes[-1], Path(scratch))
        files = {size: write_files(samples, size, Path(scratch) / str(size)) for size in arguments.sizes}
        job = Job(stored, files, arguments.batches, arguments.repeats)
        for runtime in runtimes:
            device = runtime.device.type
            ceilings[device] = measure_ceilings(runtime, synchronise)
            of_images, of_floor = time_device(job, runtime, ceilings[device])
            images, floor = images + of_images, floor + of_floor
        about = [stored.said, f"Images: {len(samples)} {said}. {_machine(runtimes)}"]
        threads = arguments.threads
        table = pd.DataFrame(images + _no_cuda(absent))
        yield "images", "From file to mask", table, image_notes(table, threads) + about
        table = pd.DataFrame(floor + _no_cuda(absent))
        yield "floor", "The floor under a prediction", table, floor_notes(ceilings) + about
        size, repeats = min(arguments.sizes), arguments.repeats
        rows = tree_rows(stored, runtimes, samples, size, arguments.forest, repeats, ceilings)
        table = pd.DataFrame(rows + _no_cuda(absent))
        yield "trees", "Rows through the trees", table, tree_notes(table, threads) + about


def _model(arguments: argparse.Namespace, runtime: Runtime, scratch: Path) -> Stored:
    if arguments.model or arguments.results:
        return stored_fit(arguments.model or first_fit(arguments.results))
    print("no --model or --results: fitting a small model on phantoms", flush=True)
    return fit_small(parse_changes(arguments.set), runtime, scratch)


def _no_cuda(absent: bool) -> list[dict[str, str]]:
    return [{"device": "cuda", "why empty": NO_CUDA}] if absent else []


def _machine(runtimes: Sequence[Runtime]) -> str:
    used = [f"{runtime.precision} on {runtime.device.type}" for runtime in runtimes]
    graphics = cuda_name() if any(runtime.device.type == "cuda" for runtime in runtimes) else None
    return f"Convolutions in {', '.join(used)}{f'; the GPU is {graphics}' if graphics else ''}."


def main(words: Sequence[str] | None = None) -> None:
    parser, arguments = parse(words)
    try:
        for folder, title, table, notes in measure(arguments):
            print(write_study(arguments.out / folder, title, with_counts(table), notes))
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
