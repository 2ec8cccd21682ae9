import re
import subprocess
import sys

import pandas as pd
import pytest

from benchmarks.studies.deeplab import killed_training as study


def test_weights_after_kills_are_those_of_an_uninterrupted_run(capsys, tmp_path):
    words = ["--kills", "2", "--epochs", "2", "--size", "48", "--longest", "0.2", "--out", str(tmp_path)]
    assert study.main(words) == 0
    found = re.findall(r"s after a first step, stored: (\d+) epochs and (\d+) steps", capsys.readouterr().out)
    assert (0, 0) < tuple(map(int, found[0])) < tuple(map(int, found[1]))  # else it would have started over
    assert len(pd.read_csv(tmp_path / "table.csv")) == 2
    assert (tmp_path / "table.md").read_text().count("the same bits") == 2


def command(*words) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_a_run_that_ends_by_itself_was_trained(tmp_path, monkeypatch):
    (tmp_path / study.FITTED).parent.mkdir(parents=True)
    (tmp_path / study.FITTED).touch()
    monkeypatch.setattr(study, "start", lambda spec, out: command("pass"))
    assert study.kill_once(tmp_path, tmp_path, 60) is None


def test_a_run_that_fails_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "start", lambda spec, out: command("import sys; sys.exit('the disk is full')"))
    with pytest.raises(SystemExit, match="ended with 1: the disk is full"):
        study.kill_once(tmp_path, tmp_path, 60)


@pytest.mark.parametrize("places", [[[(0, 0), (0, 2)]], [[(0, 1), (1, 2)], [(0, 1), (2, 2)]]])
def test_a_training_that_starts_over_is_said(places, capsys, monkeypatch, tmp_path):
    reached = iter(places)
    monkeypatch.setattr(study, "finish", lambda process: process)
    monkeypatch.setattr(study, "start", lambda spec, out: None)
    monkeypatch.setattr(study, "seconds_of_training", lambda process, out: (0.0, 1.0))
    monkeypatch.setattr(study, "kill_once", lambda *words: next(reached))
    assert study.main(["--kills", "3", "--out", str(tmp_path)]) == 1
    assert "it did not go on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kills", "places"), [(0, iter([None])), (1, iter([[(0, 1), (3, 0)], [(3, 0), (3, 0)]]))]
)
def test_a_training_that_ends_too_soon_is_said(kills, places, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(study, "finish", lambda process: process)
    monkeypatch.setattr(study, "start", lambda spec, out: None)
    monkeypatch.setattr(study, "seconds_of_training", lambda process, out: (0.0, 1.0))
    monkeypatch.setattr(study, "kill_once", lambda *words: next(places))
    assert study.main(["--kills", "9", "--epochs", "3", "--out", str(tmp_path)]) == 1
    assert f"trained after {kills} kills" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--kills", "0"], ["--size", "8"], ["--longest", "0"], ["--threads", "0"]])
def test_numbers_that_can_not_be_used_end_in_a_sentence(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        study.main(words)
    assert "at least 1" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_said_before_anything_is_trained(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "start", lambda spec, out: pytest.fail("trained for nothing"))
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        study.main(["--out", str(tmp_path / "file" / "out")])
    assert "file" in capsys.readouterr().err
