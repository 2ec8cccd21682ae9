"""Messages and progress for the user: a bar in a terminal, a line every 15 s in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 15.0


class Reporter:
    """Prints messages and progress, to standard output if no console is given."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)

    def say(self, text: str = "") -> None:
        """Print one line, without interpreting markup."""
        self.console.print(text, markup=False)

    @contextmanager
    def bar(self, title: str) -> Iterator[Callable[[int, int, str], None]]:
        """Show progress during the `with` block, then print the seconds it took.

        Yields a function (done, total, text) that updates the progress and the time left.
        """
        start = time.perf_counter()
        if self.console.is_terminal:
            with self._rich(title) as move:
                yield move
        else:
            yield _LogProgress(title, self.say).move
        self.say(f"{title}: {time.perf_counter() - start:.1f} s")

    @contextmanager
    def _rich(self, title: str) -> Iterator[Callable[[int, int, str], None]]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=None, text="")
            yield lambda done, total, text: progress.update(task, completed=done, total=total, text=text)


class _LogProgress:
    """Prints the progress now and then, with the time left at the pace of this process."""

    def __init__(self, title: str, say: Callable[[str], None]) -> None:
        self._title, self._say = title, say
        self._printed_at = self._started_at = time.perf_counter()
        self._total: int | None = None
        self._first_done = self._last_done = 0

    def move(self, done: int, total: int, text: str) -> None:
        now = time.perf_counter()
        if total != self._total or done < self._last_done:  # a new step, whose pace is its own
            self._total, self._started_at = total, now
            self._first_done = done  # a resumed training starts with steps that cost no time here
        self._last_done = done
        if now - self._printed_at >= LINE_EVERY_S:
            self._printed_at = now
            self._say(f"  {self._title}: {done} of {total}, {self._time_left(now)}{text}")

    def _time_left(self, now: float) -> str:
        if self._last_done <= self._first_done:
            return ""
        pace = (now - self._started_at) / (self._last_done - self._first_done)
        return f"{pace * (self._total - self._last_done):.0f} s left, "
