"""The script `benchmarks/studies/deeplab/killed_training.py`, whose benchmarks are short and are forked."""

import os
import re
import subprocess
import sys
from importlib import import_module
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from types import SimpleNamespace

import pandas as pd
import pytest

from benchmarks.studies.deeplab import killed_training as study
from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusResNet50
from lungseg.system.hashing import find_reached_modules, hash_code
from tests.short_backbone import SHORT


class Forked:
    """Stands in for a Popen of `python -m lungseg ...`: the same command in a forked process."""

    def __init__(self, forks: BaseContext, command: list[str], env: dict[str, str]) -> None:
        assert command[1:3] == ["-m", "lungseg"]
        self._process = forks.Process(target=run_command, args=(command[3:], env))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("lungseg", timeout)

    def communicate(self) -> tuple[bytes, bytes]:
        self._process.join()
        return b"", b""


def run_command(words: list[str], env: dict[str, str]) -> None:
    """Run the command line in this process, with a small network, no estimate of the time, and no figures."""
    from lungseg import cli
    from lungseg.approaches.deeplabv3plus import approach, network
    from lungseg.report import write

    os.setsid()
    os.environ.update(env)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = ["lungseg", *words]
    vars(network).update(SHORT)
    approach.DeepLabV3PlusResNet50.estimate = lambda *_: None
    write.draw_figures = lambda contents: []
    cli.main()


@pytest.mark.skipif("fork" not in get_all_start_methods(), reason="no fork here")
def test_weights_after_kills_are_those_of_an_uninterrupted_run(capsys, tmp_path, monkeypatch):
    forks = get_context("fork")
    for name in find_reached_modules("lungseg.harness.run", DeepLabV3PlusResNet50):
        import_module(name)  # once, not in each fork
    hash_code(DeepLabV3PlusResNet50)  # parsed once, likewise

    def start(command, *, start_new_session, env, **_) -> Forked:
        assert start_new_session
        return Forked(forks, command, env)

    # Its name alone: forked processes start programs, too.
    monkeypatch.setattr(study, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": start}))
    words = ["--kills", "2", "--images", "9", "--epochs", "2", "--size", "48", "--longest", "0.01"]
    words += ["--topology", "seed"]  # the smallest to store
    assert study.main([*words, "--out", str(tmp_path)]) == 0
    found = re.findall(r"s after a first step, stored: (\d+) epochs and (\d+) steps", capsys.readouterr().out)
    assert (0, 0) < tuple(map(int, found[0])) < tuple(map(int, found[1]))  # else it would have started over
    assert len(pd.read_csv(tmp_path / "table.csv")) == 2
    assert (tmp_path / "table.md").read_text().count("the same bits") == 2


def test_the_command_is_run_by_a_new_interpreter_and_a_failure_is_quoted(tmp_path):
    process = study.start(tmp_path / "absent.toml", tmp_path / "out")
    assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
    with pytest.raises(SystemExit, match=r"the benchmark ended with 2: lungseg: .*absent\.toml"):
        study.finish(process)


def command(program: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", program],
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


@pytest.fixture
def invent(monkeypatch):
    """Sets what the kills of a study reach, without any training."""

    def set_places(*places: list[tuple[int, int]] | None) -> None:
        reached = iter(places)
        monkeypatch.setattr(study, "finish", lambda process: process)
        monkeypatch.setattr(study, "start", lambda spec, out: None)
        monkeypatch.setattr(study, "time_training", lambda process, out: (0.0, 1.0))
        monkeypatch.setattr(study, "kill_once", lambda *words: next(reached))

    return set_places


@pytest.mark.parametrize("places", [[[(0, 0), (0, 2)]], [[(0, 1), (1, 2)], [(0, 1), (2, 2)]]])
def test_a_training_that_starts_over_is_said(places, invent, capsys, tmp_path):
    invent(*places)
    assert study.main(["--kills", "3", "--out", str(tmp_path)]) == 1
    assert "it did not go on" in capsys.readouterr().out


@pytest.mark.parametrize(("kills", "places"), [(0, [None]), (1, [[(0, 1), (3, 0)], [(3, 0), (3, 0)]])])
def test_a_training_that_ends_too_soon_is_said(kills, places, invent, capsys, tmp_path):
    invent(*places)
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
