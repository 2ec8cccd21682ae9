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

from lungseg.spec import TimingSpec
from lungseg.system.files import write_grey
from lungseg.system.runtime import Runtime
from lungseg.timing.measure import Candidate
from lungseg.timing.pace import (
    DOUBLINGS,
    ONCE_SECONDS,
    START_SECONDS,
    Pace,
    energy_seconds,
    expect_seconds,
    list_batch_sizes,
    plan_rounds,
    seconds_of_sizes,
    seconds_of_turn,
)
from lungseg.timing.processes import Worker, group_candidates, start_workers
from lungseg.timing.statistics import (
    compare,
    divide_repeats,
    find_slow_rounds,
    order_turns,
    still_gains,
    summarise_seconds,
)

TIMING_IMAGES = 8
MOST_TRIES = 2  # to measure a round again in which the clock of a GPU was low
OUTSIDE = {"decode", "prepare", "finish", "whole"}  # no stages of the device alone


@dataclass
class Timings:
    """The result of timing in one runtime."""

    rows: list[dict[str, Any]] = field(default_factory=list)  # of timings.csv
    pairs: list[dict[str, Any]] = field(default_factory=list)  # of timing_pairs.csv
    failed: dict[str, str] = field(default_factory=dict)  # by candidate and batch size, why they have no row
    # By cell or candidate, why a cell is empty or a search for the largest batch ended early.
    empty: dict[str, str] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)  # the state of a GPU in each, void ones too


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
    first ones. If a GPU's memory can't hold all processes, candidates are timed in groups that share the
    first candidate; two of different groups have no ratio.

    Args:
        images: float32, H x W, in [0, 1], of one shape; larger batches repeat them.
        runtime: may differ from the one the candidates were fitted with.
        progress: called with (done, total, text).
    """
    sizes = list_batch_sizes(timing, runtime.device.type)
    twice = timing.twice and sizes[0] == 1
    pace = Pace(progress)
    energy_s = energy_seconds(runtime.device)
    groups = group_candidates(candidates, twice, sizes[0] == 1, runtime.device)
    expected = [expect_seconds(timing, len(group), sizes, twice, energy_s) for group in groups]
    clock = _Clock([c.name for c in candidates], images[0].shape, runtime, timing, pace, energy_s)
    with tempfile.TemporaryDirectory(prefix="lungseg-timing-") as folder:
        files = [Path(folder) / f"{index}.png" for index in range(len(images))]
        for file, image in zip(files, images, strict=True):
            write_grey(file, image)
        for number, group in enumerate(groups):
            clock.later_s = sum(expected[number + 1 :])
            pace.expect(sum(expected[number:]))
            with start_workers(group, twice, files, runtime, partial(pace.step, START_SECONDS)) as workers:
                clock.measure_all(workers, sizes)
    if len(groups) > 1:
        clock.timings.empty["ratios of two approaches"] = (
            f"the free memory of the device holds no more processes: they were timed in {len(groups)} groups"
        )
    return clock.timings


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
            "tuned": runtime.tuned,
            "height": shape[0],
            "width": shape[1],
        }
        self.timing = timing
        self.pace, self.energy_s = pace, energy_s
        self.later_s = 0.0  # that groups after the present one are expected to take
        self.timings = Timings()
        self._operations: dict[str, dict[str, Any]] = {}
        self._images_per_s: dict[str, list[float]] = {name: [] for name in names}

    def measure_all(self, workers: Sequence[Worker], sizes: Sequence[int]) -> None:
        """Measure each batch size with all workers that are left.

        An approach that an earlier call measured is measured again only beside the others, at batch size 1.
        """
        left, known = list(workers), {row["approach"] for row in self.timings.rows}
        for number, size in enumerate(sizes):
            if number > 0:
                self._expect(left, sizes, number)
            answers = self._take_turns(left, size)
            if size == 1:
                self._compare(answers, known)
            done = [worker for worker in left if worker.again or worker.name in known]
            for worker in done:
                worker.close()
            left = [worker for worker in left if worker in answers and worker not in done]
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
        seconds = seconds_of_sizes(self.timing, likely, self.energy_s)
        self.pace.expect(len(workers) * seconds + self.later_s)

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
            if answer := self._ask_speed(worker, size, share, answers):
                answers[worker].append(answer)
            self.pace.step(seconds_of_turn(self.timing, size, share), f"{worker.name}, batches of {size}")
        self._measure_slow_rounds_again(answers, size)
        return answers

    def _ask_speed(
        self, worker: Worker, size: int, share: int, answers: dict[Worker, list[dict[str, Any]]]
    ) -> dict[str, Any] | None:
        """The answer of a round; None if the worker fails, which takes it out of `answers`."""
        if worker not in answers:
            return None
        answer = worker.ask("speed", size, share, self.timing.warmup)
        if "error" not in answer:
            return answer
        del answers[worker]
        self._note_failure(worker, size, answer)
        return None

    def _measure_slow_rounds_again(self, answers: dict[Worker, list[dict[str, Any]]], size: int) -> None:
        """Replace rounds in which a GPU's clock was low; at batch size 1 for all, as rounds are compared."""
        shares = divide_repeats(*plan_rounds(self.timing, size))
        for left in reversed(range(MOST_TRIES + 1)):
            slow = {worker: _find_slow(rounds) for worker, rounds in answers.items()}
            numbers = sorted({number for found in slow.values() for number in found})
            if not numbers or not left:
                break
            for number in numbers:
                chosen = [worker for worker in answers if size == 1 or number in slow[worker]]
                for worker in chosen if number % 2 == 0 else reversed(chosen):
                    self._log(worker, size, number, answers[worker][number], void=True)
                    if answer := self._ask_speed(worker, size, shares[number], answers):
                        again = answers[worker][number].get("again", 0) + 1
                        answers[worker][number] = answer | {"again": again}
        for worker, rounds in answers.items():
            for number, answer in enumerate(rounds):
                self._log(worker, size, number, answer, void=False)
            if slow[worker]:
                self.timings.empty[f"a steady clock of {worker.name}, batches of {size}"] = (
                    f"{len(slow[worker])} of {len(rounds)} rounds were below 95 % of the median clock, "
                    f"though measured {1 + MOST_TRIES} times"
                )

    def _log(self, worker: Worker, size: int, number: int, answer: dict[str, Any], void: bool) -> None:
        if answer["state"]:
            where = {"approach": worker.name, "again": worker.again, "batch_size": size, "round": number}
            self.timings.rounds.append({**where, "void": void, **answer["state"]})

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
        whole |= first["memory"] | _summarise_states(answers) | _find_device_speed(answers, size)
        for stage in first["seconds"]:
            seconds = [value for answer in answers for value in answer["seconds"][stage]]
            row = {
                "approach": worker.name,
                "stage": stage,
                **self.setting,
                **answers[-1]["program"],
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
        row = self.timings.rows[-1]
        gained = "device_images_per_s" if self.setting["device"] == "cuda" else "images_per_s"
        self._images_per_s[worker.name].append(row.get(gained, row["images_per_s"]))

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

    def _compare(self, answers: dict[Worker, list[dict[str, Any]]], known: set[str]) -> None:
        """Add the ratios of all that were measured side by side; `known` approaches have their A/A row."""

        def medians(again: bool) -> dict[str, list[float]]:
            return {
                worker.name: [float(np.median(answer["seconds"]["whole"])) for answer in rounds]
                for worker, rounds in answers.items()
                if worker.again == again
            }

        first, second = medians(False), medians(True)
        rows = [
            row
            for row in compare(first, second)
            if row["approach"] != row["other"] or row["other"] not in known
        ]
        self.timings.pairs += [{**self.setting, "batch_size": 1, **row} for row in rows]


def _find_slow(rounds: Sequence[dict[str, Any]]) -> list[int]:
    return find_slow_rounds([answer["state"].get("sm_clock_mhz") for answer in rounds])


def _summarise_states(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The columns on the state of a GPU, over all rounds; none without a state."""
    states = [answer["state"] for answer in answers if answer["state"]]
    if not states:
        return {}

    def summarise(name: str, how: Callable[[list[float]], float]) -> float | None:
        known = [state[name] for state in states if state[name] is not None]
        return float(how(known)) if known else None

    return {
        "sm_clock_mhz": summarise("sm_clock_mhz", np.median),
        "power_w": summarise("power_w", np.median),
        "temperature_c": summarise("temperature_c", max),
        "throttle": ", ".join(dict.fromkeys(reason for state in states for reason in state["throttle"])),
        "void_rounds": sum(answer.get("again", 0) for answer in answers),
    }


def _find_device_speed(answers: Sequence[dict[str, Any]], size: int) -> dict[str, float]:
    """The images/s of the stages between prepare and finish.

    None if an approach has no such stage, or one that copies: the host works in it, too.
    """
    seconds: list[float] = []
    for answer in answers:
        if answer["copies"] - OUTSIDE:
            return {}
        stages = [values for stage, values in answer["seconds"].items() if stage not in OUTSIDE]
        seconds += [sum(values) for values in zip(*stages, strict=True)]
    return {"device_images_per_s": size / float(np.median(seconds))} if seconds else {}


def name_layout(runtime: Runtime) -> str:
    """Return the name of the memory layout in the tables."""
    return "channels-last" if runtime.channels_last else "contiguous"
