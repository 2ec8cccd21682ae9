"""What a log says of the time left, and the line of a narrow terminal."""

import io
import re
import time

import pytest
from rich.console import Console

from lungseg.system import progress
from lungseg.system.progress import Reporter


@pytest.fixture
def at(monkeypatch):
    """A function that sets the clock, in seconds."""
    clock = {"now": 0.0}
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock["now"])
    return lambda seconds: clock.update(now=float(seconds))


def lines(moves, at):
    """What a bar prints to a log that is moved by `moves`, a list of (seconds, done, total)."""
    out = io.StringIO()
    with Reporter(Console(file=out, soft_wrap=True)).bar("fit") as move:
        for seconds, done, total in moves:
            at(seconds)
            move(done, total, "loss 0.1")
    return out.getvalue().splitlines()[:-1]


@pytest.mark.parametrize(
    ("moves", "last"),
    [
        ([(0, 0, 100), (20, 10, 100)], "10 of 100, 180 s left, loss 0.1"),
        # 900 of 1000 were done by a process before this one: what's left goes at this one's pace, 10 in 20 s.
        ([(5, 900, 1000), (25, 910, 1000)], "910 of 1000, 180 s left, loss 0.1"),
        # Another step of the same part begins anew.
        ([(0, 0, 100), (20, 100, 100), (30, 0, 40), (40, 10, 40)], "10 of 40, 30 s left, loss 0.1"),
        ([(20, 900, 1000)], "900 of 1000, loss 0.1"),  # no pace is known yet
    ],
)
def test_the_time_left_follows_the_pace_of_this_process(at, moves, last):
    assert lines(moves, at)[-1] == f"  fit: {last}"


LABEL, LONG = "deeplabv3plus-128, fold 0, seed 0", "epoch 2 of 8, loss 0.6056, Dice 0.7812, validation"


def last_frame(width, title, short=None, text=LONG):
    """What a terminal of that width shows last, after 3 of 8 steps."""
    out = io.StringIO()
    console = Console(width=width, force_terminal=True, file=out, soft_wrap=True)
    with Reporter(console).bar(title, short) as move:
        move(3, 8, text)
    lines = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()))
    assert max(map(len, lines)) <= width  # nothing is wrapped
    return next(line for line in reversed(lines) if "%" in line)


@pytest.mark.parametrize(
    ("width", "short", "start", "end"),
    [
        (200, None, LABEL + " ━━━", f" {LONG}"),
        (80, None, LABEL + "  38 % ", " epoch 2 of 8, loss…"),
        (80, LABEL[:17], "deeplabv3plus-128  38 % ", " epoch 2 of 8, loss 0.6056, Dice 0.…"),
        (60, None, LABEL + "  38 % ", "-:--:--"),  # several trials: which one it is comes before the text
        (60, LABEL[:17], "deeplabv3plus-128  38 % ", " epoch 2 of 8, …"),
        (50, None, "deepla…, fold 0, seed 0  38 % ", "-:--:--"),
    ],
)
def test_the_text_is_cut_and_never_percent_and_times(width, short, start, end):
    shown = last_frame(width, LABEL, short)
    assert shown.startswith(start)
    assert re.search(r" 38 % 0:00:\d\d left -:--:--", shown)
    assert shown.endswith(end)


def test_a_line_of_what_takes_longer_than_a_blink(monkeypatch):
    monkeypatch.setattr(progress, "BLINK_S", 0.01)
    out = io.StringIO()
    reporter = Reporter(Console(file=out))
    with reporter.waiting("estimating"):
        deadline = time.monotonic() + 10
        while not out.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert out.getvalue() == "estimating\n"
    monkeypatch.setattr(progress, "BLINK_S", 60)
    with reporter.waiting("a blink"):
        pass
    assert "blink" not in out.getvalue()
