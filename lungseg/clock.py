"""Times fitted approaches, each in a process of its own, taking turns A B, B A."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lungseg.approaches import APPROACHES
from lungseg.approaches.approach import Approach, Runtime
from lungseg.errors import InputError
from lungseg.plugins import load_class, validate
from lungseg.scoring.timing import summarise_seconds, time_chain
from lungseg.spec import TimingSpec


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
) -> list[dict[str, Any]]:
    """Rows of timings.csv: each candidate by stage and batch size.

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
    files = []
    for index, image in enumerate(images):
        files.append(folder / f"{index}.png")
        Image.fromarray(np.round(image * 255).astype(np.uint8)).save(files[-1])
    return files


def _take_turns(
    candidates: Sequence[Candidate],
    files: list[Path],
    shape: tuple[int, int],
    runtime: Runtime,
    timing: TimingSpec,
    progress: Callable[[int, int, str], None],
) -> list[dict[str, Any]]:
    seconds: dict[tuple[int, int], dict[str, list[float]]] = {}
    facts: dict[tuple[int, int], dict[str, Any]] = {}
    total, done = len(candidates) * len(timing.batch_sizes) * timing.rounds, 0
    with _workers(candidates, files, runtime) as pipes:
        for round_number in range(timing.rounds):
            share = len(range(round_number, timing.repeats, timing.rounds))
            order = list(range(len(candidates)))
            for index in order if round_number % 2 == 0 else order[::-1]:
                for size in timing.batch_sizes:
                    answer = _ask(pipes[index], candidates[index].name, (size, share, timing.warmup))
                    facts[index, size] = answer
                    kept = seconds.setdefault((index, size), {})
                    for stage, values in answer["seconds"].items():
                        kept.setdefault(stage, []).extend(values)
                    done += 1
                    progress(done, total, f"timing {candidates[index].name}, batches of {size}")
    rows = []
    for index, candidate in enumerate(candidates):
        for size in timing.batch_sizes:
            for stage, values in seconds[index, size].items():
                row = _row(candidate.name, stage, shape, size, runtime, values, facts[index, size])
                rows.append(row)
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
        # The whole goes from host images to host maps; a step between them stays on the device.
        "copies": stage in ("prepare", "finish", "whole"),
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
            _receive(mine, candidate.name)
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()


def _ask(pipe: Connection, name: str, question: tuple) -> dict[str, Any]:
    pipe.send(question)
    return _receive(pipe, name)


def _receive(pipe: Connection, name: str) -> dict[str, Any]:
    try:
        answer = pipe.recv()
    except EOFError:
        raise InputError(
            f"the process that timed {name} was ended, most likely for memory: lower timing.batch_sizes"
        ) from None
    if "error" in answer:
        raise InputError(f"timing {name} failed: {answer['error']}")
    return answer


def work(pipe: Connection, candidate: Candidate, files: list[Path], runtime: Runtime) -> None:
    """A timing process: loads, then answers (batch size, repeats, warmup) until the pipe closes."""
    import torch

    torch.set_num_threads(runtime.threads)
    try:
        kind = load_class(candidate.use, APPROACHES, Approach, "approach")
        settings = validate(kind.Settings, candidate.settings, candidate.name)
        approach = kind.load(candidate.directory, settings, runtime)
        pipe.send({"ready": True})
        while True:
            size, repeats, warmup = pipe.recv()
            pipe.send(measure(approach, files, size, repeats, warmup))
    except EOFError:
        return
    except Exception as error:
        pipe.send({"error": f"{type(error).__name__}: {error}"})


def measure(
    approach: Approach, files: list[Path], batch_size: int, repeats: int, warmup: int
) -> dict[str, Any]:
    """Seconds by stage, GFLOP an image by torch's counter (2 x multiply-add), peak memory in MiB."""
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
        decode = time_chain(
            [("decode", lambda paths: [read_image(p) for p in paths])], chosen, repeats, 1, lambda: None
        )
        seconds = {"decode": decode["decode"], **time_chain(steps, images, repeats, warmup, synchronise)}
    return {
        "seconds": seconds,
        "gflops": counter.get_total_flops() / 1e9 or None,
        "peak_memory_mib": _peak_memory_mib(device.type),
    }


def _peak_memory_mib(device: str) -> float:
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
