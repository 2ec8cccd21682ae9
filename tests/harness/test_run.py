"""Whole benchmarks on a few phantoms: what is stored, cut, resumed and computed again."""

import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from lungseg.harness.plan import make_plan
from lungseg.harness.run import benchmark
from lungseg.learning.networks.checkpoints import load_state
from lungseg.learning.networks.training import Training
from lungseg.report.figures.importance import draw_importance
from lungseg.results import read_table
from lungseg.scoring.metrics import score_mask
from lungseg.spec import read_spec
from lungseg.system.errors import InputError
from lungseg.system.files import read_json
from tests.tiny import NO_TIMING, SPEC

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.mark.report
def test_a_whole_benchmark_with_timings(spec_file, tmp_path, forks):
    out = tmp_path / "out"
    summary = benchmark(read_spec(spec_file), out).page.with_name("summary.md").read_text()
    assert "pixels" in summary
    scores = read_table(out, "scores")
    test_images = read_json(out / "run.json")["splits"][0]["evaluated"]
    assert len(scores) == test_images * 3  # mean-mask has no random part and runs with one seed
    assert (scores[["tp", "fp", "fn", "tn"]].sum(axis=1) == 48 * 48).all()

    timings = read_table(out, "timings")
    whole = timings[timings["stage"] == "whole"]
    assert len(whole) == 4
    assert set(zip(whole["batch_size"], whole["repeats"], strict=True)) == {(1, 4), (3, 30)}
    assert (whole["peak_memory_mib"] > 50).all()
    single = whole[whole["batch_size"] == 1]
    assert single["peak_memory_mib"].nunique() == single["approach"].nunique() == 2  # each has its own
    assert set(timings.loc[timings["approach"] == "pixels", "stage"]) >= {"decode", "features", "regression"}
    assert (whole.loc[whole["approach"] == "pixels", "peak_share"] > 0).all()
    pairs = read_table(out, "timing_pairs")
    assert list(pairs["kind"]) == ["A/A", "A/A", "A/B"]
    assert (pairs["rounds"] == 2).all()
    record = read_json(out / "run.json")
    assert record["empty"]
    assert len(record["trials"]) == 3
    assert str(tmp_path) not in (out / "run.json").read_text()


def test_scores_are_those_of_the_stored_maps(spec_file, tmp_path):
    from PIL import Image

    out = tmp_path / "out"
    benchmark(read_spec(spec_file, NO_TIMING), out)
    row = read_table(out, "scores").query("approach == 'pixels' and seed == 0").iloc[0]
    stored = np.asarray(Image.open(out / "predictions/maps/pixels/f0-s0" / f"{row.image_id}.png"))
    truth = np.asarray(Image.open(out / "predictions/truth" / f"{row.image_id}.png")) > 0
    dice = score_mask(stored >= 128, truth)["dice"]  # 8 bits: a pixel on the very edge may differ
    assert row.dice == pytest.approx(dice, abs=0.02)


def test_the_same_spec_gives_the_same_bytes_and_a_second_run_computes_nothing(
    spec_file, tmp_path, monkeypatch
):
    one, two = tmp_path / "one", tmp_path / "two"
    spec = read_spec(spec_file, NO_TIMING)
    benchmark(spec, one)
    benchmark(spec, two)
    assert (one / "scores.csv").read_bytes() == (two / "scores.csv").read_bytes()

    monkeypatch.setattr(
        "lungseg.harness.run.run_trial", lambda *_: pytest.fail("computed a stored trial again")
    )
    benchmark(spec, one)


@pytest.mark.report
def test_a_group_changes_nothing_that_is_computed(spec_file, tmp_path, monkeypatch):
    out = tmp_path / "out"
    benchmark(read_spec(spec_file, NO_TIMING), out)
    assert read_json(out / "run.json")["approaches"][1]["group"] == []
    monkeypatch.setattr(
        "lungseg.harness.run.run_trial", lambda *_: pytest.fail("computed a stored trial again")
    )
    summary = (
        benchmark(read_spec(spec_file, [*NO_TIMING, 'approach.pixels.group="the pixels"']), out)
        .page.with_name("summary.md")
        .read_text()
    )
    assert read_json(out / "run.json")["approaches"][1]["group"] == ["the pixels"]
    assert "## Ablation: the pixels" in summary


@pytest.mark.report
def test_what_trees_read_is_stored_for_each_fit(spec_file, tmp_path):
    out = tmp_path / "out"
    changes = [*NO_TIMING, "approach.pixels.regressor=lightgbm", "approach.pixels.boosting={rounds=3}"]
    report = benchmark(read_spec(spec_file, changes), out)
    table = read_table(out, "importance")
    assert set(table["approach"]) == {"pixels"}  # mean-mask reads nothing
    shares = table.groupby(["fold", "seed", "stage"])["share"]
    assert shares.size().tolist() == [64, 64]
    assert shares.sum().tolist() == pytest.approx([1, 1], abs=1e-4)
    assert draw_importance(report.contents) is not None


def test_ended_between_fit_and_scores_goes_on_from_the_fit(spec_file, tmp_path, monkeypatch):
    out, whole = tmp_path / "out", tmp_path / "whole"
    spec = read_spec(spec_file, NO_TIMING)
    with monkeypatch.context() as patch:
        patch.setattr(
            "lungseg.harness.evaluate.score_sets", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            benchmark(spec, out)
    stored = (out / "trials/mean-mask/f0-s0/fit.json").read_bytes()
    benchmark(spec, out)
    assert (out / "trials/mean-mask/f0-s0/fit.json").read_bytes() == stored
    benchmark(spec, whole)
    assert (out / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()


def test_killed_half_way_and_run_again_gives_the_same_scores(spec_file, tmp_path, capsys, monkeypatch):
    spec_file.write_text(SPEC + '[[approach]]\nuse = "tests.learning.networks.small_network:SmallApproach"\n'
                         'name = "net"\nsize = 32\nepochs = 20\nbatch_size = 4\n')  # fmt: skip
    changes = [*NO_TIMING, "seeds=[0]"]
    words = [sys.executable, "-m", "lungseg", "benchmark", str(spec_file)]
    words += [word for change in changes for word in ("--set", change)]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*words, "--out", str(killed)], stdout=subprocess.DEVNULL,
                               env={**os.environ, "LUNGSEG_CHECKPOINT_SECONDS": "0"})  # fmt: skip
    checkpoint = killed / "trials/net/f0-s0/checkpoints/last.pt"
    for _ in range(3000):
        state = load_state(checkpoint)
        if (state and state["epoch"]) or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "scores.csv").exists()
    state = load_state(checkpoint)
    assert 1 <= state["epoch"] < 20
    spec = read_spec(spec_file, changes)
    begun, resume = [], Training.resume

    def resumed(training, path):
        resume(training, path)
        begun.append((training.epoch, training.step))

    with monkeypatch.context() as patch:
        patch.setattr(Training, "resume", resumed)
        benchmark(spec, killed)
    assert begun == [(state["epoch"], state["step"])]
    said, ahead = capsys.readouterr().out, "less what is already done"
    assert "mean-mask, fold 0, seed 0: stored by a former run" in said
    assert ahead in said
    benchmark(spec, whole)
    assert ahead not in capsys.readouterr().out
    assert (killed / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()
    for name, parts in (("net", 1), ("mean-mask", None)):
        assert read_json(whole / f"trials/{name}/f0-s0/fit.json")["accumulation_steps"] == parts


def test_folds_are_all_run_and_kept_apart(spec_file, tmp_path):
    out = tmp_path / "out"
    benchmark(read_spec(spec_file, [*NO_TIMING, "data.split=kfold", "data.folds=3", "seeds=[0]"]), out)
    scores = read_table(out, "scores")
    mean = scores[scores["approach"] == "mean-mask"]
    assert sorted(mean["fold"].unique()) == [0, 1, 2]
    assert len(mean) == mean["image_id"].nunique() == 12


@pytest.mark.report
def test_an_approach_with_a_split_of_its_own(spec_file, tmp_path):
    out = tmp_path / "out"
    changes = [*NO_TIMING, "evaluate_on=validation", "approach.pixels.split=last-fifth", "seeds=[0]"]
    summary = benchmark(read_spec(spec_file, changes), out).page.with_name("summary.md").read_text()
    scores = read_table(out, "scores")
    assert set(scores.query("approach == 'pixels'")["image_id"]) == {"phantom-0010", "phantom-0011"}
    assert len(read_json(out / "run.json")["splits"]) == 2
    assert "pixels has its own split last-fifth" in summary
    assert "not to be compared" in summary
    with pytest.raises(InputError, match="no test images"):
        make_plan(read_spec(spec_file, ["approach.pixels.split=last-fifth"]))


def test_threshold_chosen_on_validation(spec_file, tmp_path):
    out = tmp_path / "out"
    benchmark(read_spec(spec_file, [*NO_TIMING, "approach.pixels.threshold=validation"]), out)
    chosen = read_table(out, "scores").query("approach == 'pixels'").groupby("seed")["threshold"].nunique()
    assert (chosen == 1).all()


@pytest.mark.report
def test_a_full_disk_is_one_sentence_and_loses_nothing(spec_file, tmp_path, monkeypatch):
    out = tmp_path / "out"
    spec = read_spec(spec_file, NO_TIMING)
    original = os.fsync
    written = []

    def full_after_some(descriptor):
        written.append(descriptor)
        if len(written) > 14:  # in the middle of the second trial
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", full_after_some)
    with pytest.raises(InputError, match="the disk is full"):
        benchmark(spec, out)
    monkeypatch.setattr(os, "fsync", original)
    assert pd.read_csv(out / "trials/mean-mask/f0-s0/scores.csv").shape[0] > 0
    assert not list(out.rglob("*.trial"))
    benchmark(spec, out)
    assert (out / "summary.md").exists()


def test_seeds_that_left_the_spec_leave_no_tile_empty(spec_file, tmp_path):
    from lungseg.report.contents import read_contents
    from lungseg.report.figures.xrays.stored import find_image_ids, read_prediction

    out = tmp_path / "out"
    benchmark(read_spec(spec_file, [*NO_TIMING, "seeds=[0]"]), out)
    benchmark(read_spec(spec_file, [*NO_TIMING, "seeds=[1]"]), out)
    contents = read_contents(out)
    for image_id in find_image_ids(contents):
        assert read_prediction(contents, "pixels", image_id, (48, 48)) is not None


def test_pictures_follow_the_data(spec_file, tmp_path):
    out = tmp_path / "out"
    changes = [*NO_TIMING, "seeds=[0]", "data.split=kfold", "data.folds=2"]  # all images are evaluated
    benchmark(read_spec(spec_file, changes), out)
    before = {path.name: path.read_bytes() for path in (out / "predictions/images").glob("*.png")}
    benchmark(read_spec(spec_file, [*changes, "data.seed=1"]), out, fresh=True)
    after = {path.name: path.read_bytes() for path in (out / "predictions/images").glob("*.png")}
    assert len(after) == 12
    assert all(after[name] != before[name] for name in before)


@pytest.mark.parametrize("working", [True, False])
def test_without_a_compiler_predictions_run_uncompiled_and_the_tables_say_so(
    spec_file, tmp_path, monkeypatch, capsys, working
):
    reason = None if working else "no C++ compiler"
    monkeypatch.setattr("lungseg.system.usable_runtime.why_not_compiled", lambda device: reason)
    spec = read_spec(spec_file, [*NO_TIMING, "runtime.compiled=true", "seeds=[0]"])
    assert make_plan(spec).runtime.compiled is working
    benchmark(spec, tmp_path / "out")
    empty = read_json(tmp_path / "out" / "run.json")["empty"]
    assert ("predictions by torch.compile" in empty) is not working
    assert ("no C++ compiler" in capsys.readouterr().out) is not working


def test_what_would_end_a_later_fit_ends_the_run_before_the_first(spec_file, tmp_path, monkeypatch):
    entry = '[[approach]]\nuse = "deeplabv3plus-resnet50"\nname = "net"\nweights = "random"\nrecipe = "cpu"\n'
    spec_file.write_text(SPEC.replace("[timing]", f"{entry}[timing]"))
    monkeypatch.setenv("LUNGSEG_CHECKPOINT_SECONDS", "1m")
    with pytest.raises(InputError, match="approach 'net': LUNGSEG_CHECKPOINT_SECONDS=1m"):
        benchmark(read_spec(spec_file, NO_TIMING), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.report
def test_an_error_of_a_fit_names_the_approach_and_the_seed(spec_file, tmp_path, monkeypatch):
    def fail(*_):
        raise InputError("the memory is full: lower its size")

    monkeypatch.setattr("lungseg.approaches.baselines.MeanMask.fit", fail)
    report = benchmark(read_spec(spec_file, NO_TIMING), tmp_path / "out")
    assert report.contents.run["failed"] == [
        {"approach": "mean-mask", "fold": 0, "seed": 0}
        | {"reason": "mean-mask, fold 0, seed 0: the memory is full: lower its size"}
    ]
    assert set(report.contents.scores["approach"]) == {"pixels"}


def test_a_kill_right_after_a_fit_leaves_no_checkpoints(spec_file, tmp_path, monkeypatch):
    spec, out = read_spec(spec_file, [*NO_TIMING, "seeds=[0]"]), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("lungseg.harness.evaluate.drop_checkpoints", kill)
        with pytest.raises(KeyboardInterrupt):
            benchmark(spec, out)
    assert list(out.rglob("checkpoints"))
    benchmark(spec, out)
    assert not list(out.rglob("checkpoints"))


def kill(*_):
    raise KeyboardInterrupt
