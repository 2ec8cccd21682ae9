"""Time fitted approaches, each in a process of its own, in turns A B, B A."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from lungseg.spec import TimingSpec
from lungseg.system.files import write_grey
from lungseg.system.runtime import Runtime
from lungseg.timing.measure import Candidate
from lungseg.timing.processes import Worker, start_workers
from lungseg.timing.statistics import compare, divide_repeats, order_turns, still_gains, summarise_seconds

LARGEST_BATCH = {"cpu": 64, "cuda": 1024}
TIMING_IMAGES = 8
CALLS_A_ROUND = 10  # at least, for batches larger than one


@dataclass
class Timings:
    """The result of timing in one runtime."""

    rows: list[dict[str, Any]] = field(default_factory=list)  # of timings.csv
    pairs: list[dict[str, Any]] = field(default_factory=list)  # of timing_pairs.csv
    failed: dict[str, str] = field(default_factory=dict)  # by candidate and batch size, why they have no row
    # By cell or candidate, why a cell is empty or a search for the largest batch ended early.
    empty: dict[str, str] = field(default_factory=dict)


def choose_images(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the first images of the most frequent shape, at most 8: a batch that is timed has one shape."""
    shapes = Counter(sorted(image.shape for image in images))
    shape = max(shapes, key=shapes.get)
    return [image for image in images if image.shape == shape][:TIMING_IMAGES]


def time_approaches(
    candidates: Sequence[Candidate],
    images: Sequence[np.ndarray],
    runtime: Runtime,
    timing: TimingSpec,
    progress: Callable[[int, int, str], None],
) -> Timings:
    """Time candidates in one runtime, on one device.

    Every candidate has its own process, so that its peak memory is its own. Only one works at a time. The
    repeats are divided into rounds, and the order reverses each round, so that a drift of the machine affects
    all alike. With `timing.twice` each has a second process at batch size 1; these take their turns after all
    first ones.

    Args:
        images: float32, H x W, in [0, 1], of one shape; larger batches repeat them.
        runtime: may differ from the one the candidates were fitted with.
        progress: called with (done, total, text).
    """
    sizes = list_batch_sizes(timing, runtime.device.type)
    twice = timing.twice and sizes[0] == 1
    total, done = _count_steps(len(candidates), sizes, twice, timing), count(1)

    def step(text: str) -> None:
        progress(next(done), total, text)

    clock = _Clock([c.name for c in candidates], images[0].shape, runtime, timing, step)
    with tempfile.TemporaryDirectory(prefix="lungseg-timing-") as folder:
        files = [Path(folder) / f"{index}.png" for index in range(len(images))]
        for file, image in zip(files, images, strict=True):
            write_grey(file, image)
        with start_workers(candidates, twice, files, runtime, step) as workers:
            clock.measure_all(workers, sizes)
    return clock.timings


def list_batch_sizes(timing: TimingSpec, device: str) -> list[int]:
    """Return the batch sizes to measure, growing; with "auto" timing may end before the last one."""
    if timing.batch_sizes != "auto":
        return sorted(set(timing.batch_sizes))
    largest = timing.largest_batch or LARGEST_BATCH[device]
    return [2**power for power in range(largest.bit_length())]


def plan_rounds(timing: TimingSpec, batch_size: int) -> tuple[int, int]:
    """Return the timed calls of one batch size, and the number of rounds they are divided into."""
    if batch_size == 1:
        return timing.repeats, timing.rounds
    rounds = max(1, timing.throughput_repeats // CALLS_A_ROUND)
    return timing.throughput_repeats, min(rounds, timing.rounds)


def _count_steps(candidates: int, sizes: Sequence[int], twice: bool, timing: TimingSpec) -> int:
    """How often the progress moves: a start and the turns of each process."""
    rounds = {size: len(divide_repeats(*plan_rounds(timing, size))) for size in sizes}
    return candidates * (1 + sum(rounds.values()) + (1 + rounds[1] if twice else 0))


class _Clock:
    """Asks workers in turn and keeps their answers as rows."""

    def __init__(
        self,
        names: Sequence[str],
        shape: tuple[int, int],
        runtime: Runtime,
        timing: TimingSpec,
        step: Callable[[str], None],
    ) -> None:
        self.names = names
        self.setting = {
            "device": runtime.device.type,
            "precision": runtime.precision,
            "layout": name_layout(runtime),
            "compiled": runtime.compiled,
            "height": shape[0],
            "width": shape[1],
        }
        self.timing = timing
        self.step = step
        self.timings = Timings()
        self._operations: dict[str, dict[str, Any]] = {}
        self._images_per_s: dict[str, list[float]] = {name: [] for name in names}

    def measure_all(self, workers: Sequence[Worker], sizes: Sequence[int]) -> None:
        """Measure each batch size with all workers that are left."""
        left = list(workers)
        for size in sizes:
            answers = self._take_turns(left, size)
            if size == 1:
                self._compare(answers)
            for worker in [worker for worker in left if worker.again]:
                worker.close()
            left = [worker for worker in left if worker in answers and not worker.again]
            for worker in left:
                self._store(worker, size, answers[worker])
            if self.timing.batch_sizes == "auto":
                left = [worker for worker in left if still_gains(self._images_per_s[worker.name])]
                left = [worker for worker in left if self._has_memory(worker, size)]
        if self.timing.batch_sizes == "auto" and left:
            names = ", ".join(worker.name for worker in left)
            self.timings.empty[f"images/s of {names}, batches above {sizes[-1]}"] = (
                "timing.largest_batch ended the search, though they still gained"
            )
        place = {name: number for number, name in enumerate(self.names)}
        self.timings.rows.sort(key=lambda row: (place[row["approach"]], row["batch_size"]))

    def _has_memory(self, worker: Worker, size: int) -> bool:
        """Whether twice the batch fits: on a CPU no call fails for memory, the system kills the process."""
        rows = [row for row in self.timings.rows if row["approach"] == worker.name]
        peak = next(row["peak_memory_mib"] for row in reversed(rows) if row["stage"] == "whole")
        if self.setting["device"] != "cpu" or psutil.virtual_memory().available / 2**20 > peak:
            return True
        self.timings.empty[f"{worker.name}, batches above {size}"] = "there is too little free memory"
        return False

    def _take_turns(self, workers: Sequence[Worker], size: int) -> dict[Worker, list[dict[str, Any]]]:
        """The answers of each round, of the workers that failed in none, in the order of `workers`."""
        answers: dict[Worker, list[dict[str, Any]]] = {worker: [] for worker in workers}
        for index, share in order_turns(len(workers), *plan_rounds(self.timing, size)):
            worker = workers[index]
            if worker in answers:
                answer = worker.ask("speed", size, share, self.timing.warmup)
                if "error" in answer:
                    del answers[worker]
                    self._note_failure(worker, size, answer)
                else:
                    answers[worker].append(answer)
            self.step(f"{worker.name}, batches of {size}")
        return answers

    def _note_failure(self, worker: Worker, size: int, answer: dict[str, Any]) -> None:
        auto = self.timing.batch_sizes == "auto"
        more = " and more" if not worker.again and (auto or size < max(self.timing.batch_sizes)) else ""
        what = f"{worker.name}{' a second time' if worker.again else ''}, batches of {size}{more}"
        if auto and size > 1 and answer["memory"]:
            self.timings.empty[what] = f"the memory is full ({answer['error']})"
        else:
            self.timings.failed[what] = answer["error"]

    def _store(self, worker: Worker, size: int, answers: list[dict[str, Any]]) -> None:
        """Store the rounds of one approach and batch size, one row a stage."""
        if worker.name not in self._operations:
            self._operations[worker.name] = self._ask_cells(worker, "operations")
        whole = self._operations[worker.name] | self._ask_cells(worker, "energy", size)
        # Of the first round, since a process may hold on to memory that earlier calls have used.
        first = answers[0]
        whole["peak_memory_mib"] = first["peak_memory_mib"]
        for stage in first["seconds"]:
            seconds = [value for answer in answers for value in answer["seconds"][stage]]
            row = {
                "approach": worker.name,
                "stage": stage,
                **self.setting,
                "copies": stage in first["copies"],
                "batch_size": size,
                **summarise_seconds(seconds, size),
                "repeats": len(seconds),
            }
            if stage == "whole":
                row |= whole
                if whole.get("gflops"):
                    row["peak_share"] = whole["gflops"] * row["images_per_s"] / whole["peak_gflops_per_s"]
            self.timings.rows.append(row)
        self._images_per_s[worker.name].append(self.timings.rows[-1]["images_per_s"])

    def _ask_cells(self, worker: Worker, method: str, *arguments: Any) -> dict[str, Any]:
        """Cells of a row; none if there is a reason, which is noted."""
        answer = worker.ask(method, *arguments)
        if "absent" in answer:
            self.timings.empty["joules_per_image"] = answer["absent"]
            return {}
        if "error" in answer:
            self.timings.empty[f"{method} of {worker.name}"] = answer["error"]
            return {}
        return answer

    def _compare(self, answers: dict[Worker, list[dict[str, Any]]]) -> None:
        def medians(again: bool) -> dict[str, list[float]]:
            return {
                worker.name: [float(np.median(answer["seconds"]["whole"])) for answer in rounds]
                for worker, rounds in answers.items()
                if worker.again == again
            }

        first, second = medians(False), medians(True)
        self.timings.pairs += [{**self.setting, "batch_size": 1, **row} for row in compare(first, second)]


def name_layout(runtime: Runtime) -> str:
    """Return the name of the memory layout in the tables."""
    return "channels-last" if runtime.channels_last else "contiguous"
