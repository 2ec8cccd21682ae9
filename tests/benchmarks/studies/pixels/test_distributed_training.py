"""The script `benchmarks/studies/pixels/distributed_training.py`, run tiny."""

import sys

import dask
import distributed  # noqa: F401 (else its defaults would go with what a test sets)
import pytest

from benchmarks.studies.pixels import distributed_training as script

TINY = ["--images", "17", "--size", "16", "--pixels", "200", "--trees", "4"]


@pytest.mark.usefixtures("forks")
def test_two_workers_and_one_process_give_equal_models(capsys, monkeypatch):
    monkeypatch.setattr(script, "SIDE", 32)
    monkeypatch.setattr(script, "MOST_VALIDATION", 3)
    forked = dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    with forked, pytest.raises(SystemExit) as ended:
        script.main(TINY)
    said = capsys.readouterr().out
    assert not ended.value.code
    assert "17 images on the cluster" in said
    assert "pixels of other images: 0 (equal)" in said


def test_models_that_differ_are_told_by_the_exit_code(monkeypatch):
    monkeypatch.setattr(script, "compare", lambda _: 2e-6)
    with pytest.raises(SystemExit) as ended:
        script.main(TINY)
    assert ended.value.code == 1


def test_without_dask_one_sentence_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SystemExit, match="2"):
        script.main(TINY)
    assert 'pip install -e ".[distributed]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--images", "0"], "--images is at least 1"),
        (["--trees", "0"], "rounds = 0 can't be used"),
        (["--scheduler", "tcp://127.0.0.1:9"], "nothing answers at tcp://127.0.0.1:9"),
    ],
)
def test_what_can_not_be_used_ends_in_a_sentence(words, sentence, capsys):
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
        pytest.raises(SystemExit, match="2"),
    ):
        script.main([*TINY, *words])
    assert sentence in capsys.readouterr().err
