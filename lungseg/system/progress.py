"""Messages and progress for the user: a line that moves in a terminal, a line every 15 s in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task
from rich.text import Text

LINE_EVERY_S = 15.0
BLINK_S = 0.5
BAR_CELLS, TEXT_CELLS = 24, 20  # of the bar, and what the text gets before the title or the bar takes room


class Reporter:
    """Prints messages and progress, to standard output if no console is given."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)

    def say(self, text: str = "") -> None:
        """Print one line, without interpreting markup."""
        self.console.print(text, markup=False)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Print a line if the `with` block takes more than half a second."""
        timer = threading.Timer(BLINK_S, self.say, [text])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextmanager
    def bar(self, title: str, short: str | None = None) -> Iterator[Callable[[int, int, str], None]]:
        """Show progress during the `with` block, then print the seconds it took.

        Yields a function (done, total, text) that updates the progress and the time left. `short` stands for
        the title where a terminal is too narrow for it.
        """
        start = time.perf_counter()
        if self.console.is_terminal:
            with self._rich(title, short or title) as move:
                yield move
        else:
            yield _LogProgress(title, self.say).move
        self.say(f"{title}: {time.perf_counter() - start:.1f} s")

    @contextmanager
    def _rich(self, title: str, short: str) -> Iterator[Callable[[int, int, str], None]]:
        line = _Line(self.console, short)
        with Progress(line, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=None, text="")
            yield lambda done, total, text: progress.update(task, completed=done, total=total, text=text)


class _Line(ProgressColumn):
    """Title, bar, percent, times and text on one line: the text is cut first, percent and times never."""

    def __init__(self, console: Console, short: str) -> None:
        super().__init__()
        self._console, self._short = console, short

    def render(self, task: Task) -> Text:
        times = f"{_format_seconds(task.elapsed)} left {_format_seconds(task.time_remaining)}"
        numbers = f"{task.percentage:3.0f} % {times}"
        room = self._console.width - len(numbers) - 1
        wants_short = cell_len(task.description) + 1 + TEXT_CELLS > room
        title = _cut_title(self._short if wants_short else task.description, room)
        room -= cell_len(title) + 1
        line = Text(title, no_wrap=True, overflow="ellipsis")
        if room > BAR_CELLS + TEXT_CELLS:
            room -= BAR_CELLS + 1
            filled = int(BAR_CELLS * task.percentage / 100)
            line.append(" ")
            line.append("━" * filled, "bar.complete").append("━" * (BAR_CELLS - filled), "bar.back")
        line.append(f" {numbers}")
        if room > 1:
            text = Text(task.fields["text"])
            text.truncate(room, overflow="ellipsis")
            line.append(f" {text.plain}")
        return line


def _cut_title(title: str, room: int) -> str:
    """A title of at most `room` cells; of a trial's, the name is cut and the fold and seed stay."""
    name, comma, rest = title.partition(", ")
    missing = cell_len(title) - room
    if missing > 0 and cell_len(name) > missing + 1:
        cut = Text(name)
        cut.truncate(cell_len(name) - missing, overflow="ellipsis")
        return cut.plain + comma + rest
    cut = Text(title)
    cut.truncate(max(1, room), overflow="ellipsis")
    return cut.plain


def _format_seconds(seconds: float | None) -> str:
    return "-:--:--" if seconds is None else str(timedelta(seconds=int(seconds)))


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
