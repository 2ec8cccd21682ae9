"""Pictures become masks, overlays, cut-outs and a table; a bad one ends nothing, and nothing is redone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lungseg.data.files.images import read_image
from lungseg.prediction import predict as module
from lungseg.prediction.pictures import Picture, divide_words, find_pictures
from lungseg.prediction.predict import TABLE, Wishes, list_outputs, predict_pictures
from lungseg.system.errors import InputError
from tests.refusals import assert_refused


def silent(*_):
    pass


def read_table(out):
    return pd.read_csv(out / TABLE, keep_default_na=False)


def run(models, places, out, **wishes):
    return predict_pictures(models, find_pictures(places, out).pictures, Wishes(out, **wishes), silent)


def test_what_is_made_of_a_picture(model, ward, tmp_path):
    out = tmp_path / "out"
    outcome = run([model], [ward], out, maps=True, spacing_mm=0.5)
    assert (len(outcome.rows), outcome.failures) == (10, [])
    picture = sorted(ward.iterdir())[0]
    image = read_image(picture)
    probability = model.predict(image)
    mask = np.asarray(Image.open(out / "masks" / picture.name))
    np.testing.assert_array_equal(mask, np.where(probability >= model.threshold, 255, 0))
    cut = np.asarray(Image.open(out / "cutouts" / picture.name))
    np.testing.assert_array_equal(cut[..., 1], mask)
    np.testing.assert_array_equal(cut[..., 0], np.where(mask > 0, np.round(image * 255), 0))
    stored = np.asarray(Image.open(out / "maps" / picture.name))
    np.testing.assert_allclose(stored / 65535, probability, atol=1e-5)
    overlay = np.asarray(Image.open(out / "overlays" / picture.name)).astype(int)
    assert overlay.shape == (64, 64, 3)
    outline = np.ptp(overlay, axis=2) > 0  # the picture is grey, the outline isn't
    assert outline.any()
    assert not outline[mask == 0].any()  # of one pixel, inside the mask
    row = read_table(out).iloc[0]
    assert row["lungs_px"] == (mask > 0).sum() == row["left_px"] + row["right_px"]
    assert row["lungs_cm2"] == pytest.approx((mask > 0).sum() * 0.05**2)  # 0.5 mm are 0.05 cm
    assert (row["height"], row["width"], row["warnings"]) == (64, 64, "")


def test_the_right_lung_lies_on_the_left_of_the_picture(other, ward, tmp_path, monkeypatch):
    # Nine columns on the picture's left, three on its right.
    drawn = np.zeros((64, 64), np.float32)
    drawn[10:50, 8:17] = drawn[10:50, 50:53] = 1
    monkeypatch.setattr(type(other), "predict_all", lambda self, images: [drawn] * len(images))
    run([other], [ward], tmp_path / "out")
    row = read_table(tmp_path / "out").iloc[0]
    assert (row["right_px"], row["left_px"]) == (360, 120)


def test_a_bad_picture_is_named_and_the_others_are_done(model, ward, tmp_path):
    (ward / "a.png").write_bytes(b"no picture")
    Image.new("L", (1, 1)).save(ward / "b.png")
    Image.new("1", (20_000, 20_000)).save(ward / "c.png")
    outcome = run([model], [ward], tmp_path / "out")
    assert len(outcome.rows) == 10
    for failure, words in zip(
        outcome.failures, ("a.png is no PNG", "b.png is 1 x 1", "megapixels"), strict=True
    ):
        assert words in failure


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (np.zeros((64, 64)), "no lung was found"),
        (np.pad(np.ones((20, 10)), ((10, 34), (5, 49))), "one lung alone was found; the lungs fill 5%"),
        (np.ones((64, 64)), "the lungs fill 100%"),
    ],
)
def test_what_should_be_looked_at(model, ward, tmp_path, monkeypatch, probability, words):
    maps = probability.astype(np.float32)
    monkeypatch.setattr(type(model), "predict_all", lambda self, images: [maps] * len(images))
    outcome = run([model], [ward], tmp_path / "out")
    assert words in read_table(tmp_path / "out")["warnings"][0]
    assert sum("to be looked at" in text for text in outcome.list_sentences([model], tmp_path)) == 6


def test_a_photograph_is_noticed(model, tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(colours).resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / "cat.png")
    grey = Image.fromarray(colours[..., 0]).resize((64, 64)).convert("RGB")
    grey.save(tmp_path / "grey.png")  # three equal channels, as many X-rays are stored
    run([model], [tmp_path / "cat.png", tmp_path / "grey.png"], tmp_path / "out")
    first, second = read_table(tmp_path / "out")["warnings"]
    assert "in colour" in first
    assert "in colour" not in second


def test_what_is_done_is_not_done_again(model, ward, tmp_path, monkeypatch):
    out, predicted = tmp_path / "out", []
    original = type(model).predict_all
    monkeypatch.setattr(
        type(model),
        "predict_all",
        lambda self, images: (predicted.append(len(images)), original(self, images))[1],
    )

    def count(**wishes):
        predicted.clear()
        outcome = run([model], [ward], out, **wishes)
        assert len(read_table(out)) == 10
        return sum(predicted), outcome.done_before

    assert count() == (10, 0)
    assert count() == (0, 10)
    files = sorted(ward.iterdir())
    (out / "masks" / files[0].name).unlink()  # one that was lost
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(files[1])  # another picture of that name
    assert count() == (2, 8)
    assert count(spacing_mm=1.0) == (10, 0)


def test_a_run_that_was_stopped_goes_on(model, ward, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 2)

    def stop(done, *_):
        if done == 6:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    pictures = find_pictures([ward], out).pictures
    with pytest.raises(KeyboardInterrupt):
        predict_pictures([model], pictures, Wishes(out), stop)
    outcome = predict_pictures([model], pictures, Wishes(out), silent)
    assert outcome.done_before >= 2
    assert len(outcome.rows) == len(read_table(out)) == 10


def test_a_map_of_a_former_model_is_not_taken_for_this_ones(model, other, ward, tmp_path):
    out, file = tmp_path / "out", sorted(ward.iterdir())[0]
    run([model], [file], out, maps=True)
    run([other], [file], out)
    run([other], [file], out, maps=True)
    stored = np.asarray(Image.open(out / "maps" / file.name)) / 65535
    np.testing.assert_allclose(stored, other.predict(read_image(file)), atol=1e-5)


def test_masks_of_a_run_that_was_stopped_are_not_taken_for_another_models(
    model, other, ward, tmp_path, monkeypatch
):
    out, file = tmp_path / "out", sorted(ward.iterdir())[0]
    run([model], [ward], out)
    former = (out / "masks" / file.name).read_bytes()
    monkeypatch.setattr(module, "BATCH", 2)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_pictures([other], find_pictures([ward], out).pictures, Wishes(out), stop)
    run([model], [ward], out)
    assert (out / "masks" / file.name).read_bytes() == former


def test_files_of_others_are_not_overwritten(model, ward, tmp_path):
    out = tmp_path / "chest"
    (out / "masks").mkdir(parents=True)
    truth = out / "masks" / "phantom-0000.png"
    truth.write_bytes(b"the truth")
    with pytest.raises(InputError, match="masks is there and isn't of a former prediction"):
        run([model], [ward], out)
    assert truth.read_bytes() == b"the truth"
    truth.unlink()
    truth.parent.rmdir()
    (out / TABLE).write_text("mine,too\n")
    with pytest.raises(InputError, match=r"predictions\.csv is there"):
        run([model], [ward], out)


def test_a_picture_that_never_fits_into_memory_is_named(model, ward, tmp_path, monkeypatch):
    original, huge = type(model).predict_all, read_image(sorted(ward.iterdir())[4])

    def full(self, images):
        if any(np.array_equal(image, huge) for image in images):
            raise MemoryError
        return original(self, images)

    monkeypatch.setattr(type(model), "predict_all", full)
    outcome = run([model], [ward], tmp_path / "out")
    assert len(outcome.rows) == 9
    assert "doesn't fit into memory" in outcome.failures[0]


def test_rows_of_other_pictures_stay_and_those_of_a_lost_one_go(model, ward, tmp_path):
    out, files = tmp_path / "out", sorted(ward.iterdir())
    run([model], [files[0], files[1]], out)
    run([model], [files[2]], out)
    assert list(read_table(out)["name"]) == [file.stem for file in files[:3]]
    files[0].write_bytes(b"damaged")
    run([model], [files[0]], out)
    assert list(read_table(out)["name"]) == [file.stem for file in files[1:3]]


def test_two_models_are_compared(model, other, ward, tmp_path):
    out, file = tmp_path / "out", sorted(ward.iterdir())[0]
    outcome = run([model, other], [file], out)
    first, second = (
        np.asarray(Image.open(out / "masks" / name / file.name)) > 0 for name in ("mean-mask", "pixels")
    )
    dice = 2 * (first & second).sum() / (first.sum() + second.sum())
    assert [row["dice_between_models"] for row in outcome.rows] == [f"{dice:.6f}"] * 2
    sentences = list(outcome.list_sentences([model, other], out))
    assert any("mean-mask, yellow outline" in text for text in sentences)
    assert any("pixels, blue outline" in text for text in sentences)


def test_too_much_for_the_memory_at_once_is_done_one_by_one(model, ward, tmp_path, monkeypatch):
    original = type(model).predict_all

    def full(self, images):
        if len(images) > 1:
            raise MemoryError
        return original(self, images)

    monkeypatch.setattr(type(model), "predict_all", full)
    assert len(run([model], [ward], tmp_path / "out").rows) == 10


def test_names_of_what_is_made(model, tmp_path):
    for place in (
        "a/x.png",
        "a/deep/y.v2.PNG",
        "b/x.png",
        "a/.hidden/z.png",
        "a/out/masks/x.png",
        "a/notes.txt",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"")
    pictures = find_pictures(
        [tmp_path / "a", tmp_path / "b", tmp_path / "a/x.png"], tmp_path / "a/out"
    ).pictures
    assert [picture.name for picture in pictures] == ["deep/y.v2", "x", "x-2"]
    assert (
        list_outputs([model], pictures[0], Wishes(tmp_path))["overlay"] == tmp_path / "overlays/deep/y.v2.png"
    )


def test_what_lies_beside_the_pictures(model, ward, tmp_path, monkeypatch):
    place = tmp_path / "ward"  # with images/ and masks/
    (place / "images/phantom-0000_mask.png").write_bytes((place / "masks/phantom-0000.png").read_bytes())
    for out in (place / "out[1]", tmp_path / "elsewhere"):
        for _ in range(2):  # the second time with what the first has made
            found = find_pictures([place], out)
            assert len(found.pictures) == 11
            assert [note.partition(":")[0] for note in found.notes] == [
                f"10 of the pictures in {place} are in a sub-folder of masks and left out",
                "masks are predicted as if they were X-rays",
            ]
            predict_pictures([model], found.pictures[:1], Wishes(out), silent)
    monkeypatch.chdir(tmp_path)
    assert len(find_pictures([Path("ward")], Path("masks")).pictures) == 11  # a name that a sub-folder has


def test_places_without_pictures(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.pth").write_bytes(b"pickle")
    (tmp_path / "labels" / "labelsTr").mkdir(parents=True)
    Image.new("L", (32, 32)).save(tmp_path / "labels" / "labelsTr" / "a.gif")
    for place, out, words in (
        (tmp_path / "gone", tmp_path / "out", "no picture or folder"),
        (tmp_path / "empty", tmp_path / "out", "holds no picture"),
        (tmp_path / "labels", tmp_path / "out", "holds 1 masks and no other picture"),
        (tmp_path / "empty", tmp_path / "empty", "choose another --out"),
        (tmp_path / "empty", tmp_path, "is inside --out"),
        (tmp_path / "model.pth", tmp_path / "out", "a model is a folder"),
    ):
        with pytest.raises(InputError, match=words):
            find_pictures([place], out)


def test_models_and_pictures_are_told_apart(exported_once, finished_once, tmp_path):
    model, picture = exported_once / "pixels", tmp_path / "a.png"
    assert divide_words([], [], [model, picture]) == ([(model, None)], [picture])
    assert divide_words([], [], [picture]) == ([(None, None)], [picture])
    assert divide_words([], ["pixels"], [finished_once, picture]) == ([(finished_once, "pixels")], [picture])
    both = divide_words([finished_once], ["pixels", "mean-mask"], [picture])[0]
    assert both == [(finished_once, "pixels"), (finished_once, "mean-mask")]
    for models, rows, words, said in (
        ([], [], [model], "name pictures"),
        ([], ["pixels"], [picture], "--approach names a row"),
        ([model] * 3, [], [picture], "at most two"),
        ([model, model], ["a"], [picture], "one --approach for each"),
    ):
        with pytest.raises(InputError, match=said):
            divide_words(models, rows, words)


def test_the_command_as_typed(lungseg, exported_once, ward, tmp_path):
    out = str(tmp_path / "out")
    done = lungseg("predict", str(exported_once / "mean-mask"), str(ward), "--out", out)
    assert done.returncode == 0, done.stderr
    assert "10 picture(s)" in done.stdout
    (ward / "bad.png").write_bytes(b"bad")
    done = lungseg("predict", "--model", str(exported_once / "mean-mask"), str(ward), "--out", out)
    assert done.returncode == 1
    assert "10 of them by a former run" in done.stdout
    assert "failed: " in done.stdout
    assert_refused(lungseg("predict", str(ward), "--out", str(ward)), "choose another --out")
    assert_refused(lungseg("predict", str(tmp_path / "gone.png")), "gone.png", "check the path")
    assert_refused(lungseg("predict", str(ward), "--device", "tpu"), "none of auto, cpu, cuda")


def test_a_picture_is_named_once(ward, tmp_path):
    file = sorted(ward.iterdir())[0]
    assert find_pictures([file, ward / ".." / "images" / file.name], tmp_path).pictures == [
        Picture(file.resolve(), file.stem)
    ]
