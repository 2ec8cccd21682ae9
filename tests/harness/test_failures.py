"""A row that fails, or that changes the process, is nothing to the others."""

import os
import random
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from lungseg.approaches.baselines import MeanMask
from lungseg.cli import main
from lungseg.harness.run import benchmark
from lungseg.report.write import write_report
from lungseg.results import read_run, read_table
from lungseg.spec import read_spec
from lungseg.system.errors import InputError
from tests.tiny import NO_TIMING, SPEC

pytestmark = pytest.mark.usefixtures("without_figures")
ROW = '[[approach]]\nuse = "tests.harness.test_failures:{}"\nname = "{}"\nsize = 24\n'
WHERE = "LUNGSEG_TEST_WHERE"
ERRORS = {"ValueError": ValueError, "SystemExit": SystemExit, "StopIteration": StopIteration}


def fail(where: str) -> None:
    place, _, kind = os.environ.get(WHERE, "").partition("-")
    if place == where:
        raise ERRORS[kind]("evil") if kind else MemoryError


class Evil(MeanMask):
    """Fails where the environment says."""

    def skip(self):
        fail("skip")

    def weights(self):
        fail("weights")

    def require(self, train):
        fail("require")

    def estimate(self, train, validation):
        fail("estimate")

    def fit(self, train, validation, context):
        fail("fit")
        return super().fit(train, validation, context)

    def finish(self, maps, sizes):
        fail("finish")
        return super().finish(maps, sizes)

    def save(self, directory):
        fail("save")
        super().save(directory)


class Meddler(MeanMask):
    """Changes all that a process has in common."""

    def fit(self, train, validation, context):
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(7)
        torch.manual_seed(99)
        np.random.seed(99)  # noqa: NPY002
        random.seed(99)
        np.seterr(all="raise")
        warnings.simplefilter("error")
        os.environ["OMP_NUM_THREADS"] = "7"
        os.chdir("/")
        sys.path.insert(0, "/elsewhere")
        torch.set_float32_matmul_precision("medium")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return super().fit(train, validation, context)


class NoModel(MeanMask):
    """Its settings are no model of pydantic."""

    Settings = dict


@pytest.fixture
def spec_with(spec_file, monkeypatch):
    """A function that puts rows before the tiny spec's `pixels`."""

    def make(*rows: tuple[str, str], changes=NO_TIMING):
        text = "".join(ROW.format(*row) for row in rows)
        spec_file.write_text(
            SPEC.replace('[[approach]]\nuse = "vgg19-pixels"', f'{text}[[approach]]\nuse = "vgg19-pixels"')
        )
        return read_spec(spec_file, changes)

    return make


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("fit-ValueError", "ended with ValueError (evil): mend its class"),
        ("fit-SystemExit", "ended with SystemExit (evil): mend its class"),
        ("finish-StopIteration", "StopIteration"),
        ("save-ValueError", "ended with ValueError (evil): mend its class"),
        ("fit", "ran out of memory: lower its size"),
    ],
)
@pytest.mark.report
def test_the_second_of_three_rows_fails_and_the_others_have_their_table(
    spec_with, finished_once, tmp_path, monkeypatch, computed, capsys, where, reason
):
    out, spec = tmp_path / "out", spec_with(("Evil", "evil"))
    monkeypatch.setenv(WHERE, where)
    report = benchmark(spec, out)
    (failure,) = read_run(out)["failed"]
    assert failure["approach"] == "evil"
    assert failure["reason"].startswith("evil, fold 0, seed 0")
    assert reason in failure["reason"]
    assert str(tmp_path) not in failure["reason"]
    assert "failed: evil, fold 0, seed 0" in capsys.readouterr().out
    assert (
        "evil has no row, because a trial of it failed: evil, fold 0, seed 0"
        in report.page.with_name("summary.md").read_text()
    )
    assert (out / "scores.csv").read_bytes() == (finished_once / "scores.csv").read_bytes()
    if where.endswith("Error"):
        assert "in fail" in (out / "trials/evil/f0-s0/traceback.txt").read_text()
    monkeypatch.delenv(WHERE)
    computed.clear()
    benchmark(spec, out)
    assert computed == ["evil, fold 0, seed 0"]
    assert read_run(out)["failed"] == []
    assert set(read_table(out, "scores")["approach"]) == {"mean-mask", "evil", "pixels"}
    assert not (out / "trials/evil/f0-s0/traceback.txt").exists()


def test_an_approach_with_a_failed_seed_has_no_mean_over_the_others(spec_file, tmp_path, monkeypatch):
    import lungseg.harness.evaluate as evaluate

    fit = evaluate.fit_trial

    def fail_once(trial, *rest):
        if trial.label == "pixels, fold 0, seed 1":
            raise InputError("the loss is nan")
        fit(trial, *rest)

    monkeypatch.setattr(evaluate, "fit_trial", fail_once)
    benchmark(read_spec(spec_file, NO_TIMING), tmp_path / "out")
    assert set(read_table(tmp_path / "out", "scores")["approach"]) == {"mean-mask"}
    assert (tmp_path / "out/trials/pixels/f0-s0/trial.json").exists()


def test_where_every_row_fails_the_first_reason_is_said(spec_file, tmp_path, monkeypatch):
    spec_file.write_text(SPEC.split("[[approach]]")[0] + ROW.format("Evil", "evil"))
    monkeypatch.setenv(WHERE, "fit-ValueError")
    with pytest.raises(InputError, match=r"every approach failed: evil, fold 0, seed 0 ended with"):
        benchmark(read_spec(spec_file, NO_TIMING), tmp_path / "out")
    with pytest.raises(InputError, match="not finished"):
        write_report(tmp_path / "out")


@pytest.mark.parametrize("where", ["skip", "weights", "require", "estimate"])
@pytest.mark.parametrize("kind", ["ValueError", "SystemExit"])
def test_what_fails_before_the_first_fit_is_named(spec_with, tmp_path, monkeypatch, where, kind):
    monkeypatch.setenv(WHERE, f"{where}-{kind}")
    with pytest.raises(InputError, match=rf"approach 'evil': its class ended with {kind} \(evil\): mend it"):
        benchmark(spec_with(("Evil", "evil")), tmp_path / "out")


def test_settings_that_are_no_model(spec_with, tmp_path):
    with pytest.raises(InputError, match=r"NoModel\.Settings is no pydantic model"):
        benchmark(spec_with(("NoModel", "none")), tmp_path / "out")


def test_a_row_that_changes_the_process_changes_no_other(spec_with, finished_once, tmp_path):
    here, threads, dtype = Path.cwd(), torch.get_num_threads(), torch.get_default_dtype()
    environment, places, handler = dict(os.environ), list(sys.path), signal.getsignal(signal.SIGINT)
    benchmark(spec_with(("Meddler", "meddler")), tmp_path / "out")
    with_meddler = read_table(tmp_path / "out", "scores").query("approach != 'meddler'")
    alone = read_table(finished_once, "scores")
    assert with_meddler.reset_index(drop=True).equals(alone)
    assert Path.cwd() == here
    assert torch.get_default_dtype() == dtype
    assert torch.is_grad_enabled()
    assert dict(os.environ) == environment
    assert sys.path == places
    assert torch.get_float32_matmul_precision() == "highest"
    assert signal.getsignal(signal.SIGINT) is handler
    torch.set_num_threads(threads)


@pytest.mark.report
def test_a_failed_row_gives_exit_code_1(spec_with, spec_file, tmp_path, monkeypatch, capsys):
    spec_with(("Evil", "evil"))
    words = ["lungseg", "benchmark", str(spec_file), "--out", str(tmp_path / "out")]
    words += ["--set", "timing.enabled=false", "--set", "seeds=[0]"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # main sets these: so they are taken back
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv(WHERE, "fit-SystemExit")
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(SystemExit) as ended:
        main()
    for number, handler in former.items():
        signal.signal(number, handler)
    assert ended.value.code == 1
    assert "evil has no row" in capsys.readouterr().out
