"""A results directory is claimed, or refused."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lungseg.harness.plan import make_plan
from lungseg.harness.run import benchmark
from lungseg.report.write import write_report
from lungseg.results import FORMAT
from lungseg.spec import read_spec
from lungseg.system.errors import InputError
from lungseg.system.lock import hold_folder, require_free
from lungseg.system.stored import write_record
from tests.tiny import NO_TIMING

pytestmark = pytest.mark.usefixtures("without_figures")


def test_directories_that_hold_something_else_are_refused(spec_file, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(InputError, match="holds no benchmark"):
            benchmark(read_spec(spec_file), out, fresh=fresh)
    assert (out / "thesis.tex").read_text() == "years of work"

    (out / "thesis.tex").unlink()
    write_record(out / "run.json", {"format": FORMAT, "name": "another"})
    with pytest.raises(InputError, match="results of 'another'"):
        benchmark(read_spec(spec_file), out)
    write_record(out / "run.json", {"format": FORMAT + 1, "name": "tiny"})
    with pytest.raises(InputError, match="another version: start over in it with --fresh"):
        benchmark(read_spec(spec_file), out)
    (out / "run.json").write_text(json.dumps({"format": 2, "name": "tiny"}))  # before they had hashes
    with pytest.raises(InputError, match="another version: start over in it with --fresh"):
        benchmark(read_spec(spec_file), out)
    for text in ("{ half", "", json.dumps({"name": "tiny", "made_by": "another tool"})):
        (out / "run.json").write_text(text)
        (out / "models").mkdir(exist_ok=True)
        for fresh in (False, True):
            with pytest.raises(InputError, match="holds no benchmark: choose another folder"):
                benchmark(read_spec(spec_file), out, fresh=fresh)
        assert (out / "models").is_dir()


@pytest.mark.parametrize("state", ["damaged", "missing", "a kill's"])
def test_without_its_run_json_a_results_directory_goes_on_from_its_trials(spec_file, finished, state, capsys):
    out, spec = finished, read_spec(spec_file, NO_TIMING)
    scores = (out / "scores.csv").read_bytes()
    match state:
        case "damaged":
            (out / "run.json").write_text("")
        case "missing":
            (out / "run.json").unlink()
        case "a kill's":
            (out / "run.json").rename(out / ".run.json.0123abcd.part")
    benchmark(spec, out)
    assert capsys.readouterr().out.count("stored by a former run") == 3
    assert (out / "scores.csv").read_bytes() == scores


@pytest.mark.report
def test_a_kill_before_run_json_leaves_a_folder_that_can_be_used(spec_file, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in (".lock", ".lock.json", ".run.json.0123abcd.part", "..lock.json.0123abcd.part"):
        (out / name).write_text("{")
    benchmark(read_spec(spec_file, NO_TIMING), out)
    assert (out / "summary.md").exists()
    assert not list(out.glob(".*.part"))


def test_fresh_removes_what_is_ours_and_nothing_else(spec_file, finished, tmp_path):
    out, theirs = finished, tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "atlas.png").write_text("theirs")
    kept = [
        "notes.txt",
        "figures/mine.png",
        "trials/notes.txt",
        "predictions/mine/a.png",
        "models/best/m.txt",
    ]
    for name in kept:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    shutil.rmtree(out / "models/pixels/f0-s0")
    (out / "models/pixels/f0-s0").symlink_to(theirs)
    stale = [out / "trials/gone/f0-s0/fit.json", out / "parts/old/f0-s0/part.json", out / "figures/dice.png"]
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("stale")
    benchmark(read_spec(spec_file, NO_TIMING), out, fresh=True)
    assert [name for name in kept if (out / name).read_text() == "mine"] == kept
    assert (theirs / "atlas.png").read_text() == "theirs"
    assert not any(path.exists() for path in stale)
    assert not (out / "parts").exists()
    assert not (out / "models/pixels/f0-s0").is_symlink()


def test_fresh_follows_no_link_and_takes_no_file_of_a_like_name(spec_file, finished, tmp_path):
    theirs = tmp_path / "theirs"
    for name in ("pixels/f0-s0/model", "dice.png", "pixels/final-scores.txt"):
        (theirs / name).parent.mkdir(parents=True, exist_ok=True)
        (theirs / name).write_text("theirs")
    for name in ("trials", "figures"):
        shutil.rmtree(finished / name, ignore_errors=True)
        (finished / name).symlink_to(theirs)
    shutil.rmtree(finished / "models/pixels")
    (finished / "models/pixels").symlink_to(theirs / "pixels")
    mine = [finished / name for name in ("models/mean-mask/final-scores.txt", ".movie.part")]
    for path in mine:
        path.write_text("mine")
    benchmark(read_spec(spec_file, NO_TIMING), finished, fresh=True)
    assert all(path.read_text() == "mine" for path in mine)
    assert sorted(path.name for path in theirs.rglob("*") if path.is_file()) == [
        *("dice.png", "final-scores.txt", "model")
    ]
    assert not (finished / "trials").is_symlink()
    assert not (finished / "models/pixels").is_symlink()


def test_a_stored_fit_of_other_settings_is_not_replaced_without_a_word(spec_file, finished, tmp_path):
    out = finished
    spec, other = (read_spec(spec_file, [*NO_TIMING, f"approach.pixels.size={size}"]) for size in (16, 20))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError) as refused:
        benchmark(other, out)
    assert re.search(r"pixels, fold 0, seed 0 \(\d.* s\); pixels, fold 0, seed 1 \(", str(refused.value))
    assert "mean-mask" not in str(refused.value)
    assert "--out; to lose them start over with --fresh" in str(refused.value)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    benchmark(spec, out)
    benchmark(other, tmp_path / "elsewhere")
    benchmark(other, out, fresh=True)
    assert (out / "scores.csv").read_bytes() == (tmp_path / "elsewhere/scores.csv").read_bytes()


def test_two_runs_do_not_write_into_one_directory(spec_file, finished, capsys):
    before = {path: path.read_bytes() for path in finished.rglob("*.*") if path.is_file()}
    for changes in ([], ["approach.pixels.size=20"]):  # the same spec, and one with a changed key
        spec = read_spec(spec_file, [*NO_TIMING, *changes])
        with (
            hold_folder(finished),
            pytest.raises(InputError, match=rf"in use: process {os.getpid()} on \S+, since \d{{4}}-"),
        ):
            benchmark(spec, finished)
    assert "Reading data" not in capsys.readouterr().out
    after = {path: path.read_bytes() for path in finished.rglob("*.*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    write_report(finished)  # readers are free


def test_a_lock_that_a_killed_process_left_does_not_block(tmp_path):
    code = "import os, sys; from pathlib import Path; from lungseg.system.lock import hold_folder\n"
    code += "with hold_folder(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "out/.lock").exists()
    require_free(tmp_path / "out")
    with hold_folder(tmp_path / "out"), pytest.raises(InputError, match="in use"):
        require_free(tmp_path / "out")


def test_a_folder_without_the_right_to_look_into_it(spec_file, tmp_path, monkeypatch):
    def forbidden(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    spec = read_spec(spec_file, NO_TIMING)
    plan = make_plan(spec)
    monkeypatch.setattr("lungseg.harness.run.make_plan", lambda *_: plan)
    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(InputError, match=r"Permission denied.*choose another folder"):
        benchmark(spec, tmp_path)
