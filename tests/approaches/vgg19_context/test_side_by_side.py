from dataclasses import replace
from threading import Barrier

import pytest

from lungseg.approaches.vgg19_context import side_by_side
from lungseg.approaches.vgg19_context.side_by_side import fit_models


def test_models_are_fitted_at_once_and_share_the_threads(runtime, new_run):
    meeting, seen = Barrier(3, timeout=20), []

    def fit(name, run, threads):
        meeting.wait()  # passes only if all three are here
        seen.append((name, threads))

    fit_models(fit, [0, 1, -1], new_run(), replace(runtime, threads=7), together=True)
    assert sorted(seen) == [(-1, 2), (0, 2), (1, 2)]


def test_alone_each_has_all_threads_in_their_order(runtime, new_run):
    seen = []
    fit_models(
        lambda name, run, threads: seen.append((name, threads)),
        [0, 1, -1],
        new_run(),
        replace(runtime, threads=7),
        together=False,
    )
    assert seen == [(0, 7), (1, 7), (-1, 7)]


def test_progress_counts_over_all_models(runtime, new_run):
    seen = []
    run = replace(new_run(), progress=lambda *words: seen.append(words))

    def fit(name, own, threads):
        if name == 0:  # the other one says nothing until it is done
            own.progress(1, 4, "a tree")
            own.progress(4, 4, "a tree")

    fit_models(fit, [0, 1], run, runtime, together=False)
    assert seen == [
        (1, 8, "0 of 2 models"),
        (4, 8, "0 of 2 models"),
        (4, 8, "1 of 2 models"),
        (8, 8, "2 of 2 models"),
    ]


def test_one_that_fails_ends_the_others_at_their_next_step(runtime, new_run):
    both, begun, steps = Barrier(2, timeout=20), [], []

    def fit(name, run, threads):
        begun.append(name)
        both.wait()
        if name == 1:
            raise MemoryError("of this one")
        while len(steps) < 10**6:
            steps.append(name)
            run.progress(1, 2, "a tree")

    with pytest.raises(MemoryError, match="of this one"):
        fit_models(fit, [0, 1, 2, 3], new_run(), replace(runtime, threads=2), together=True)
    assert len(steps) < 10**6  # it was ended before it was done
    assert sorted(begun) == [0, 1]


def test_an_interrupt_that_meets_the_progress_comes_through(runtime, new_run):
    def interrupt(*words):
        raise KeyboardInterrupt

    run = replace(new_run(), progress=interrupt)
    for together in (True, False):
        with pytest.raises(KeyboardInterrupt):
            fit_models(
                lambda name, own, threads: own.progress(1, 2, "a tree"),
                [0, 1],
                run,
                replace(runtime, threads=2),
                together,
            )


def test_an_interrupt_while_waiting_ends_all_models(runtime, new_run, monkeypatch):
    both, steps = Barrier(3, timeout=20), []

    def fit(name, run, threads):
        both.wait()
        while len(steps) < 10**6:
            steps.append(name)
            run.progress(1, 2, "a tree")

    def interrupted(*words, **more):
        both.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_models(fit, [0, 1], new_run(), replace(runtime, threads=2), together=True)
    assert len(steps) < 10**6
