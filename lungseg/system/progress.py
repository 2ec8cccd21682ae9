"""What a person sees while it runs: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 15.0


class Reporter:
    """Prints to standard output."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)

    def say(self, text: str = "") -> None:
        self.console.print(text, markup=False)

    @contextmanager
    def bar(self, title: str) -> Iterator[Callable[[int, int, str], None]]:
        """Gives a function (done, total, text) that moves a bar with the time left."""
        start = time.perf_counter()
        if self.console.is_terminal:
            with self._rich(title) as move:
                yield move
        else:
            yield self._lines(title, start)
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

    def _lines(self, title: str, start: float) -> Callable[[int, int, str], None]:
        printed = start
        begun, size, first, before = start, None, 0, 0

        def move(done: int, total: int, text: str) -> None:
            nonlocal printed, begun, size, first, before
            now = time.perf_counter()
            if total != size or done < before:  # another step of the same part: its pace is its own
                begun, size, first = now, total, done  # what a resumed training had done cost no time here
            before = done
            if now - printed >= LINE_EVERY_S:
                printed = now
                pace = (now - begun) / (done - first) if done > first else None
                left = "" if pace is None else f"{pace * (total - done):.0f} s left, "
                self.say(f"  {title}: {done} of {total}, {left}{text}")

        return move
