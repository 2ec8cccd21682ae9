"""Measures how fast the pixel regressor is, from file to mask.

`python -m benchmarks.studies.pixels.speed --results RUN`

Compares LightGBM's own prediction with this program's trees, on a GPU if there is one, else on the CPU. Also
times features, trees and post-processing apart, and computes the floor under them. Three tables, each in a
folder of its own: `images`, `trees` and `floor`. The model is one that a benchmark run stored; without one, a
small one is fitted on phantoms. LUNGSEG_DATA and LUNGSEG_WEIGHTS are read; without data, the images are
phantoms.
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

from benchmarks.studies.ceilings import Ceilings, measure_ceilings
from benchmarks.studies.pixels.floor import make_floor_rows
from benchmarks.studies.pixels.models import (
    OURS,
    Stored,
    choose_samples,
    find_first_fit,
    fit_small,
    read_fit,
    use_engine,
    write_files,
)
from benchmarks.studies.pixels.trees import describe_differences, measure_trees
from benchmarks.studies.study import (
    add_device_options,
    make_counts_whole,
    make_parser,
    resolve_runtimes,
    write_study,
)
from benchmarks.studies.turns import Measured, synchronise, take_turns
from lungseg.approaches.vgg19_context.approach import Vgg19Context
from lungseg.data.files.images import read_image
from lungseg.spec import parse_changes
from lungseg.system.errors import InputError
from lungseg.system.machine import find_gpu_name
from lungseg.system.runtime import Runtime, use_threads
from lungseg.timing.statistics import Steps

BATCHES = {"cpu": (1, 8), "cuda": (1, 8, 64)}
THRESHOLD = 0.5  # at or above it a pixel is lung
SMALLEST = 16  # pixels a side: with fewer rows LightGBM grows no trees


@dataclass(frozen=True)
class Job:
    """What is timed.

    Attributes:
        stored: the model.
        files: by pixels a side.
        batches: sizes; None stands for `BATCHES`.
        lightgbm: whether LightGBM's own prediction is timed too, which takes most of the time.
    """

    stored: Stored
    files: dict[int, list[Path]]
    batches: tuple[int, ...] | None
    repeats: int
    lightgbm: bool


def make_steps(approach: Vgg19Context, size: int, batch: int) -> Steps:
    """Return the steps from files of size x size pixels to masks of that size in the host's memory."""
    sizes = [(size, size)] * batch
    return [
        ("decode, prepare", lambda files: approach.prepare([read_image(file) for file in files])),
        *((stage.name, stage.run) for stage in approach.stages()),
        ("finish", lambda maps: [found >= THRESHOLD for found in approach.finish(maps, sizes)]),
    ]


def time_device(job: Job, runtime: Runtime, ceilings: Ceilings) -> tuple[list[dict], list[dict]]:
    """Return rows of the tables `images` and `floor` for one device."""
    device, fitted = runtime.device.type, job.stored.load(runtime)
    ours = OURS[device]
    engines, images, floor = {}, [], []
    for name in ("lightgbm", ours) if job.lightgbm else (ours,):
        try:
            engines[name] = use_engine(fitted, name)
        except InputError as error:
            images.append({"device": device, "engine": name, "why empty": str(error)})
    for size, files in job.files.items():
        differences = _compare_maps(list(engines.values()), files) if len(engines) == 2 else {}
        for batch in job.batches or BATCHES[device]:
            chains = {name: make_steps(engine, size, batch) for name, engine in engines.items()}
            measured = take_turns(chains, lambda turn, f=files, b=batch: _choose(f, turn, b), job.repeats)
            for name, found in measured.items():
                row = {"device": device, "engine": name, "size": size, "batch": batch}
                row |= _summarise(found, engines[name], batch)
                if name == ours and "lightgbm" in measured:
                    row |= found.compare_with(measured["lightgbm"]) | differences
                images.append(row)
            if ours in measured and size == min(job.files):
                taken = {step: 1e3 * measured[ours].percentiles(step)[1] for step in ("features", "trees")}
                floor += make_floor_rows(engines[ours], batch, ceilings, taken)
    return images, floor


def _choose(files: Sequence[Path], turn: int, batch: int) -> list[Path]:
    """Return the files of a turn; they change from turn to turn, and all come before one comes again."""
    return [files[(turn * batch + place) % len(files)] for place in range(batch)]


def _compare_maps(engines: list[Vgg19Context], files: Sequence[Path]) -> dict[str, Any]:
    """Return cells: how much two engines' maps of the same images and their masks differ."""
    first, last = (np.stack(engine.predict([read_image(file) for file in files])) for engine in engines)
    return {
        "largest difference of maps": float(np.abs(first - last).max()),
        "pixels of masks that differ": int(((first >= THRESHOLD) != (last >= THRESHOLD)).sum()),
    }


def _summarise(found: Measured, approach: Vgg19Context, batch: int) -> dict[str, Any]:
    """Return cells of speed."""
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
        "repeats": found.repeats,
    }


def write_image_notes(threads: int) -> list[str]:
    return [
        "An image goes from an 8-bit PNG file to a mask (map at or above 0.5) of its own size in the host's "
        "memory; writing the mask isn't in it. ms, p10 and p90 are of whole passes, divided by the batch; "
        "the stages are medians of other passes, with a wait after each stage. One process decodes, one file "
        "after the other.",
        "The trees stage also makes the columns that read earlier maps. Everything but the trees is the same "
        "code for both engines; on a GPU the rows of the engine lightgbm are copied to the CPU.",
        "times as fast: LightGBM's time over ours, by the medians of turns A B, B A on the same images; the "
        "median of the turns, the lowest and the highest. Maps are compared on all images.",
        f"{threads} CPU threads. Trees, grids and columns are the same for all sizes: an image is resized to "
        "the model's own size first.",
    ]


def write_tree_notes(table: pd.DataFrame, threads: int) -> list[str]:
    return [
        describe_differences(table),
        "Rows and scores stay in the engine's own memory, in the form that suits it best: for LightGBM's own "
        "prediction rows one after the other, for ours a column's values side by side, as in maps.",
        f"{threads} CPU threads. p10 is the slower end. In our engines a row visits every node, in "
        "LightGBM's only those on its paths. The floor is computed as in the table of that name: visits of "
        "nodes, or bytes of the columns that they read, at the ceiling measured here.",
    ]


def write_floor_notes(ceilings: dict[str, Ceilings]) -> list[str]:
    found = []
    for device, own in ceilings.items():
        visits = f"{own.visits:.1f} billion node visits/s" if own.visits else "no figure for node visits"
        found.append(
            f"Ceilings of {device}, measured in this run: {own.gflops:.0f} GFLOP/s of a large matrix product "
            f"in the model's precision, {own.gbytes:.1f} GB/s of a large copy (read and written), {visits}."
        )
    return [
        *found,
        "The floor is the longest of the three times, as if all three ran at once and nothing else did. "
        "Times are of a whole batch, with our engine. GFLOP: 2 a multiply-add of the convolutions, the "
        "projections and the shape prior. MB: bytes that can't be avoided: weights and fitted values once, "
        "images in, planes out; for trees the columns that they read and the scores. Layer by layer: maps of "
        "all convolutions if each is read and written once. Caches hold much of it, so it is no floor.",
        "A node visit is two byte comparisons and a selection for a row and a node. Its ceiling is that step "
        "alone, on codes in registers or the first-level cache. The measured time of the trees also has "
        "coding the columns, adding up the leaves and making the columns that read earlier maps in it; the "
        "floor has not. A convolution with fewer multiplications (Winograd's) could go below the floor.",
    ]


def parse(words: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = make_parser(__doc__, "results/pixel-speed")
    add_device_options(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", type=Path, help="a stored fit, RESULTS/models/NAME/f0-s0")
    which.add_argument("--results", type=Path, help="results of a run; its first fit of vgg19-context")
    parser.add_argument("--set", nargs="+", default=[], help="KEY=VALUE, settings of the small model")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--batches", type=int, nargs="+", help="default: 1 8, on a GPU 64 too")
    parser.add_argument(
        "--no-lightgbm", action="store_true", help="leave out LightGBM's own, slow prediction"
    )
    parser.add_argument("--forest", type=int, nargs=2, default=[300, 63], metavar=("TREES", "LEAVES"))
    arguments = parser.parse_args(words)
    trees, leaves = arguments.forest
    if min(arguments.threads, arguments.repeats, arguments.images, trees, *(arguments.batches or [1])) < 1:
        parser.error("--threads, --repeats, --images, --batches and the TREES of --forest are at least 1")
    if min(arguments.sizes) < SMALLEST or leaves < 2:
        parser.error(f"--sizes are at least {SMALLEST}, the LEAVES of --forest at least 2")
    return parser, arguments


def measure(arguments: argparse.Namespace) -> Iterator[tuple[str, str, pd.DataFrame, list[str]]]:
    """Yield the three tables, each as soon as it is measured: folder, title, table, notes.

    Raises:
        InputError: the model can't be timed, or there is no such device.
    """
    use_threads(arguments.threads)
    runtimes, missing = resolve_runtimes(arguments.device, arguments.threads)
    source, samples = choose_samples(arguments.images)
    images, floor, ceilings = [], [], {}
    with tempfile.TemporaryDirectory(prefix="lungseg-pixel-speed-") as scratch:
        stored = _find_model(arguments, runtimes[-1], Path(scratch))
        files = {size: write_files(samples, size, Path(scratch) / str(size)) for size in arguments.sizes}
        job = Job(stored, files, arguments.batches, arguments.repeats, not arguments.no_lightgbm)
        for runtime in runtimes:
            device = runtime.device.type
            ceilings[device] = measure_ceilings(runtime, synchronise)
            image_rows, floor_rows = time_device(job, runtime, ceilings[device])
            images, floor = images + image_rows, floor + floor_rows
        last = [stored.note, f"Images: {len(samples)} {source}. {_describe_machine(runtimes)}"]
        threads = arguments.threads
        table = pd.DataFrame(images + missing)
        yield "images", "From file to mask", table, write_image_notes(threads) + last
        table = pd.DataFrame(floor + missing)
        yield "floor", "The floor under a prediction", table, write_floor_notes(ceilings) + last
        size, repeats = min(arguments.sizes), arguments.repeats
        shape, own = arguments.forest, not arguments.no_lightgbm
        rows = measure_trees(stored, runtimes, samples, size, shape, repeats, ceilings, own)
        table = pd.DataFrame(rows + missing)
        yield "trees", "Rows through the trees", table, write_tree_notes(table, threads) + last


def _find_model(arguments: argparse.Namespace, runtime: Runtime, scratch: Path) -> Stored:
    if arguments.model or arguments.results:
        return read_fit(arguments.model or find_first_fit(arguments.results))
    print("no --model or --results: fitting a small model on phantoms", flush=True)
    return fit_small(parse_changes(arguments.set), runtime, scratch)


def _describe_machine(runtimes: Sequence[Runtime]) -> str:
    used = [f"{runtime.precision} on {runtime.device.type}" for runtime in runtimes]
    graphics = find_gpu_name() if any(runtime.device.type == "cuda" for runtime in runtimes) else None
    return f"Convolutions in {', '.join(used)}{f'; the GPU is {graphics}' if graphics else ''}."


def main(words: Sequence[str] | None = None) -> None:
    parser, arguments = parse(words)
    try:
        for folder, title, table, notes in measure(arguments):
            print(write_study(arguments.out / folder, title, make_counts_whole(table), notes))
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
