from dataclasses import replace
from threading import Barrier

import pytest

from lungseg.approaches.vgg19_context import parallel_fits
from lungseg.approaches.vgg19_context.parallel_fits import fit_models


def test_models_are_fitted_at_once_and_share_the_threads(runtime, new_fit_context):
    meeting, seen = Barrier(3, timeout=20), []

    def fit(name, fit_context, threads):
        meeting.wait()  # passes only if all three are here
        seen.append((name, threads))

    fit_models(fit, [0, 1, -1], new_fit_context(), replace(runtime, threads=7), parallel=True)
    assert sorted(seen) == [(-1, 2), (0, 2), (1, 2)]


def test_alone_each_has_all_threads_in_their_order(runtime, new_fit_context):
    seen = []
    fit_models(
        lambda name, fit_context, threads: seen.append((name, threads)),
        [0, 1, -1],
        new_fit_context(),
        replace(runtime, threads=7),
        parallel=False,
    )
    assert seen == [(0, 7), (1, 7), (-1, 7)]


def test_progress_counts_over_all_models(runtime, new_fit_context):
    seen = []
    fit_context = replace(new_fit_context(), progress=lambda *words: seen.append(words))

    def fit(name, own, threads):
        if name == 0:  # the other one says nothing until it is done
            own.progress(1, 4, "a tree")
            own.progress(4, 4, "a tree")

    fit_models(fit, [0, 1], fit_context, runtime, parallel=False)
    assert seen == [
        (1, 8, "0 of 2 models"),
        (4, 8, "0 of 2 models"),
        (4, 8, "1 of 2 models"),
        (8, 8, "2 of 2 models"),
    ]


def test_one_that_fails_ends_the_others_at_their_next_step(runtime, new_fit_context):
    both, begun, steps = Barrier(2, timeout=20), [], []

    def fit(name, fit_context, threads):
        begun.append(name)
        both.wait()
        if name == 1:
            raise MemoryError("of this one")
        while len(steps) < 10**6:
            steps.append(name)
            fit_context.progress(1, 2, "a tree")

    with pytest.raises(MemoryError, match="of this one"):
        fit_models(fit, [0, 1, 2, 3], new_fit_context(), replace(runtime, threads=2), parallel=True)
    assert len(steps) < 10**6  # it was ended before it was done
    assert sorted(begun) == [0, 1]


def test_an_interrupt_that_meets_the_progress_comes_through(runtime, new_fit_context):
    def interrupt(*words):
        raise KeyboardInterrupt

    fit_context = replace(new_fit_context(), progress=interrupt)
    for together in (True, False):
        with pytest.raises(KeyboardInterrupt):
            fit_models(
                lambda name, own, threads: own.progress(1, 2, "a tree"),
                [0, 1],
                fit_context,
                replace(runtime, threads=2),
                together,
            )


def test_an_interrupt_while_waiting_ends_all_models(runtime, new_fit_context, monkeypatch):
    both, steps = Barrier(3, timeout=20), []

    def fit(name, fit_context, threads):
        both.wait()
        while len(steps) < 10**6:
            steps.append(name)
            fit_context.progress(1, 2, "a tree")

    def interrupted(*words, **more):
        both.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(parallel_fits, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_models(fit, [0, 1], new_fit_context(), replace(runtime, threads=2), parallel=True)
    assert len(steps) < 10**6
