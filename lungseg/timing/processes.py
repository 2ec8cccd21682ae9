"""Timing processes as their parent uses them: started one by one, asked in turn, ended together."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from lungseg.system.runtime import Runtime
from lungseg.timing.measure import Candidate, run_worker

# On a GPU a process holds a CUDA context, a network, its recorded graphs and the workspaces of libraries. A
# rule of thumb, on the safe side.
PROCESS_BYTES = 1536 * 2**20
KILLED = (
    "its process was killed, most likely for memory: lower timing.batch_sizes or timing.largest_batch, or "
    "set timing.twice = false, which halves the number of processes"
)


def group_candidates(
    candidates: Sequence[Candidate], twice: bool, shared: bool, device: torch.device
) -> list[list[Candidate]]:
    """Divide candidates into groups whose processes fit into the device's free memory together.

    On a CPU, and where all fit, there is one group. If `shared`, the first candidate is in every group, so
    that each other one can be compared with it: no group has fewer than two. Else the last may have one.
    """
    if device.type != "cuda":
        return [list(candidates)]
    free, _ = torch.cuda.mem_get_info(device)
    most = max(2, free // PROCESS_BYTES // (1 + twice))
    if len(candidates) <= most:
        return [list(candidates)]
    common = list(candidates[:1]) if shared else []
    rest, step = candidates[len(common) :], most - len(common)
    return [[*common, *rest[start : start + step]] for start in range(0, len(rest), step)]


class Worker:
    """A process that measures one candidate."""

    def __init__(self, candidate: Candidate, again: bool, pipe: Connection, process: BaseProcess) -> None:
        self.name = candidate.name
        self.again = again  # it is the candidate's second process
        self._pipe, self._process = pipe, process

    def wait(self) -> None:
        """Wait until it has loaded the candidate. If it died instead, the first question will say so."""
        with suppress(EOFError, OSError):
            self._pipe.recv()

    def ask(self, method: str, *arguments: Any) -> dict[str, Any]:
        """Call a method of the process's Stopwatch, and return what it returns.

        After an error, also if the process has ended, this is {"error": sentence, "memory": whether the
        memory was full}.
        """
        try:
            self._pipe.send((method, *arguments))
            return self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(timeout=5)
        code = self._process.exitcode
        if code in (None, -signal.SIGKILL):
            return {"error": KILLED, "memory": True}
        return {"error": f"its process ended by itself (exit code {code})", "memory": False}

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def close(self) -> None:
        """End the process; a second call does nothing."""
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Make processes that are started in the block ignore Ctrl-C from the start; their parent handles it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set a signal's handler
        return
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _choose_context() -> BaseContext:
    """How processes start without this one's memory and CUDA state, which a plain fork would inherit."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    # Forked from a process that does nothing but import torch once, which takes each other one seconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([run_worker.__module__])
    return context


@contextmanager
def start_workers(
    candidates: Sequence[Candidate],
    twice: bool,
    files: list[Path],
    runtime: Runtime,
    progress: Callable[[str], None],
) -> Iterator[list[Worker]]:
    """Start a process for each candidate, or two if `twice`, and end them with the `with` block.

    Yields all first processes before all second ones. So the two processes of one candidate take turns as far
    apart as two candidates do, and a drift of the machine affects both comparisons alike. The image files
    must have one shape.
    """
    context = _choose_context()
    workers: list[Worker] = []
    try:
        for again in (False, True)[: 1 + twice]:
            for candidate in candidates:
                mine, theirs = context.Pipe()
                arguments = (theirs, candidate, files, runtime)
                process = context.Process(target=run_worker, args=arguments, daemon=True)
                with _ignoring_interrupts():
                    process.start()
                theirs.close()
                workers.append(Worker(candidate, again, mine, process))
                # One at a time, because two that load at once can fill the memory of a small machine.
                workers[-1].wait()
                progress(f"starting {candidate.name}")
        yield workers
    except BaseException:
        for worker in workers:
            worker.kill()  # nobody waits for what it measures now
        raise
    finally:
        for worker in workers:
            worker.close()
