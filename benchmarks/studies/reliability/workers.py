"""Runs cases in processes of their own: one that hangs, dies or eats the memory is only an outcome."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Protocol

from benchmarks.studies.reliability.outcomes import (
    HANG,
    READ,
    SILENT,
    TRACEBACK,
    Outcome,
    Wrong,
    judge_sentence,
)
from lungseg.system.errors import InputError

PROCESSES = 2
GRACE = 20.0  # seconds after a case's limit; the process should have ended itself by then
READY_SECONDS = 300.0  # for imports and whatever the cases share
CASES_A_PROCESS = 500  # then a new one begins, so that what a library keeps doesn't add up
STACK_LINES = 12  # of a hang


class Cases(Protocol):
    """Numbered cases of a part. An object is sent to each process, which prepares it once."""

    part: str

    def prepare(self) -> None:
        """Import and make what all cases share."""

    def name_kind(self, number: int) -> str:
        """Return the kind of damage."""

    def find_limit(self, number: int) -> float:
        """Return the seconds after which the case counts as a hang."""

    def run(self, number: int) -> None:
        """Run a case. InputError: it was refused. Wrong: a silent error. Any other is a traceback."""


def make_context(modules: Sequence[str] = ()) -> BaseContext:
    """Return a context whose processes are forked from one that has only imported modules."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["__main__", *modules])
    return context


def run_cases(
    cases: Cases, numbers: Iterable[int], folder: Path, context: BaseContext, processes: int = PROCESSES
) -> Iterator[Outcome]:
    """Yield the outcome of each case, as they end.

    Args:
        cases: what to run.
        numbers: of the cases.
        folder: where the processes write what goes to stderr.
        context: that makes the processes.
        processes: how many at a time.
    """
    left = list(reversed(list(numbers)))
    workers = [_Worker(cases, folder / f"stderr-{index}", context) for index in range(processes)]
    try:
        while left or any(worker.number is not None for worker in workers):
            for worker in workers:
                if worker.number is None and left:
                    worker.begin(left.pop())
            busy = [worker for worker in workers if worker.number is not None]
            wait([worker.connection for worker in busy], timeout=0.5)
            yield from filter(None, (worker.poll() for worker in busy))
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process, made when it is needed, and the case that it is at."""

    def __init__(self, cases: Cases, log: Path, context: BaseContext) -> None:
        self._cases, self._log, self._context = cases, log, context
        self._process: Any = None
        self.connection: Connection | None = None
        self.number: int | None = None
        self._deadline = self._done = 0.0

    def begin(self, number: int) -> None:
        """Give the process a case."""
        if self._process is None or self._done >= CASES_A_PROCESS:
            self._start()
        self.number, self._begun = number, time.monotonic()
        self._deadline = self._begun + self._cases.find_limit(number) + GRACE
        with suppress(BrokenPipeError):  # it has died; `poll` will say so
            self.connection.send(number)

    def poll(self) -> Outcome | None:
        """Return the outcome of the case if it has ended."""
        number = self.number
        if self.connection.poll():
            try:
                outcome = self.connection.recv()
                self._done += 1
            except (EOFError, ConnectionError):
                outcome = self._describe_death(number)
        elif time.monotonic() > self._deadline:
            outcome = self._describe_death(number)
        else:
            return None
        self.number = None
        return outcome

    def end(self) -> None:
        """End the process, whatever it is at."""
        if self._process is not None:
            self.connection.close()
            self._process.kill()
            self._process.join()
            self._process = None

    def _start(self) -> None:
        self.end()
        self._log.write_bytes(b"")
        self.connection, other = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(self._cases, other, self._log), daemon=False
        )
        self._process.start()
        other.close()
        self._done = 0
        if not self.connection.poll(READY_SECONDS) or not _receive(self.connection):
            self.end()
            raise RuntimeError(f"a process could not be prepared: {self._log.read_text(errors='replace')}")

    def _describe_death(self, number: int) -> Outcome:
        """Kill what is left of the process, and say whether it hung or died."""
        seconds = time.monotonic() - self._begun
        self._process.join(1)
        code = self._process.exitcode
        self.end()
        said = self._log.read_text(errors="replace").rpartition("(most recent call first):")[2]
        stack = " | ".join(line.strip() for line in said.strip().splitlines()[:STACK_LINES])
        hung = seconds >= self._cases.find_limit(number)
        text = f"no end after {seconds:.0f} s: {stack}" if hung else f"its process died ({code}): {stack}"
        kind = self._cases.name_kind(number)
        return Outcome(self._cases.part, number, kind, HANG if hung else TRACEBACK, text, seconds)


def _receive(connection: Connection) -> bool:
    with suppress(EOFError, ConnectionError):
        return connection.recv()
    return False


def _serve(cases: Cases, connection: Connection, log: Path) -> None:
    """Prepares, then runs the cases whose numbers arrive."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which ends this one
    with open(os.devnull, "wb") as nothing, open(log, "ab") as stderr:
        os.dup2(nothing.fileno(), 1)
        os.dup2(stderr.fileno(), 2)
    cases.prepare()
    connection.send(True)
    with suppress(EOFError):
        while True:
            connection.send(try_case(cases, connection.recv()))


def try_case(cases: Cases, number: int) -> Outcome:
    """Run a case in this process, which ends with a dump of its stack if the case takes too long."""
    forget_peak()
    noise, start = _count_lines(), time.perf_counter()
    faulthandler.dump_traceback_later(cases.find_limit(number), exit=True, file=sys.__stderr__)
    try:
        result, text = _judge(cases, number)
    finally:
        faulthandler.cancel_dump_traceback_later()
    seconds = time.perf_counter() - start
    kind, lines = cases.name_kind(number), _count_lines() - noise
    return Outcome(cases.part, number, kind, result, text, seconds, read_peak(), lines)


def _judge(cases: Cases, number: int) -> tuple[str, str]:
    try:
        cases.run(number)
    except InputError as error:
        return judge_sentence(str(error))
    except Wrong as error:
        return SILENT, str(error)
    except (Exception, SystemExit) as error:
        return TRACEBACK, "".join(traceback.format_exception(error))
    return READ, ""


def _count_lines() -> int:
    """Lines that this process has written to stderr, if that is a file."""
    sys.stderr.flush()
    with suppress(OSError):
        log = Path("/proc/self/fd/2").resolve(strict=True)
        return log.read_bytes().count(b"\n") if log.is_file() else 0
    return 0


def forget_peak() -> None:
    """Let the peak of the memory begin anew, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def read_peak() -> float:
    """Return the peak of this process' memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
