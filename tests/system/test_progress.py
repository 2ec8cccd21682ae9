"""What a log says of the time left."""

import io

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
