"""Measures how fast our DeepLabV3+ trains and predicts.

`python -m benchmarks.studies.deeplab.speed`

It is compared with segmentation_models_pytorch's DeepLabV3+, in turns on the same images, and with the floor:
counted operations at the measured speed of matrix products. It runs on the CPU and on a GPU if there is one.
Three tables, each in a folder of its own (`training`, `inference`, `floor`), are written again after each
size. Images are noise: no data is read.
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
from typing import Any

import pandas as pd
import torch

from benchmarks.peers.smp import load_library
from benchmarks.studies.ceilings import Ceilings, measure_ceilings
from benchmarks.studies.deeplab.floor import SHARE, compute_floor, compute_share, count_operations
from benchmarks.studies.deeplab.notes import (
    TIMES_OURS,
    describe_setup,
    write_floor_notes,
    write_inference_notes,
    write_training_notes,
)
from benchmarks.studies.deeplab.ways import (
    COMPILED,
    INFERENCE,
    NAMES,
    OURS,
    PEER,
    TRAINING,
    TUNED_PEER,
    Way,
    Workload,
    build_peer_network,
    compile_way,
    list_prediction_ways,
    list_training_ways,
    make_noise,
    make_peer_approach,
    measure_way_by_name,
)
from benchmarks.studies.study import (
    add_device_options,
    make_counts_whole,
    make_parser,
    resolve_runtimes,
    write_study,
)
from benchmarks.studies.turns import Measured, synchronise, take_turns
from lungseg.approaches.deeplabv3plus.network import TOPOLOGIES, DeepLabV3Plus, NetworkSettings
from lungseg.learning.networks.feed import Batch
from lungseg.system.errors import InputError, is_out_of_memory
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
        network: settings of our network.
        library: the peer's module; None if it can't be imported, and then `reason` says why.
        sizes: pixels a side.
        batches, repeats: by work, TRAINING and INFERENCE.
        compiled: time predictions by torch.compile too.
        memory: measure the peak memory of each way, in a process of its own.
    """

    network: NetworkSettings
    library: Any | None
    reason: str
    sizes: Sequence[int]
    batches: dict[str, Sequence[int]]
    repeats: dict[str, int]
    compiled: bool = False
    memory: bool = True


def time_device(
    job: Job, runtime: Runtime, ceilings: Ceilings
) -> Iterator[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]]:
    """Yield the work, its rows and the floor's rows as soon as a work, size and batch is measured."""
    # Predictions first: cuDNN keeps the choices that it makes in the training that isn't deterministic.
    for work in (INFERENCE, TRAINING):
        for size, batch in product(job.sizes, job.batches[work]):
            print(f"{runtime.device.type}: {work}, {size} px, batch {batch}", flush=True)
            yield work, *time_work(work, Workload(job.network, runtime, size, batch), job, ceilings)


def time_work(
    work: str, load: Workload, job: Job, ceilings: Ceilings
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return rows of the work's table, and the row of the floor's (none if ours can't be measured)."""
    batch = make_noise(load)
    ways, empty = _list_ways(work, load, batch, job)
    memory = _measure_memory(work, ways, load, job, empty) if job.memory else {}
    chains = {way.name: [("turn", way.make_ready())] for way in ways if way.name not in empty}
    measured = take_turns(chains, lambda _: batch, job.repeats[work])
    counts = _count_operations(work, load, job.library)
    floor = compute_floor(counts[OURS], load.batch, ceilings)
    facts = {way.name: memory.get(way.name, {}) | way.facts for way in ways}
    key = {"device": load.runtime.device.type, "size": load.size, "batch": load.batch}
    rows = []
    for name in NAMES:
        if name in empty:
            rows.append({**key, "way": name, "why empty": empty[name]})
        elif name in measured:
            row = _make_row(load, measured[name], name, counts, floor["floor ms"])
            rows.append({**key, "way": name, **row, **_compare(name, measured), **facts[name]})
    if OURS not in measured:
        return rows, []
    taken = 1e3 * measured[OURS].percentiles()[1]
    shares = {"measured ms": taken, **compute_share(floor["floor ms"], taken)}
    return rows, [{**key, "work": work, **floor, **shares}]


def _make_row(
    load: Workload, found: Measured, name: str, counts: dict[str, int], floor: float
) -> dict[str, Any]:
    """Return cells of speed and work; `floor`, in milliseconds, is that of our network."""
    whose = name if name in (PEER, TUNED_PEER) else OURS
    low, median, high = 1e3 * found.percentiles()
    row = {
        "precision": "float32" if name == PEER else load.runtime.precision,
        "images/s": 1e3 * load.batch / median,
        "ms": median,
        "p10": low,
        "p90": high,
        "GFLOP an image": counts[whose] / load.batch / 1e9,
        "repeats": found.repeats,
    }
    return row | (compute_share(floor, median) if whose == OURS else {})


def _list_ways(work: str, load: Workload, batch: Batch, job: Job) -> tuple[list[Way], dict[str, str]]:
    """Return the ways that can take turns, and by the names of the others why they can't."""
    empty = {} if job.library is not None else dict.fromkeys((PEER, TUNED_PEER), job.reason)
    if work == TRAINING:
        return list_training_ways(load, job.library), empty
    ways = list_prediction_ways(load, job.library)
    if job.compiled:
        try:
            ways.insert(0, compile_way(load, batch))
        except InputError as error:
            empty[COMPILED] = str(error)
    return ways, empty


def _measure_memory(
    work: str, ways: Sequence[Way], load: Workload, job: Job, empty: dict[str, str]
) -> dict[str, dict[str, float]]:
    """Return the peak memory of each way; one that fails is added to `empty` with the reason."""
    memory = {}
    for way in ways:
        if way.built:
            continue
        try:
            memory[way.name] = _measure_in_process(work, way, load, job)
        except BrokenProcessPool:
            empty[way.name] = "its process ended without an answer: a full memory, or a crash"
        except (InputError, RuntimeError) as error:
            if not (isinstance(error, InputError) or is_out_of_memory(error)):
                raise
            empty[way.name] = str(error).splitlines()[0]
    return memory


def _measure_in_process(work: str, way: Way, load: Workload, job: Job) -> dict[str, float]:
    """Measure a way's peak memory in a new process.

    This process keeps memory that others have freed, which would hide how much a way takes.
    """
    gc.collect()
    if load.runtime.device.type == "cuda":
        torch.cuda.empty_cache()  # the other process couldn't have what this one holds idle
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure_way_by_name, work, way.name, load, job.library is not None).result()


def _count_operations(work: str, load: Workload, library: Any | None) -> dict[str, int]:
    """Return the operations of a batch, by OURS, PEER and TUNED_PEER, which has three channels."""
    networks = {OURS: (DeepLabV3Plus(load.network), load.runtime)}
    if library is not None:
        networks[PEER] = build_peer_network(library), Runtime(load.runtime.device)
        networks[TUNED_PEER] = make_peer_approach(load).build_network(), load.runtime
    return {
        name: count_operations(network, runtime, load.batch, load.size, work == TRAINING)
        for name, (network, runtime) in networks.items()
    }


def _compare(name: str, measured: dict[str, Measured]) -> dict[str, float]:
    """Return how many times as fast a way is as the peer, and as what the program does by default."""
    found: dict[str, float] = {}
    if name != PEER and PEER in measured:
        found |= measured[name].compare_with(measured[PEER])
    if name not in (OURS, PEER) and OURS in measured:
        found |= zip(TIMES_OURS, measured[name].compare_with(measured[OURS]).values(), strict=True)
    return found


def measure(arguments: argparse.Namespace) -> Iterator[list[tuple[str, str, pd.DataFrame, list[str]]]]:
    """Yield, after each size, the tables that have rows by then: folder, title, table, notes.

    Raises:
        InputError: there is no such device.
    """
    use_threads(arguments.threads)
    runtimes, missing = resolve_runtimes(arguments.device, arguments.threads)
    job = _make_job(arguments)
    last = describe_setup(arguments.topology, runtimes, job.library)
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
            yield _make_pages(tables, write_floor_notes(ceilings, runtimes), last)


def _make_pages(
    tables: dict[str, pd.DataFrame], floor_notes: list[str], last: list[str]
) -> list[tuple[str, str, pd.DataFrame, list[str]]]:
    pages: list[tuple[str, str, Callable[[pd.DataFrame], list[str]]]] = [
        (TRAINING, "Training DeepLabV3+", write_training_notes),
        (INFERENCE, "Predicting with DeepLabV3+", write_inference_notes),
        (FLOOR, "The floor under DeepLabV3+", lambda _: floor_notes),
    ]
    return [
        (name, title, make_counts_whole(tables[name].dropna(axis=1, how="all")), notes(tables[name]) + last)
        for name, title, notes in pages
        if name in tables
    ]


def _make_job(arguments: argparse.Namespace) -> Job:
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
        not arguments.no_memory,
    )


def parse(words: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = make_parser(__doc__, "results/deeplab-speed")
    add_device_options(parser)
    parser.add_argument("--topology", choices=list(TOPOLOGIES), default="standard", help="of our network")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512], help="pixels a side")
    parser.add_argument("--batches", type=int, nargs="+", default=[8], help="for predictions, besides 1")
    parser.add_argument("--train-batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=16, help="of predictions")
    parser.add_argument("--train-repeats", type=int, default=8, help="of training steps")
    parser.add_argument("--compiled", action="store_true", help="time torch.compile too")
    slow = "don't measure peak memory, for which each row starts a process of its own"
    parser.add_argument("--no-memory", action="store_true", help=slow)
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
