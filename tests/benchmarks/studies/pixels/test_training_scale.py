"""The study of training at scale, run on one image; no figure of time or memory is tested."""

import io
import runpy
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout

import pandas as pd
import pytest

from benchmarks.studies.pixels import training_scale as scale

ONE = ["--rows", "16384", "--plain-up-to", "0", "--threads", "1"]


@pytest.fixture(autouse=True)
def _few_phantoms(monkeypatch):
    monkeypatch.setattr(scale, "PHANTOMS", 3)


@pytest.fixture
def measured(monkeypatch):
    """Points are made up instead of measured, and counted."""
    calls = []

    def invent(how, images, threads, scratch):
        calls.append((how, images))
        found = {f"{step} s": 1.0 for step in scale.STEPS} | {"seconds": 4.0, "loss": 0.1}
        return found | {"resident MiB": 1024.0 * len(calls), "anonymous MiB": 512.0}

    monkeypatch.setattr(scale, "measure_point", invent)
    monkeypatch.setattr(scale, "draw", lambda *_: None)
    return calls


def run_module(words: list[str]) -> str:
    """Run what `python -m` would run, in this process; return what it prints."""
    sys.argv = words
    with redirect_stdout(io.StringIO()) as out:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    return out.getvalue()


def test_a_point_is_measured_in_a_process_of_its_own(forks, tmp_path, capsys, monkeypatch):
    def run(words: list[str], **_) -> subprocess.CompletedProcess:
        assert words[:2] == [sys.executable, "-m"]
        with ProcessPoolExecutor(1, forks) as pool:
            return subprocess.CompletedProcess(words, 0, pool.submit(run_module, words[2:]).result())

    monkeypatch.setattr(scale.subprocess, "run", run)
    scale.main([*ONE, "--out", str(tmp_path)])
    row = pd.read_csv(tmp_path / "table.csv").iloc[0]
    assert (row["trained on"], row["images"], row["rows"]) == ("codes", 1, 16384)
    assert row["seconds"] == pytest.approx(row[[f"{step} s" for step in scale.STEPS]].sum())
    assert (row[["training s", "GiB", "anonymous GiB"]] > 0).all()
    assert 0 < row["loss"] < 0.25  # of the mean alone at worst: it has learnt
    assert "images of phantom" in capsys.readouterr().out
    assert (tmp_path / "curve.png").exists()


def test_a_second_run_reads_what_the_first_stored_and_measures_the_rest(measured, tmp_path):
    scale.main([*ONE, "--out", str(tmp_path)])
    wanted = ["--rows", "16384", "32768", "--plain-up-to", "16384", "--threads", "1"]
    scale.main([*wanted, "--out", str(tmp_path)])
    assert measured == [("codes", 1), ("plain", 1), ("codes", 2)]
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["trained on"].tolist() == ["codes", "codes", "float32 rows"]
    assert table["GiB"].tolist() == [1, 3, 2]


@pytest.mark.parametrize("what", ["hash_own_code", "list_versions", "describe_cpu"])
def test_what_other_code_or_libraries_or_another_processor_measured_is_measured_again(
    what, measured, tmp_path, monkeypatch
):
    scale.main([*ONE, "--out", str(tmp_path)])
    with monkeypatch.context() as patch:
        patch.setattr(scale, what, lambda: "another")
        scale.main([*ONE, "--out", str(tmp_path)])
    assert len(measured) == 2
    assert pd.read_csv(tmp_path / "table.csv")["GiB"].tolist() == [2]


@pytest.mark.parametrize(
    ("code", "sentence"), [(-9, "was killed, most likely for memory"), (1, "failed with exit code 1")]
)
def test_a_point_whose_process_dies_ends_in_a_sentence(code, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        scale.subprocess, "run", lambda words, **_: subprocess.CompletedProcess(words, code, "")
    )
    with pytest.raises(SystemExit, match="2"):
        scale.main([*ONE, "--out", str(tmp_path)])
    assert f"codes of 1 images {sentence}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--rows", "0"], "--rows and --threads are at least 1"),
        (["--rows", "99999999"], "--rows: phantom has"),
    ],
)
def test_rows_that_there_are_not_end_in_a_sentence(words, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        scale.main([*words, "--out", str(tmp_path)])
    assert sentence in capsys.readouterr().err


def test_a_wrong_folder_of_data_ends_in_a_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LUNGSEG_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="2"):
        scale.main([*ONE, "--out", str(tmp_path)])
    assert "LUNGSEG_DATA names" in capsys.readouterr().err
