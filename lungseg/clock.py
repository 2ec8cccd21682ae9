"""Times fitted approaches, each in a process of its own, taking turns A B, B A."""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from lungseg.approaches import APPROACHES
from lungseg.approaches.approach import Approach, Runtime
from lungseg.environment import PeakMemory, use_threads
from lungseg.plugins import load_class, validate
from lungseg.scoring.timing import summarise_seconds, time_chain
from lungseg.spec import TimingSpec
from lungseg.storage import write_grey


@dataclass(frozen=True)
class Candidate:
    """A fitted approach to time: its name, class, settings, and where `save` put it."""

    name: str
    use: str
    settings: dict[str, Any]
    directory: Path


def time_approaches(
    candidates: Sequence[Candidate],
    images: Sequence[np.ndarray],
    runtime: Runtime,
    timing: TimingSpec,
    progress: Callable[[int, int, str], None],
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of timings.csv, and the reason for each candidate and batch size that has none.

    Every candidate has its own process, so that its peak memory is its own; only one works at a time. The
    repeats are cut into rounds and the order turns round each time, so that a drift of the machine meets all.

    Args:
        candidates: fitted approaches.
        images: float32 H x W in [0, 1] of one shape; larger batches repeat them.
        runtime: as they were fitted with.
        timing: batch sizes, repeats and rounds.
        progress: called with (done, total, text).
    """
    with tempfile.TemporaryDirectory(prefix="lungseg-timing-") as folder:
        files = _write_images(images, Path(folder))
        return _take_turns(candidates, files, images[0].shape, runtime, timing, progress)


def _write_images(images: Sequence[np.ndarray], folder: Path) -> list[Path]:
    files = [folder / f"{index}.png" for index in range(len(images))]
    for file, image in zip(files, images, strict=True):
        write_grey(file, image)
    return files


def _turns(count: int, timing: TimingSpec) -> Iterator[tuple[int, int, int]]:
    """(candidate, batch size, repeats) in the order of measuring: A B, B A, A B ..."""
    for round_number in range(timing.rounds):
        share = len(range(round_number, timing.repeats, timing.rounds))
        order = range(count) if round_number % 2 == 0 else range(count - 1, -1, -1)
        for index in order:
            for size in sorted(timing.batch_sizes):
                yield index, size, share


def _take_turns(
    candidates: Sequence[Candidate],
    files: list[Path],
    shape: tuple[int, int],
    runtime: Runtime,
    timing: TimingSpec,
    progress: Callable[[int, int, str], None],
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    answers: dict[tuple[int, int], list[dict[str, Any]]] = {}
    failed: dict[str, str] = {}
    turns = list(_turns(len(candidates), timing))
    with _workers(candidates, files, runtime) as pipes:
        for done, (index, size, share) in enumerate(turns, start=1):
            what = f"{candidates[index].name}, batches of {size}"
            if what not in failed:
                answer = _ask(pipes[index], (size, share, timing.warmup))
                if "error" in answer:
                    failed[what] = answer["error"]
                else:
                    answers.setdefault((index, size), []).append(answer)
            progress(done, len(turns), what)
    rows = [
        row
        for (index, size), given in sorted(answers.items())
        for row in _rows(candidates[index].name, shape, size, runtime, given)
    ]
    return rows, failed


def _rows(
    name: str, shape: tuple[int, int], batch_size: int, runtime: Runtime, answers: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rounds of one approach and batch size as one row a stage."""
    # The first round comes before larger batches have left memory behind that this process still holds.
    facts = answers[0]
    rows = []
    for stage in facts["seconds"]:
        seconds = [value for answer in answers for value in answer["seconds"][stage]]
        rows.append(_row(name, stage, shape, batch_size, runtime, seconds, facts))
    return rows


def _row(
    name: str,
    stage: str,
    shape: tuple[int, int],
    batch_size: int,
    runtime: Runtime,
    seconds: list[float],
    facts: dict[str, Any],
) -> dict[str, Any]:
    whole = stage == "whole"
    return {
        "approach": name,
        "stage": stage,
        "device": runtime.device.type,
        "precision": runtime.precision,
        "layout": "channels-last" if runtime.channels_last else "contiguous",
        "compiled": runtime.compiled,
        "copies": stage in facts["copies"],
        "height": shape[0],
        "width": shape[1],
        "batch_size": batch_size,
        **summarise_seconds(seconds, batch_size),
        "peak_memory_mib": facts["peak_memory_mib"] if whole else None,
        "gflops": facts["gflops"] if whole else None,
        "repeats": len(seconds),
    }


@contextmanager
def _workers(
    candidates: Sequence[Candidate], files: list[Path], runtime: Runtime
) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context(
        "spawn"
    )  # a fork would inherit this process's memory and CUDA state
    pipes, processes = [], []
    try:
        for candidate in candidates:
            mine, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, candidate, files, runtime), daemon=True)
            process.start()
            theirs.close()
            pipes.append(mine)
            processes.append(process)
            # One at a time: loading is not what is measured, but two at once can fill a small machine.
            _consume_ready(mine)
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()


def _consume_ready(pipe: Connection) -> None:
    # If it died while loading, the first question will say so.
    with suppress(EOFError, OSError):
        pipe.recv()


def _ask(pipe: Connection, question: tuple) -> dict[str, Any]:
    """The worker's answer; {"error": reason} if it failed or is gone."""
    ended = {"error": "its process was ended, most likely for memory: lower timing.batch_sizes"}
    try:
        pipe.send(question)
        return pipe.recv()
    except (EOFError, OSError):
        return ended


def work(pipe: Connection, candidate: Candidate, files: list[Path], runtime: Runtime) -> None:
    """A timing process: loads, then answers (batch size, repeats, warmup) until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer; it ends its workers
    use_threads(runtime.threads)
    approach: Approach | str
    try:
        kind = load_class(candidate.use, APPROACHES, Approach, "approach")
        settings = validate(kind.Settings, candidate.settings, candidate.name)
        use_threads(runtime.threads)  # again: libraries that the class brought have thread pools of their own
        approach = kind.load(candidate.directory, settings, runtime)
    except Exception as error:
        approach = f"{type(error).__name__}: {error}"
    pipe.send("ready")
    try:
        while True:
            question = pipe.recv()
            pipe.send(
                {"error": approach} if isinstance(approach, str) else _answer(approach, files, question)
            )
    except (EOFError, OSError):
        return


def _answer(approach: Approach, files: list[Path], question: tuple[int, int, int]) -> dict[str, Any]:
    try:
        with PeakMemory(approach.runtime.device) as peak:
            answer = measure(approach, files, *question)
        return {**answer, "peak_memory_mib": peak.mib}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}


def measure(
    approach: Approach, files: list[Path], batch_size: int, repeats: int, warmup: int
) -> dict[str, Any]:
    """Seconds by stage, GFLOP an image by torch's counter (2 x multiply-add), and which stages copy."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from lungseg.data.images import read_image

    device = approach.runtime.device
    chosen = [files[index % len(files)] for index in range(batch_size)]
    images = [read_image(file) for file in chosen]
    sizes = [image.shape for image in images]
    synchronise = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    steps = [
        ("prepare", approach.prepare),
        *((stage.name, stage.run) for stage in approach.stages()),
        ("finish", lambda maps: approach.finish(maps, sizes)),
    ]
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            approach.predict(images[:1])
        decoding = [("decode", lambda paths: [read_image(path) for path in paths])]
        decode = time_chain(decoding, chosen, min(repeats, 15), 1, lambda: None)
        seconds = {"decode": decode["decode"], **time_chain(steps, images, repeats, warmup, synchronise)}
    return {
        "seconds": seconds,
        "gflops": counter.get_total_flops() / 1e9 or None,
        # The whole goes from host images to host maps; a step between them stays on the device if it can.
        "copies": {"prepare", "finish", "whole", *(s.name for s in approach.stages() if s.copies)},
    }
