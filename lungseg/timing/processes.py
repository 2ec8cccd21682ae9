"""Timing processes as their parent sees them: started one by one, asked in turn, ended together."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lungseg.system.runtime import Runtime
from lungseg.timing.measure import Candidate, work

KILLED = (
    "its process was killed, most likely for memory: lower timing.batch_sizes or timing.largest_batch, or "
    "set timing.twice = false, which halves the number of processes"
)


class Worker:
    """A process of one candidate.

    Attributes:
        name: of the candidate.
        again: it is the second process of the same.
    """

    def __init__(self, candidate: Candidate, again: bool, pipe: Connection, process: BaseProcess) -> None:
        self.name = candidate.name
        self.again = again
        self._pipe = pipe
        self._process = process

    def wait(self) -> None:
        """Until it has loaded. If it died instead, the first question will say so."""
        with suppress(EOFError, OSError):
            self._pipe.recv()

    def ask(self, method: str, *arguments: Any) -> dict[str, Any]:
        """What that method of its Stopwatch returns; {"error", "memory"} if it failed or is gone."""
        try:
            self._pipe.send((method, *arguments))
            return self._pipe.recv()
        except (EOFError, OSError):
            return self._ended()

    def _ended(self) -> dict[str, Any]:
        self._process.join(timeout=5)
        code = self._process.exitcode
        if code in (None, -signal.SIGKILL):
            return {"error": KILLED, "memory": True}
        return {"error": f"its process ended by itself (exit code {code})", "memory": False}

    def close(self) -> None:
        """Ends the process; does nothing the second time."""
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What is started inside ignores Ctrl-C from its first moment: that is the parent's to answer."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


@contextmanager
def start_workers(
    candidates: Sequence[Candidate],
    twice: bool,
    files: list[Path],
    runtime: Runtime,
    progress: Callable[[str], None],
) -> Iterator[list[Worker]]:
    """A process for each candidate, or two: all first ones, then all second ones; ended with the block.

    So two processes of one candidate take turns as far apart as any two candidates do, and a drift of the
    machine meets both comparisons alike.

    Args:
        candidates: fitted approaches.
        twice: start a second process of each.
        files: images of one shape.
        runtime: to load them with.
        progress: called after each start.
    """
    # A fork would inherit this process's memory and CUDA state.
    context = multiprocessing.get_context("spawn")
    workers: list[Worker] = []
    try:
        for again in (False, True)[: 1 + twice]:
            for candidate in candidates:
                mine, theirs = context.Pipe()
                process = context.Process(target=work, args=(theirs, candidate, files, runtime), daemon=True)
                with _deaf_to_interrupts():
                    process.start()
                theirs.close()
                workers.append(Worker(candidate, again, mine, process))
                # One at a time: loading is not what is measured, but two at once can fill a small machine.
                workers[-1].wait()
                progress(f"starting {candidate.name}")
        yield workers
    finally:
        for worker in workers:
            worker.close()
