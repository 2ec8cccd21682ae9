"""The script for the first ten minutes on a GPU, run on a CPU at its smallest sizes."""

import subprocess
from contextlib import suppress

import psutil
import pytest

from benchmarks.studies.gpu_first import __main__ as script
from benchmarks.studies.gpu_first import found
from lungseg.system.files import read_json


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Stages run in this process, and their names are kept."""
    started = []

    def run(command, seconds, log):
        words = command[3:]
        started.append(words[words.index("--stage") + 1])
        with suppress(ValueError):
            script.main(words)

    monkeypatch.setattr(script, "run_in_session", run)
    return started


def find_rows(out, stage):
    return {row["what"]: row for row in read_json(out / "stages" / f"{stage}.json")["rows"]}


def test_a_dry_run_agrees_with_itself(calls, tmp_path, short_backbone):
    words = ["--device", "cpu", "--out", str(tmp_path), "--only", "agreement"]
    assert script.main(words) == 0
    assert calls == words[5:]
    assert find_rows(tmp_path, "agreement")["resizing"]["as wanted"] == "yes"
    page = (tmp_path / "table.md").read_text()
    assert "A dry run on the CPU" in page
    assert "facts: not started" in page
    assert script.main(words) == 0
    assert len(calls) == 1  # nothing is run again


def test_a_stage_that_fails_keeps_what_it_found_and_is_run_again(calls, tmp_path, monkeypatch):
    def fail(findings, scale):
        findings.add("first", "seen")
        findings.check("distance", lambda: 0.5, 1e-3)
        findings.attempt("a question", lambda: 1 / 0)
        if len(calls) == 1:
            raise ValueError("the card fell out")

    monkeypatch.setitem(script.STAGES, "facts", fail)
    words = ["--device", "cpu", "--out", str(tmp_path), "--only", "facts"]
    assert script.main(words) == 1
    assert "facts: failed" in (tmp_path / "table.md").read_text()
    rows = find_rows(tmp_path, "facts")
    assert (rows["first"]["found"], rows["distance"]["as wanted"]) == ("seen", "no")
    assert rows["a question"]["found"] == "ZeroDivisionError: division by zero"
    assert script.main(words) == 1  # it finishes, but finds what isn't wanted
    assert calls == ["facts", "facts"]
    assert "facts: failed" not in (tmp_path / "table.md").read_text()


def test_a_stage_past_its_limit_is_cut(tmp_path, monkeypatch):
    def run(command, seconds, log):
        assert seconds == script.LIMITS["ceilings"]
        found.Findings(tmp_path / "stages" / "ceilings.json").add("copy", "9 GB/s")
        raise subprocess.TimeoutExpired(command, seconds)

    monkeypatch.setattr(script, "run_in_session", run)
    assert script.main(["--device", "cpu", "--out", str(tmp_path), "--only", "ceilings"]) == 1
    page = (tmp_path / "table.md").read_text()
    assert "ceilings: time limit" in page
    assert "9 GB/s" in page


def test_a_cut_stage_takes_its_own_children_with_it(tmp_path):
    pid = tmp_path / "pid"
    log = tmp_path / "log"
    with log.open("w") as stream, pytest.raises(subprocess.TimeoutExpired):
        script.run_in_session(["sh", "-c", f"sleep 60 & echo $! > {pid}; wait"], 1.0, stream)
    child = psutil.Process(int(pid.read_text())) if psutil.pid_exists(int(pid.read_text())) else None
    if child is not None:  # killed, but nobody may have asked for its exit code yet
        with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            child.wait(5)
    assert child is None or not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_without_a_gpu_it_says_how_to_try_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        script.main(["--out", str(tmp_path)])
    assert "use --device cpu for a dry run" in capsys.readouterr().err
