"""Masks of DICOM pictures: equal to those of the same picture as PNG, and as DICOM SEG that lies on it."""

import warnings

import highdicom as hd
import numpy as np
import pydicom
import pytest
from PIL import Image

from lungseg.data.datasets.phantom import render
from lungseg.prediction.pictures import find_pictures
from lungseg.prediction.predict import Wishes, predict_pictures
from tests.dicoms import FORMS, NAME, PATIENT, make_dicom
from tests.prediction.test_predict import read_table
from tests.refusals import assert_refused


@pytest.fixture(scope="module")
def phantom():
    """A phantom of 8 bits: float in [0, 1], 64 x 64."""
    return np.round(render(0, 0, 64)[0] * 255) / 255


def predict(model, place, out, **wishes):
    return predict_pictures(
        [model], find_pictures([place], out).pictures, Wishes(out, **wishes), lambda *_: None
    )


def read_mask(path):
    return np.asarray(Image.open(path)) > 0


def test_every_form_gives_the_mask_of_its_png(other, phantom, tmp_path):
    ward, out = tmp_path / "ward", tmp_path / "out"
    for form, options in FORMS.items():
        make_dicom(ward / f"{form}.dcm", phantom, **options)
    for bits in (8, 12, 16):
        values = np.round(phantom * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
        Image.fromarray(values).save(ward / f"{bits}.png")
    # A narrower window shows another picture, so that its mask may be another one.
    make_dicom(ward / "narrow.dcm", phantom, WindowCenter=100, WindowWidth=60)
    assert predict(other, ward, out).failures == []
    for form, options in FORMS.items():
        expected = read_mask(out / f"masks/{options.get('bits', 8)}.png")
        assert 0 < expected.mean() < 1
        np.testing.assert_array_equal(read_mask(out / f"masks/{form}.png"), expected, err_msg=form)
    assert (out / "masks/narrow.png").exists()


def test_a_segmentation_lies_on_its_picture(model, other, phantom, tmp_path, monkeypatch):
    drawn = np.zeros((64, 64), np.float32)
    drawn[10:50, 8:17] = drawn[10:50, 50:53] = 1
    monkeypatch.setattr(type(other), "predict_all", lambda self, images: [drawn] * len(images))
    picture = make_dicom(tmp_path / "ward/a.dcm", phantom, PixelSpacing=[0.5, 0.4])
    out = tmp_path / "out"
    predict(other, tmp_path / "ward", out, dicom_seg=True)
    row = read_table(out).iloc[0]
    assert (row["spacing_mm"], row["warnings"]) == ("0.5 0.4", "")
    assert row["lungs_cm2"] == pytest.approx(480 * 0.05 * 0.04)

    source, path = pydicom.dcmread(picture), out / "segmentations/a.dcm"
    plain = pydicom.dcmread(path)
    assert plain.Modality == "SEG"
    assert plain.PatientID == PATIENT
    assert plain.StudyInstanceUID == source.StudyInstanceUID
    made = hd.seg.segread(path)
    assert [made.get_segment_description(number).segment_label for number in (1, 2)] == [
        "Right lung",
        "Left lung",
    ]
    referred = [made.get_source_image_uids()[0][2]]
    assert referred == [source.SOPInstanceUID]
    right, left = np.moveaxis(made.get_pixels_by_source_instance(referred)[0], -1, 0)
    np.testing.assert_array_equal(right > 0, (drawn > 0) & (np.arange(64) < 32))
    np.testing.assert_array_equal(left > 0, (drawn > 0) & (np.arange(64) >= 32))
    np.testing.assert_array_equal(plain.pixel_array.any(axis=0), drawn > 0)
    # The patient is named in it alone.
    for file in out.rglob("*"):
        if file.is_file() and file != path:
            assert not any(secret.encode() in file.read_bytes() for secret in (PATIENT, NAME))

    again = out / "again"
    predict(other, tmp_path / "ward", again, dicom_seg=True)
    assert pydicom.dcmread(again / "segmentations/a.dcm").SOPInstanceUID == plain.SOPInstanceUID
    predict(model, tmp_path / "ward", out)  # another model, without it: the old one must go
    assert not path.exists()


def test_a_mirrored_picture_has_its_sides_exchanged(other, phantom, tmp_path, monkeypatch):
    drawn = np.zeros((64, 64), np.float32)
    drawn[10:50, 8:17] = drawn[10:50, 50:53] = 1
    monkeypatch.setattr(type(other), "predict_all", lambda self, images: [drawn] * len(images))
    make_dicom(tmp_path / "ward/a.dcm", phantom, PatientOrientation=["R", "F"], PixelSpacing=[0, 0])
    predict(other, tmp_path / "ward", tmp_path / "out", dicom_seg=True)
    row = read_table(tmp_path / "out").iloc[0]
    assert (row["right_px"], row["left_px"], row["lungs_cm2"]) == (120, 360, "")
    assert "is mirrored by its tag PatientOrientation" in row["warnings"]
    assert "has a pixel spacing that can't be true" in row["warnings"]
    right = pydicom.dcmread(tmp_path / "out/segmentations/a.dcm").pixel_array[0]
    np.testing.assert_array_equal(right > 0, (drawn > 0) & (np.arange(64) >= 32))


def test_tags_that_were_removed_or_are_odd(other, phantom, tmp_path, capfd):
    removed = dict.fromkeys(("PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber"))
    make_dicom(tmp_path / "ward/a.dcm", phantom, **removed)
    make_dicom(tmp_path / "ward/b.dcm", phantom, PatientName="Richard Roe", StudyDate="long ago")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        predict(other, tmp_path / "ward", tmp_path / "out", dicom_seg=True)
    assert {path.name for path in (tmp_path / "out/segmentations").iterdir()} == {"a.dcm", "b.dcm"}
    assert "Roe" not in "".join([*capfd.readouterr(), *(str(one.message) for one in told)])
    assert predict(other, tmp_path / "ward", tmp_path / "out", dicom_seg=True).done_before == 2


def test_a_picture_that_gets_no_segmentation(other, phantom, tmp_path, monkeypatch):
    make_dicom(tmp_path / "ward/a.dcm", phantom, StudyInstanceUID=None, BodyPartExamined="KNEE")
    out = tmp_path / "out"
    predict(other, tmp_path / "ward", out, dicom_seg=True)
    said = read_table(out).iloc[0]["warnings"]
    assert "is of the knee by its tag" in said
    assert "no DICOM SEG, for the picture lacks StudyInstanceUID" in said
    assert predict(other, tmp_path / "ward", out, dicom_seg=True).done_before == 1
    assert predict(other, tmp_path / "ward", out).done_before == 0  # the row must not speak of it any more
    assert "DICOM SEG" not in read_table(out).iloc[0]["warnings"]
    empty = np.zeros((64, 64), np.float32)
    monkeypatch.setattr(type(other), "predict_all", lambda self, images: [empty] * len(images))
    make_dicom(tmp_path / "ward/a.dcm", phantom)
    predict(other, tmp_path / "ward", out, dicom_seg=True)
    assert "no DICOM SEG, which can't be empty" in read_table(out).iloc[0]["warnings"]


def test_the_option_as_typed(lungseg, exported_once, phantom, tmp_path):
    model, out = str(exported_once / "mean-mask"), str(tmp_path / "out")
    Image.fromarray(np.round(phantom * 255).astype(np.uint8)).save(tmp_path / "a.png")
    done = lungseg("predict", model, str(tmp_path / "a.png"), "--dicom-seg", "--out", out)
    assert_refused(done, "no picture is DICOM", "leave --dicom-seg out")
    make_dicom(tmp_path / "ward/IM0001", phantom)
    make_dicom(tmp_path / "ward/ct.dcm", phantom, Modality="CT")
    (tmp_path / "ward/notes.txt").write_text("x")
    done = lungseg("predict", model, str(tmp_path / "ward"), "--dicom-seg", "--out", out)
    assert done.returncode == 1
    assert "ct.dcm is a CT slice by its tags, and no radiograph: remove it" in done.stdout
    assert "note: 1 of 3 files in ward/ isn't read: 1 .txt (notes.txt)" in done.stdout
    assert PATIENT not in done.stdout + done.stderr
    assert (tmp_path / "out/segmentations/IM0001.dcm").exists()
