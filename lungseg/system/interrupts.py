"""End on SIGINT and SIGTERM without losing work: where a state is half made, the signal waits."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal asked this process to end. No KeyboardInterrupt, which a command line library would keep.

    Attributes:
        exit_code: what a shell expects of a process that a signal ended.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def raise_on_signals() -> None:
    """Make SIGINT and SIGTERM raise Interrupted in the main thread, so that everything is cleaned up.

    A signal that the caller has this process ignore, as a shell does in the background, stays ignored.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def read_handlers() -> dict[int, Callable | int]:
    """Return what SIGINT and SIGTERM do now, as far as Python may change it: nothing in other threads."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in SIGNALS}
    return {number: handler for number, handler in found.items() if handler is not None}


@contextmanager
def delay_interrupts() -> Iterator[Callable[[], bool]]:
    """Keep signals waiting during the `with` block; at its end they do what they did before it.

    Yields a function that tells whether a signal waits: a loop asks it where its state is whole, stores that
    and ends. A second signal doesn't wait. In another thread than the main one, where signals never arrive,
    nothing is done.
    """
    waiting: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        if waiting:
            give_back()
        waiting.append(number)

    def give_back() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)
        if waiting:  # also if the block raised something else: who asked to stop wants no next step
            signal.raise_signal(waiting.pop())

    # One that is ignored stays so.
    former = {n: signal.signal(n, keep) for n, now in read_handlers().items() if now is not signal.SIG_IGN}
    try:
        yield lambda: bool(waiting)
    finally:
        give_back()
