import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
study = importlib.import_module("killed_training")


def test_weights_after_kills_are_those_of_an_uninterrupted_run(capsys):
    words = ["--kills", "2", "--epochs", "6", "--size", "32", "--longest", "1.5"]
    assert study.main(words) == 0
    out = capsys.readouterr().out
    assert out.count("the same bits") == 2
    assert out.count("killed") == 2


def test_a_training_that_ends_too_soon_is_said(capsys, monkeypatch):
    monkeypatch.setattr(study, "finish", lambda process: process)
    monkeypatch.setattr(study, "start", lambda spec, out: None)
    monkeypatch.setattr(study, "seconds_of_training", lambda process, out: (0.0, 1.0))
    monkeypatch.setattr(study, "kill_once", lambda *words: None)
    assert study.main(["--kills", "1"]) == 1
    assert "trained after 0 kills" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--kills", "0"], ["--size", "8"], ["--longest", "0"]])
def test_numbers_that_can_not_be_used_end_in_a_sentence(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        study.main(words)
    assert "at least 1" in capsys.readouterr().err
