"""The script `benchmarks/studies/pixels/tree_libraries.py`, run tiny; what it says is fast is not tested."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from benchmarks.studies import turns
from benchmarks.studies.pixels import tree_libraries as script

TINY = ["--threads", "1", "--repeats", "2", "--size", "32", "--forest", "3", "5"]
WITHOUT = (
    "import runpy, sys; sys.modules['lleaves'] = None; del sys.argv[0]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def python(folder: Path, program: str) -> str:
    """An interpreter that runs `program` in the place of the script that it is given."""
    found = folder / "python"
    found.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{program}" "$@"\n')
    found.chmod(0o755)
    return str(found)


class ForkedScript:
    """Stands in for a Popen of `python tree_process.py ...`: the script in a forked process, without imports.

    Its input ends when the last copy of the other end is closed. A later fork holds one: end it first.
    """

    def __init__(self, words: list[str]) -> None:
        (read, self._write), (self._read, write) = os.pipe(), os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            run_script(words, read, write, (self._write, self._read))
        for end in (read, write):
            os.close(end)
        self.stdin, self.stdout = open(self._write, "w"), open(self._read)  # noqa: SIM115 (kept)

    def wait(self) -> None:
        os.waitpid(self._pid, 0)


def run_script(words: list[str], read: int, write: int, others: tuple[int, int]) -> None:
    """Run a script in this forked process, and end it."""
    code = 1
    try:
        for end in others:
            os.close(end)
        torch.set_num_threads(1)  # OpenMP's threads don't survive a fork
        os.dup2(read, 0)
        os.dup2(write, 1)
        os.close(write)
        sys.stdin, sys.argv = open(0), words  # noqa: SIM115 (kept)
        runpy.run_path(words[0], run_name="__main__")
        code = 0
    finally:
        os._exit(code)


@pytest.fixture
def forked(monkeypatch) -> None:
    """Fork the processes of this interpreter; one that `--python` names is started as always."""

    def start(words: list[str], **options) -> ForkedScript | subprocess.Popen:
        return ForkedScript(words[1:]) if words[0] == sys.executable else subprocess.Popen(words, **options)

    # Its name alone: others start programs, too.
    monkeypatch.setattr(script, "subprocess", SimpleNamespace(PIPE=subprocess.PIPE, Popen=start))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.usefixtures("forked")
def test_engines_agree_and_a_library_that_is_absent_says_how_to_install_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(turns, "ROUNDS", 2)
    words = ["--libraries", "lungseg", "lleaves", "--python", f"lleaves={python(tmp_path, WITHOUT)}"]
    script.main([*TINY, *words, "--out", str(tmp_path)])
    table = pd.read_csv(tmp_path / "table.csv").set_index("library")
    assert table.index.tolist() == ["lightgbm", "lungseg", "lleaves"]
    assert (table["million rows/s"].iloc[:2] > 0).all()
    assert table.loc["lungseg", "largest difference of raw scores"] < 1e-6
    assert "llvmlite<0.45" in table.loc["lleaves", "why empty"]
    assert "1,024 rows, all pixels at 32 x 32 of 1 image, phantoms" in capsys.readouterr().out


def test_libraries_that_are_not_equal_to_lightgbm_are_named():
    table = pd.DataFrame(
        {
            "library": ["lightgbm", "lungseg", "onnxruntime", "lleaves"],
            "threads": [1, 1, 1, None],
            "million rows/s": [0.1, 0.5, 0.2, None],
            "largest difference of raw scores": [None, 1e-15, 2e-6, None],
        }
    )
    fastest, different = script.describe_results(table)
    assert fastest == "Fastest with 1 thread: lungseg, 0.5 million rows/s."
    assert different == "Raw scores farther than 1e-06 from LightGBM's own: onnxruntime."


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--python", "lightgbm=/nowhere"], "--python lightgbm=/nowhere can't be run"),
        (["--python", "lightgbm=/bin/true"], "the process of lightgbm ended early"),
        (["--python", "treelite=/bin/true"], "give LIBRARY=PATH"),
        (["--forest", "3", "1"], "the LEAVES of --forest at least 2"),
        (["--repeats", "0"], "--repeats, --images"),
    ],
)
def test_what_can_not_be_used_ends_in_a_sentence(words, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        script.main([*TINY, *words, "--out", str(tmp_path)])
    assert sentence in capsys.readouterr().err
