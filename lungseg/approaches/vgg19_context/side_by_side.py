"""Several models of one stage fitted at once, a thread each.

Growing a tree on few columns hardly gains from a second thread; two trees of two models take two threads as
well as one takes one.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Event, Lock

from lungseg.approaches.approach import Run, Runtime


class _Stopped(Exception):
    """Another model's fit failed, or the user stopped it."""


def fit_models(
    fit: Callable[[int, Run, int], None], names: list[int], run: Run, runtime: Runtime, together: bool
) -> None:
    """Calls `fit` with each name, a run whose progress counts over all of them, and CPU threads.

    Args:
        together: as many at once as there are threads; else one after another, with all threads.
    """
    workers = min(len(names), runtime.threads) if together else 1
    counted = _Counted(run, len(names))
    with ThreadPoolExecutor(workers) as pool:
        waiting = [
            pool.submit(fit, name, counted.of(place), max(1, runtime.threads // workers))
            for place, name in enumerate(names)
        ]
        try:
            done, _ = wait(waiting, return_when=FIRST_EXCEPTION)
        finally:
            # Without this the others would go on to their last tree, and an interrupt wait for them.
            counted.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
    for each in done:
        each.result()


class _Counted:
    """The progress of all models in one bar."""

    def __init__(self, run: Run, models: int) -> None:
        self.stop = Event()
        self._run, self._models = run, models
        self._done = [0.0] * models
        self._lock = Lock()

    def of(self, place: int) -> Run:
        def progress(done: int, total: int, _: str) -> None:
            if self.stop.is_set():
                raise _Stopped
            with self._lock:
                self._done[place] = done / total
                passed = round(sum(self._done) * total)
                self._run.progress(passed, total * self._models, self._text())

        return replace(self._run, progress=progress)

    def _text(self) -> str:
        return f"{sum(done >= 1 for done in self._done)} of {self._models} models"
