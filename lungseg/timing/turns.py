"""Time fitted approaches, each in a process of its own, in turns A B, B A."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from lungseg.spec import TimingSpec
from lungseg.system.files import write_grey
from lungseg.system.runtime import Runtime
from lungseg.timing.energy import NoEnergyCounterError, open_counter
from lungseg.timing.measure import ENERGY_SECONDS, Candidate
from lungseg.timing.processes import Worker, start_workers
from lungseg.timing.statistics import compare, divide_repeats, order_turns, still_gains, summarise_seconds

LARGEST_BATCH = {"cpu": 64, "cuda": 1024}
TIMING_IMAGES = 8
CALLS_A_ROUND = 10  # at least, for batches larger than one
# Rules of thumb for the time left: the start of a process, an image of a call, what is measured once of an
# approach (its operations and the device's matrix product), and the doublings that "auto" goes through.
START_SECONDS, IMAGE_SECONDS, ONCE_SECONDS, DOUBLINGS = 3.0, 0.03, 3.0, 4


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
    pace = Pace(progress)
    energy_s = _energy_seconds(runtime.device)
    pace.expect(expect_seconds(timing, len(candidates), sizes, twice, energy_s))
    clock = _Clock([c.name for c in candidates], images[0].shape, runtime, timing, pace, energy_s)
    with tempfile.TemporaryDirectory(prefix="lungseg-timing-") as folder:
        files = [Path(folder) / f"{index}.png" for index in range(len(images))]
        for file, image in zip(files, images, strict=True):
            write_grey(file, image)
        with start_workers(candidates, twice, files, runtime, partial(pace.step, START_SECONDS)) as workers:
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


def expect_seconds(
    timing: TimingSpec, candidates: int, sizes: Sequence[int], twice: bool, energy_s: float = 0.0
) -> float:
    """Estimate the seconds of all processes and batch sizes by rules of thumb."""
    likely = sizes[:DOUBLINGS] if timing.batch_sizes == "auto" else sizes
    one = START_SECONDS + ONCE_SECONDS + _seconds_of_sizes(timing, likely, energy_s)
    again = START_SECONDS + _seconds_of_size(timing, 1) if twice else 0.0
    return candidates * (one + again)


def _energy_seconds(device: torch.device) -> float:
    """What measuring the energy of a batch size takes; 0 without a counter."""
    try:
        open_counter(device)
    except NoEnergyCounterError:
        return 0.0
    return ENERGY_SECONDS


def _seconds_of_sizes(timing: TimingSpec, sizes: Sequence[int], energy_s: float) -> float:
    return sum(_seconds_of_size(timing, size) + energy_s for size in sizes)


def _seconds_of_size(timing: TimingSpec, size: int) -> float:
    return sum(_seconds_of_turn(timing, size, share) for share in divide_repeats(*plan_rounds(timing, size)))


def _seconds_of_turn(timing: TimingSpec, size: int, share: int) -> float:
    """Of a round of one process: each call is made stage by stage and as a whole."""
    return 2 * (share + timing.warmup) * size * IMAGE_SECONDS


class Pace:
    """Moves a progress by the seconds that a step is expected to take, so that its bar moves evenly."""

    def __init__(self, progress: Callable[[int, int, str], None]) -> None:
        self._progress = progress
        self._done = self._total = 0.0

    def expect(self, seconds: float) -> None:
        """Set how many seconds are left, by estimate."""
        self._total = self._done + seconds

    def step(self, seconds: float, text: str) -> None:
        """Report a step that should have taken so many seconds."""
        self._done += seconds
        self._progress(round(1000 * min(1.0, self._done / self._total)), 1000, text)


class _Clock:
    """Asks workers in turn and keeps their answers as rows."""

    def __init__(
        self,
        names: Sequence[str],
        shape: tuple[int, int],
        runtime: Runtime,
        timing: TimingSpec,
        pace: Pace,
        energy_s: float = 0.0,
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
        self.pace, self.energy_s = pace, energy_s
        self.timings = Timings()
        self._operations: dict[str, dict[str, Any]] = {}
        self._images_per_s: dict[str, list[float]] = {name: [] for name in names}

    def measure_all(self, workers: Sequence[Worker], sizes: Sequence[int]) -> None:
        """Measure each batch size with all workers that are left."""
        left = list(workers)
        for number, size in enumerate(sizes):
            if number > 0:
                self._expect(left, sizes, number)
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

    def _expect(self, workers: Sequence[Worker], sizes: Sequence[int], number: int) -> None:
        """Set what is left: workers drop out, and "auto" may go on for longer than it does as a rule."""
        likely = (
            sizes[number : max(number + 1, DOUBLINGS)]
            if self.timing.batch_sizes == "auto"
            else sizes[number:]
        )
        self.pace.expect(len(workers) * _seconds_of_sizes(self.timing, likely, self.energy_s))

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
            self.pace.step(_seconds_of_turn(self.timing, size, share), f"{worker.name}, batches of {size}")
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
            self.pace.step(ONCE_SECONDS, f"{worker.name}, its operations")
        whole = self._operations[worker.name] | self._ask_cells(worker, "energy", size)
        self.pace.step(self.energy_s, f"{worker.name}, batches of {size}")
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
