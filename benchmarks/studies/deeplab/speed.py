"""How fast our DeepLabV3+ trains and predicts.

`python -m benchmarks.studies.deeplab.speed`

Against segmentation_models_pytorch's DeepLabV3+ in turns on the same images, and against the floor: counted
operations over the measured speed of matrix products. On the CPU and on a GPU if there is one. Three tables,
each in a folder of its own: `training`, `inference` and `floor`, are written anew after each size. Images
are noise: no data is read.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.peers.smp import load_library
from benchmarks.studies.ceilings import Ceilings, measure_ceilings
from benchmarks.studies.deeplab.floor import SHARE, floor_cells, operations, share_cells
from benchmarks.studies.deeplab.notes import TIMES_OURS, about, floor_notes, inference_notes, training_notes
from benchmarks.studies.deeplab.ways import (
    COMPILED,
    INFERENCE,
    NAMES,
    OURS,
    PEER,
    TRAINING,
    Place,
    Way,
    compiled_way,
    noise,
    peak_memory_of,
    peer_network,
    prediction_ways,
    training_ways,
)
from benchmarks.studies.study import NO_CUDA, with_counts, write_study
from benchmarks.studies.turns import Measured, synchronise, take_turns
from lungseg.approaches.deeplabv3plus.network import TOPOLOGIES, DeepLabV3Plus, NetworkSettings
from lungseg.harness.runtime import resolve_runtime
from lungseg.learning.networks.feed import Batch
from lungseg.spec import RuntimeSpec
from lungseg.system.errors import InputError, is_out_of_memory
from lungseg.system.machine import usable_cores
from lungseg.system.runtime import Runtime, use_threads

FLOOR = "floor"
STRIDE, SMALLEST = 16, 32  # pixels: the peer takes multiples of its output stride alone
MOST_THREADS = 1024
COLUMNS = [
    *("device", "work", "way", "precision", "size", "batch", "images/s", "ms", "p10", "p90"),
    *("times as fast", "lowest", "highest", *TIMES_OURS),
    *("GFLOP an image", "GFLOP", "floor ms", "images/s at the floor", "measured ms", SHARE),
    *("peak MiB", "MiB before", "compile s", "repeats", "why empty"),
]


@dataclass(frozen=True)
class Job:
    """What is timed on each device.

    Attributes:
        network: of ours.
        library: the peer's module; None if it can't be had, and then `reason` says why.
        sizes: pixels a side.
        batches, repeats: by work, TRAINING and INFERENCE.
        compiled: predictions by torch.compile too.
    """

    network: NetworkSettings
    library: Any | None
    reason: str
    sizes: Sequence[int]
    batches: dict[str, Sequence[int]]
    repeats: dict[str, int]
    compiled: bool = False


def time_device(
    job: Job, runtime: Runtime, ceilings: Ceilings
) -> Iterator[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]]:
    """The work, its rows and those of the floor, for each work, size and batch as soon as it is measured."""
    # Predictions first: cuDNN keeps what the training that isn't deterministic lets it try, for all.
    for work in (INFERENCE, TRAINING):
        for size, batch in product(job.sizes, job.batches[work]):
            print(f"{runtime.device.type}: {work}, {size} px, batch {batch}", flush=True)
            yield work, *time_work(work, Place(job.network, runtime, size, batch), job, ceilings)


def time_work(
    work: str, at: Place, job: Job, ceilings: Ceilings
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the work's table, and the row of the floor's (none if ours can't be measured)."""
    batch = noise(at)
    ways, empty = _ways(work, at, batch, job)
    memory = _alone(work, ways, at, job, empty)
    chains = {way.name: [("turn", way.ready())] for way in ways if way.name not in empty}
    measured = take_turns(chains, lambda _: batch, job.repeats[work])
    counts = _operations(work, at, job.library)
    floor = floor_cells(counts[OURS], at.batch, ceilings)
    facts = {way.name: memory.get(way.name, {}) | way.facts for way in ways}
    key = {"device": at.runtime.device.type, "size": at.size, "batch": at.batch}
    rows = []
    for name in NAMES:
        if name in empty:
            rows.append({**key, "way": name, "why empty": empty[name]})
        elif name in measured:
            row = _row(at, measured[name], PEER if name == PEER else OURS, counts, floor["floor ms"])
            rows.append({**key, "way": name, **row, **_ratios(name, measured), **facts[name]})
    if OURS not in measured:
        return rows, []
    taken = 1e3 * measured[OURS].percentiles()[1]
    shares = {"measured ms": taken, **share_cells(floor["floor ms"], taken)}
    return rows, [{**key, "work": work, **floor, **shares}]


def _row(at: Place, found: Measured, whose: str, counts: dict[str, int], floor: float) -> dict[str, Any]:
    """Speed and work; the floor, in milliseconds, is that of our network."""
    low, median, high = 1e3 * found.percentiles()
    row = {
        "precision": at.runtime.precision if whose == OURS else "float32",
        "images/s": 1e3 * at.batch / median,
        "ms": median,
        "p10": low,
        "p90": high,
        "GFLOP an image": counts[whose] / at.batch / 1e9,
        "repeats": len(found.seconds["whole"]),
    }
    return row | (share_cells(floor, median) if whose == OURS else {})


def _ways(work: str, at: Place, batch: Batch, job: Job) -> tuple[list[Way], dict[str, str]]:
    """Those that can take turns, and why others can't, by their names."""
    empty = {} if job.library is not None else {PEER: job.reason}
    if work == TRAINING:
        return training_ways(at, job.library), empty
    ways = prediction_ways(at, job.library)
    if job.compiled:
        try:
            ways.insert(0, compiled_way(at, batch))
        except InputError as error:
            empty[COMPILED] = str(error)
    return ways, empty


def _alone(
    work: str, ways: Sequence[Way], at: Place, job: Job, empty: dict[str, str]
) -> dict[str, dict[str, float]]:
    """Peak memory of each way; one that fails is added to `empty` with the reason."""
    memory = {}
    for way in ways:
        if way.built:
            continue
        try:
            memory[way.name] = _peak_in_a_process(work, way, at, job)
        except BrokenProcessPool:
            empty[way.name] = "its process ended without an answer: a full memory, or a crash"
        except (InputError, RuntimeError) as error:
            if not (isinstance(error, InputError) or is_out_of_memory(error)):
                raise
            empty[way.name] = str(error).splitlines()[0]
    return memory


def _peak_in_a_process(work: str, way: Way, at: Place, job: Job) -> dict[str, float]:
    """In one of its own: what others have freed stays with this process, and would hide what a way takes."""
    gc.collect()
    if at.runtime.device.type == "cuda":
        torch.cuda.empty_cache()  # what this process holds idle would be missing to the other
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(peak_memory_of, work, way.name, at, job.library is not None).result()


def _operations(work: str, at: Place, library: Any | None) -> dict[str, int]:
    """Of a batch, by OURS and PEER."""
    networks = {OURS: (DeepLabV3Plus(at.network), at.runtime)}
    if library is not None:
        networks[PEER] = peer_network(library), Runtime(at.runtime.device)
    return {
        name: operations(network, runtime, at.batch, at.size, work == TRAINING)
        for name, (network, runtime) in networks.items()
    }


def _ratios(name: str, measured: dict[str, Measured]) -> dict[str, float]:
    """How many times as fast as the peer, and as what the program does by default."""
    found: dict[str, float] = {}
    if name != PEER and PEER in measured:
        found |= measured[name].faster_than(measured[PEER])
    if name not in (OURS, PEER) and OURS in measured:
        found |= zip(TIMES_OURS, measured[name].faster_than(measured[OURS]).values(), strict=True)
    return found


def measure(arguments: argparse.Namespace) -> Iterator[list[tuple[str, str, pd.DataFrame, list[str]]]]:
    """The tables that there is something for so far, after each size: folder, title, table, notes.

    Raises InputError for a device that isn't there.
    """
    use_threads(arguments.threads)
    wanted = ["cpu", "cuda"] if arguments.device == "auto" else [arguments.device]
    absent = arguments.device == "auto" and not torch.cuda.is_available()
    spec = RuntimeSpec(threads=arguments.threads)
    runtimes = [resolve_runtime(spec, device) for device in wanted if device == "cpu" or not absent]
    job = _job(arguments)
    last = about(arguments.topology, runtimes, job.library)
    missing = [{"device": "cuda", "why empty": NO_CUDA}] if absent else []
    found: dict[str, list[dict[str, Any]]] = {TRAINING: [], INFERENCE: [], FLOOR: []}
    ceilings = {}
    for runtime in runtimes:
        device = runtime.device.type
        ceilings[device] = measure_ceilings(runtime, synchronise)
        for work, rows, floor in time_device(job, runtime, ceilings[device]):
            found[work] += rows
            found[FLOOR] += floor
            tables = {
                name: pd.DataFrame(rows + missing).reindex(columns=COLUMNS)
                for name, rows in found.items()
                if rows
            }
            yield _pages(tables, floor_notes(ceilings, runtimes), last)


def _pages(
    tables: dict[str, pd.DataFrame], of_floor: list[str], last: list[str]
) -> list[tuple[str, str, pd.DataFrame, list[str]]]:
    said: list[tuple[str, str, Callable[[pd.DataFrame], list[str]]]] = [
        (TRAINING, "Training DeepLabV3+", training_notes),
        (INFERENCE, "Predicting with DeepLabV3+", inference_notes),
        (FLOOR, "The floor under DeepLabV3+", lambda _: of_floor),
    ]
    return [
        (name, title, with_counts(tables[name].dropna(axis=1, how="all")), notes(tables[name]) + last)
        for name, title, notes in said
        if name in tables
    ]


def _job(arguments: argparse.Namespace) -> Job:
    library, reason = None, ""
    try:
        library = load_library()
    except InputError as error:
        reason = str(error)
    return Job(
        NetworkSettings(topology=arguments.topology),
        library,
        reason,
        sorted(set(arguments.sizes)),
        {TRAINING: [arguments.train_batch], INFERENCE: sorted({1, *arguments.batches})},
        {TRAINING: arguments.train_repeats, INFERENCE: arguments.repeats},
        arguments.compiled,
    )


def parse(words: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--topology", choices=list(TOPOLOGIES), default="standard", help="of our network")
    parser.add_argument("--out", type=Path, default=Path("results/deeplab-speed"))
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: both")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512], help="pixels a side")
    parser.add_argument("--batches", type=int, nargs="+", default=[8], help="of predictions, besides 1")
    parser.add_argument("--train-batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=16, help="of predictions")
    parser.add_argument("--train-repeats", type=int, default=8, help="of training steps")
    parser.add_argument("--compiled", action="store_true", help="predictions by torch.compile too")
    arguments = parser.parse_args(words)
    if any(size < SMALLEST or size % STRIDE for size in arguments.sizes):
        parser.error(f"--sizes are multiples of {STRIDE}, {SMALLEST} at least")
    if arguments.train_batch < 2:
        parser.error("--train-batch is at least 2: batch norm needs two images")
    if min(arguments.repeats, arguments.train_repeats, *arguments.batches) < 1:
        parser.error("--repeats, --train-repeats and --batches are at least 1")
    if not 1 <= arguments.threads <= MOST_THREADS:
        parser.error(f"--threads are 1 to {MOST_THREADS}")
    return parser, arguments


def main(words: Sequence[str] | None = None) -> None:
    parser, arguments = parse(words)
    # cuBLAS repeats its bits only with a workspace of fixed size, and reads this once, before its first call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        written: list[str] = []
        for pages in measure(arguments):
            written = [
                write_study(arguments.out / folder, title, table, notes)
                for folder, title, table, notes in pages
            ]
        print("\n".join(written))
    except InputError as error:
        parser.error(str(error))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        parser.error(
            "the device's memory is full: lower --train-batch or --batches, or the largest of --sizes"
        )


if __name__ == "__main__":
    main()
