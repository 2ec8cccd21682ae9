"""Starts the command line, ends it with a signal, and looks for what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

LONGEST = 180.0  # seconds of a command, after which it hangs
LONGEST_STOP = 60.0  # from a signal that asks a command to end, to its end
LONGEST_CHILD = 15.0  # from a command's end to that of the last process that it started
# Exit codes. Where the program can't answer yet, the system ends it, which looks the same to a shell.
STOPPED = {
    signal.SIGKILL: (-signal.SIGKILL,),
    signal.SIGTERM: (143, -signal.SIGTERM),
    signal.SIGINT: (130, -signal.SIGINT),
}


def let_interrupts_through() -> None:
    """Make commands begin with the usual answer to Ctrl-C, also where a shell has this process ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class Command:
    """A command that runs in a session of its own, by which its processes are found.

    Attributes:
        words: behind `python -m lungseg`.
        folder: for what it prints, and its cache.
    """

    words: list[str]
    folder: Path

    def start(self) -> None:
        """Start it; the state of a training is stored after every step."""
        settings = {"LUNGSEG_CHECKPOINT_SECONDS": "0", "LUNGSEG_CACHE": str(self.folder / "cache")}
        with open(self.folder / "stdout", "wb") as out, open(self.folder / "stderr", "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lungseg", *self.words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                start_new_session=True,
                env={**os.environ, **settings},
            )
        self.begun = time.monotonic()

    def finish(self) -> int | None:
        """Wait for its end and return the exit code; None if there is no end."""
        return self._wait(LONGEST)

    def stop(self, number: signal.Signals, reached: Callable[[float], bool]) -> int | None:
        """Send a signal as soon as a moment is reached, if it still runs, and return the exit code.

        Args:
            number: of the signal, which only the first process gets.
            reached: tells by the seconds since the start whether the moment has come.
        """
        while self.process.poll() is None and not reached(time.monotonic() - self.begun):
            time.sleep(0.001)
        self.hit = self.process.poll() is None
        self.stopped_after = time.monotonic() - self.begun
        if self.hit:
            self.process.send_signal(number)
        return self._wait(LONGEST_STOP)

    def _wait(self, seconds: float) -> int | None:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def end_children(self) -> list[str]:
        """Kill the processes that it left and that don't end by themselves; return their names."""
        deadline = time.monotonic() + LONGEST_CHILD
        while (left := self._list_children()) and time.monotonic() < deadline:
            time.sleep(0.05)
        names = []
        for process in left:
            with suppress(psutil.Error):
                names.append(" ".join(process.cmdline())[:200])
                process.kill()
        return names

    def _list_children(self) -> list[psutil.Process]:
        """The processes of its session that still run."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def read_errors(self) -> str:
        """Return what it wrote to stderr."""
        return (self.folder / "stderr").read_text("utf-8", errors="replace")

    def find_fault(self, code: int | None, expected: tuple[int, ...] = (0,)) -> str | None:
        """Say what is wrong with its end: the code, a traceback, a process that it left; None if nothing."""
        errors = self.read_errors()
        if code is None:
            return f"no end: {errors[-1500:]}"
        if "Traceback" in errors:
            return f"exit code {code} and a traceback: {errors[-3000:]}"
        if code not in expected:
            return f"exit code {code} instead of {expected[0]}: {errors[-1500:]}"
        left = self.end_children()
        return f"it left processes: {'; '.join(left)}" if left else None
