"""Several models of one stage fitted at once, in threads of one process.

A tree that may read few columns keeps few threads busy, so models that wait for nothing of one another are
better grown at once than in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Event, Lock

from lungseg.learning.fit import FitContext
from lungseg.system.runtime import Runtime

Fit = Callable[[int, FitContext, int], None]


class _Stopped(Exception):
    """Another model's fit failed, or the user stopped it."""


def fit_models(fit: Fit, names: list[int], context: FitContext, runtime: Runtime, together: bool) -> None:
    """Calls `fit` with each name, a run whose progress counts over all of them, and CPU threads.

    Args:
        together: as many at once as there are threads; else one after another, with all threads.
    """
    bar = _Bar(context, len(names))
    workers = min(len(names), runtime.threads) if together else 1
    if workers > 1:
        # Each gets as many threads as the others: LightGBM keeps one number for the whole process.
        _fit_at_once(fit, names, bar, workers, runtime.threads // workers)
        return
    # In this thread, since limits on the threads of scikit-learn and of BLAS hold for the one that set them.
    for place, name in enumerate(names):
        fit(name, bar.of(place), runtime.threads)
        bar.done(place)


def _fit_at_once(fit: Fit, names: list[int], bar: _Bar, workers: int, threads: int) -> None:
    stop = Event()

    def fit_one(place: int, name: int) -> None:
        try:
            fit(name, bar.of(place, stop), threads)
            bar.done(place)
        except BaseException:
            stop.set()  # before this thread takes the next model
            raise

    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(_unless, stop, fit_one, *each) for each in enumerate(names)]
        try:
            wait(waiting, return_when=FIRST_EXCEPTION)
        except BaseException:
            stop.set()  # else an interrupt would wait for the last tree of each
            raise
    _raise_first(waiting)


def _unless(stop: Event, call: Callable[[int, int], None], place: int, name: int) -> None:
    if stop.is_set():
        raise _Stopped
    call(place, name)


def _raise_first(waiting: list[Future[None]]) -> None:
    """The error that stopped the others, if there was one, and not theirs."""
    errors = [error for each in waiting if (error := each.exception()) is not None]
    for error in errors:
        if not isinstance(error, _Stopped):
            raise error


class _Bar:
    """The progress of all models in one bar."""

    def __init__(self, context: FitContext, models: int) -> None:
        self._run, self._models = context, models
        self._shares = [0.0] * models
        self._finished = [False] * models
        self._total = 1
        self._lock = Lock()

    def of(self, place: int, stop: Event | None = None) -> FitContext:
        """The run of one model; its progress raises `_Stopped` once `stop` is set."""

        def progress(done: int, total: int, _: str) -> None:
            if stop is not None and stop.is_set():
                raise _Stopped
            with self._lock:
                self._shares[place], self._total = done / total, total
                self._move()

        return replace(self._run, progress=progress)

    def done(self, place: int) -> None:
        """A model is fitted, also one that reported no progress."""
        with self._lock:
            self._shares[place], self._finished[place] = 1.0, True
            self._move()

    def _move(self) -> None:
        passed = round(sum(self._shares) * self._total)
        text = f"{sum(self._finished)} of {self._models} models"
        self._run.progress(passed, self._total * self._models, text)
