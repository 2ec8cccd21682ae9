"""Several models of one stage fitted in parallel, in threads of one process.

A tree that may read few columns keeps few threads busy. So models that don't depend on each other are fitted
faster in parallel than one after another.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Event, Lock

from lungseg.learning.fit import FitContext
from lungseg.system.runtime import Runtime

Fit = Callable[[int, FitContext, int], None]


class _Stopped(Exception):
    """Another model's fit failed, or the user stopped it."""


def fit_models(fit: Fit, names: list[int], fit_context: FitContext, runtime: Runtime, parallel: bool) -> None:
    """Fit models by calling a function with each of their names.

    `fit` gets a name, a context whose progress counts over all models, and the CPU threads to use. In
    parallel as many models are fitted at once as the runtime has threads; else one after another, with all
    threads. Raises the first error of a fit; the others are stopped at their next report of progress.
    """
    progress = _SharedProgress(fit_context, len(names))
    workers = min(len(names), runtime.threads) if parallel else 1
    if workers > 1:
        # All get the same number of threads: LightGBM keeps one number for the whole process.
        _fit_in_parallel(fit, names, progress, workers, runtime.threads // workers)
        return
    # In this thread: limits on the threads of scikit-learn and BLAS hold only for the thread that set them.
    for place, name in enumerate(names):
        fit(name, progress.make_context(place), runtime.threads)
        progress.finish(place)


def _fit_in_parallel(
    fit: Fit, names: list[int], progress: _SharedProgress, workers: int, threads: int
) -> None:
    stop = Event()

    def fit_one(place: int, name: int) -> None:
        if stop.is_set():
            raise _Stopped
        try:
            fit(name, progress.make_context(place, stop), threads)
            progress.finish(place)
        except BaseException:
            stop.set()  # before this thread takes the next model
            raise

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(fit_one, *each) for each in enumerate(names)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:
            stop.set()  # else an interrupt would wait until all models are fitted
            raise
    for error in (each.exception() for each in futures):
        if error is not None and not isinstance(error, _Stopped):
            raise error  # the one that stopped the other fits


class _SharedProgress:
    """The progress of all models in one bar."""

    def __init__(self, fit_context: FitContext, models: int) -> None:
        self._fit_context, self._models = fit_context, models
        self._shares = [0.0] * models
        self._finished = [False] * models
        self._total = 1
        self._lock = Lock()

    def make_context(self, place: int, stop: Event | None = None) -> FitContext:
        """Make the context of one model; its progress raises `_Stopped` once `stop` is set."""

        def progress(done: int, total: int, _: str) -> None:
            if stop is not None and stop.is_set():
                raise _Stopped
            with self._lock:
                self._shares[place], self._total = done / total, total
                self._report()

        return replace(self._fit_context, progress=progress)

    def finish(self, place: int) -> None:
        """Count a model as fitted, also if it reported no progress."""
        with self._lock:
            self._shares[place], self._finished[place] = 1.0, True
            self._report()

    def _report(self) -> None:
        passed = round(sum(self._shares) * self._total)
        text = f"{sum(self._finished)} of {self._models} models"
        self._fit_context.progress(passed, self._total * self._models, text)
