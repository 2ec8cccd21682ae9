"""Masks that another program made get the scores that a trained row with the same masks has."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lungseg.harness.commands.evaluate_stored import evaluate_results
from lungseg.harness.plan import make_plan
from lungseg.harness.run import benchmark
from lungseg.prediction.models import find_row
from lungseg.results import read_table
from lungseg.spec import read_spec
from lungseg.system.errors import InputError
from lungseg.system.files import read_json
from tests.refusals import assert_refused
from tests.tiny import SPEC

pytestmark = [pytest.mark.usefixtures("without_figures"), pytest.mark.report]
OF_MASKS = [
    *("image_id", "threshold", "tp", "fp", "fn", "tn", "dice", "iou", "accuracy", "precision", "recall"),
    *("specificity", "dice_left", "dice_right", "area_error", "distance_unit", "hausdorff", "hd95", "assd"),
    *("surface_dice_1", "surface_dice_2"),
]


@pytest.fixture
def stored(finished_once, tmp_path):
    """Copies of what a benchmark stored: maps of both rows, and truths."""
    for row in ("mean-mask", "pixels"):
        shutil.copytree(finished_once / "predictions/maps" / row / "f0-s0", tmp_path / row)
    shutil.copytree(finished_once / "predictions/truth", tmp_path / "truth")
    return tmp_path


def as_text(directory):
    return pd.read_csv(directory / "scores.csv", dtype=str, keep_default_na=False)


def score_pixels(stored):
    """Words that score one row into the folder "o"."""
    tool, truth, out = (str(stored / name) for name in ("pixels", "truth", "o"))
    return ["score", f"tool={tool}", "--truth", truth, "--out", out]


def test_stored_maps_get_the_scores_of_their_benchmark(lungseg, finished_once, stored):
    words = [f"{row}={stored / row}" for row in ("mean-mask", "pixels")]
    done = lungseg("score", *words, "--truth", str(stored / "truth"), "--out", str(stored / "out"))
    assert done.returncode == 0, done.stderr
    own, given = as_text(finished_once), as_text(stored / "out")
    own = own[own["seed"] == "0"].reset_index(drop=True)
    for column in ("approach", *OF_MASKS):
        assert list(own[column]) == list(given[column]), column
    # A map was stored with 8 bits.
    np.testing.assert_allclose(own["brier"].astype(float), given["brier"].astype(float), atol=0.004)
    run = read_json(stored / "out/run.json")
    assert run["empty"] == {"timings": "all masks were given, so nothing was predicted"} | {
        key: text for key, text in run["empty"].items() if key != "timings"
    }
    assert "nothing was trained, so nothing could leak" in (stored / "out/summary.md").read_text()


def test_given_masks_stand_beside_trained_rows(finished_once, stored, spec_file):
    spec_file.write_text(
        f'{SPEC}\n[[approach]]\nuse = "masks"\nname = "tool"\nfolder = "{stored / "pixels"}"\n'
    )
    benchmark(read_spec(spec_file, ["timing.enabled=false"]), stored / "out")
    scores = read_table(stored / "out", "scores")
    tool = scores[scores["approach"] == "tool"]["dice"]
    own = scores[(scores["approach"] == "pixels") & (scores["seed"] == 0)]["dice"]
    assert list(tool) == list(own)
    # The row has no model, so it can't be exported, and is left out on another dataset.
    with pytest.raises(InputError, match="the masks of 'tool' were given"):
        find_row(stored / "out", "tool")
    report = evaluate_results(
        stored / "out", "phantom", {"count": 4, "size": 40, "seed": 5}, stored / "other"
    )
    assert set(report.contents.scores["approach"]) == {"mean-mask", "pixels"}


def test_a_missing_mask_is_named_and_counts_only_if_asked(lungseg, stored):
    gone = sorted((stored / "pixels").iterdir())[0]
    gone.unlink()
    (stored / "pixels" / "other.png").write_bytes((stored / "truth" / gone.name).read_bytes())
    words = [
        "score",
        f"tool={stored / 'pixels'}",
        "--truth",
        str(stored / "truth"),
        "--out",
        str(stored / "o"),
    ]
    assert_refused(
        lungseg(*words), f"images have no mask in {stored / 'pixels'} ({gone.stem})", "--missing empty"
    )
    done = lungseg(*words, "--missing", "empty")
    assert done.returncode == 0, done.stderr
    assert f"1 images have no mask and count as empty ({gone.stem})" in done.stdout
    assert "1 masks match no evaluated image (other)" in done.stdout
    scores = read_table(stored / "o", "scores").set_index("image_id")
    assert scores.loc[gone.stem, "dice"] == 0
    assert len(scores) == len(list((stored / "truth").iterdir()))


def test_a_row_that_cannot_be_read_leaves_the_others_their_table(lungseg, stored):
    name = sorted((stored / "truth").iterdir())[0].stem
    (stored / "pixels" / f"{name}.png").unlink()
    np.save(stored / "pixels" / f"{name}.npy", np.full((48, 48), np.nan))
    words = score_pixels(stored)
    done = lungseg(*words[:1], f"mean={stored / 'mean-mask'}", *words[1:])
    assert done.returncode == 1
    assert "not finite" in done.stdout
    assert set(read_table(stored / "o", "scores")["approach"]) == {"mean"}


def test_images_are_for_figures_and_leave_no_truth_out(lungseg, finished_once, stored):
    shutil.copytree(finished_once / "predictions/images", stored / "images")
    words = [*score_pixels(stored), "--images", str(stored / "images")]
    assert lungseg(*words).returncode == 0
    with_images = read_table(stored / "o", "scores")["dice"]
    assert lungseg(*score_pixels(stored)[:-1], str(stored / "p")).returncode == 0
    assert list(with_images) == list(read_table(stored / "p", "scores")["dice"])
    sorted((stored / "images").iterdir())[0].unlink()
    assert_refused(lungseg(*words), "1 true masks have no image")


def test_masks_without_images_are_nothing_to_predict_from(lungseg, stored, tmp_path):
    spec = tmp_path / "truth.toml"
    spec.write_text(
        f'name = "t"\n[data]\ndataset = "truth"\nmasks = "{stored / "truth"}"\nsplit = "all"\n'
        '[training_data]\ndataset = "phantom"\ncount = 6\nsize = 48\n[[approach]]\nuse = "threshold"\n'
    )
    assert_refused(lungseg("benchmark", str(spec), "--out", str(tmp_path / "q")), "'truth' has none")


def test_published_notes_name_no_file_of_given_masks(lungseg, stored, tmp_path):
    (stored / "pixels" / "DOE_JOHN.png").write_bytes((stored / "truth").iterdir().__next__().read_bytes())
    assert lungseg(*score_pixels(stored)).returncode == 0
    assert "DOE_JOHN" in (stored / "o/run.json").read_text()
    assert lungseg("publish", str(stored / "o"), "--to", str(tmp_path / "p")).returncode == 0
    for path in (tmp_path / "p").rglob("*"):
        assert path.is_dir() or b"DOE_JOHN" not in path.read_bytes(), path


def test_a_corrected_mask_is_scored_anew(lungseg, stored):
    words = [
        "score",
        f"tool={stored / 'pixels'}",
        "--truth",
        str(stored / "truth"),
        "--out",
        str(stored / "o"),
    ]
    assert lungseg(*words).returncode == 0
    name = sorted((stored / "truth").iterdir())[0].name
    shutil.copy(stored / "truth" / name, stored / "pixels" / name)
    assert lungseg(*words).returncode == 0
    scores = read_table(stored / "o", "scores").set_index("image_id")
    assert scores.loc[name.removesuffix(".png"), "dice"] == 1


def test_patients_and_suffixes_are_keys_of_the_dataset(lungseg, stored):
    for path in sorted((stored / "truth").iterdir()):
        path.rename(path.with_name(f"p{int(path.stem[-1]) % 2}-{path.stem}_mask.png"))
    for path in sorted((stored / "pixels").iterdir()):
        path.rename(path.with_name(f"p{int(path.stem[-1]) % 2}-{path.name}"))
    done = lungseg(
        *("score", str(stored / "pixels"), "--truth", str(stored / "truth"), "--out", str(stored / "o")),
        *("--set", "suffix=_mask", "--set", "patient_pattern=^(p.)-"),
    )
    assert done.returncode == 0, done.stderr
    scores = read_table(stored / "o", "scores")
    assert set(scores["patient"]) == {"p0", "p1"}
    assert set(scores["approach"]) == {"pixels"}


def test_words_that_cannot_be_used(lungseg, stored):
    truth = ["--truth", str(stored / "truth"), "--out", str(stored / "o")]
    tool = f"a={stored / 'pixels'}"
    assert_refused(lungseg("score", tool, f"a={stored / 'mean-mask'}", *truth), "'a' is given twice")
    assert_refused(lungseg("score", f"a b={stored / 'pixels'}", *truth), "'a b' can't be used")
    assert_refused(lungseg("score", f"a={stored / 'gone'}", *truth), "gone: check the path")
    assert_refused(lungseg("score", tool, *truth, "--missing", "skip"), "'skip' is none of refuse, empty")
    assert_refused(lungseg("score", tool, *truth[:2], "--out", str(stored / "pixels")), "choose another one")
    (stored / "none").mkdir()
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(stored / "none" / "x.png")
    assert_refused(lungseg("score", f"a={stored / 'none'}", *truth), "matches an evaluated image")
    assert not (stored / "o" / "scores.csv").exists()


def test_what_is_trained_needs_images_to_train_on(lungseg, stored, tmp_path):
    spec = tmp_path / "all.toml"
    spec.write_text(
        'name = "all"\n[data]\ndataset = "phantom"\ncount = 6\nsize = 48\nsplit = "all"\n'
        '[[approach]]\nuse = "mean-mask"\n'
    )
    assert_refused(lungseg("benchmark", str(spec), "--out", str(tmp_path / "o")), "add [training_data]")


def test_masks_of_two_test_sets_with_the_same_names_are_refused(stored, spec_file):
    spec_file.write_text(
        f'{SPEC}\n[[test_data]]\ndataset = "phantom"\nname = "b"\nseed = 4\ncount = 12\nsize = 48\n'
        f'[[approach]]\nuse = "masks"\nname = "tool"\nfolder = "{stored / "pixels"}"\n'
    )
    with pytest.raises(InputError, match="two test sets have an image of one name"):
        make_plan(read_spec(spec_file))
