"""DICOM files are shown as they say, and what is no frontal radiograph is refused by its tags."""

import sys
import unicodedata

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import apply_windowing
from pydicom.uid import MPEG4HP41, CTImageStorage, JPEG2000Lossless, JPEGLosslessSV1

from lungseg.data.files import pseudonym
from lungseg.data.files.dicom import find_spacing, is_dicom, read_header
from lungseg.data.files.grey import apply_window
from lungseg.data.files.images import read_image, read_image_and_colour, read_image_size, read_mask
from lungseg.data.loading import find_dataset
from lungseg.system.errors import InputError
from tests.dicoms import FORMS, NAME, PATIENT, make_dicom, write_values

GREYS = np.arange(4096).reshape(64, 64) // 16 / 255


@pytest.mark.parametrize("form", FORMS)
def test_every_form_shows_the_same_picture(tmp_path, form):
    path = make_dicom(tmp_path / "a.dcm", GREYS, **FORMS[form])
    image = read_image(path)
    assert (image.dtype, image.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_allclose(image, GREYS, atol=1.3e-4)
    assert read_image_size(path) == (64, 64)


def show(tmp_path, values, bits=12, **tags):
    """What is read of a row of values."""
    grid = np.zeros((16, 16), values.dtype)
    grid.flat[: len(values)] = values
    return read_image(write_values(tmp_path / "a.dcm", grid, bits, **tags)).ravel()[: len(values)]


@pytest.mark.parametrize(
    ("values", "tags", "shown"),
    [
        # Of 12 bits 4095 is white, but 65535 of 16, and 4095 again where the file states 16 and has fewer.
        ([0, 2048, 4095], {}, [0, 2048 / 4095, 1]),
        ([0, 2048, 4095], {"bits": 16}, [0, 2048 / 4095, 1]),
        ([0, 2048, 65535], {"bits": 16}, [0, 2048 / 65535, 1]),
        # A window from 1000 to 3000.
        ([0, 1000, 2000, 3000, 4000], {"WindowCenter": 2000, "WindowWidth": 2001},
         [0, 0.00025, 0.50025, 1, 1]),
        ([1000, 1500], {"WindowCenter": 2000, "WindowWidth": 2000, "VOILUTFunction": "LINEAR_EXACT"},
         [0, 0.25]),
        # The first of two windows counts, after the rescaling.
        ([100, 200], {"WindowCenter": [400, 9], "WindowWidth": [400, 9], "VOILUTFunction": "LINEAR_EXACT",
                      "RescaleSlope": 2, "RescaleIntercept": 50}, [0.125, 0.625]),
        # Turned over by the rescaling, by MONOCHROME1, and by both.
        ([0, 1024], {"RescaleSlope": -1, "RescaleIntercept": 4095}, [1, 1 - 1024 / 4095]),
        ([0, 1024], {"photometric": "MONOCHROME1"}, [1, 1 - 1024 / 4095]),
        ([0, 1024], {"photometric": "MONOCHROME1", "RescaleSlope": -1, "RescaleIntercept": 0},
         [0, 1024 / 4095]),
        # What fills the picture up is black, whatever it would be else.
        ([7, 0, 4095], {"photometric": "MONOCHROME1", "PixelPaddingValue": 7}, [0, 1, 0]),
        ([7, 9, 4095], {"PixelPaddingValue": 6, "PixelPaddingRangeLimit": 9}, [0, 0, 1]),
    ],
)  # fmt: skip
def test_values_are_shown_as_the_file_says(tmp_path, values, tags, shown):
    np.testing.assert_allclose(show(tmp_path, np.array(values, "<u2"), **tags), shown, atol=1e-4)


def test_padding_does_not_widen_the_range(tmp_path):
    shown = show(tmp_path, np.array([65535, 2048, 4095], "<u2"), 16, PixelPaddingValue=65535)
    np.testing.assert_allclose(shown, [0, 2048 / 4095, 1], atol=1e-6)
    shown = show(tmp_path, np.array([-32768, 0, 4000], "<i2"), 16, PixelPaddingValue=-32768)
    np.testing.assert_allclose(shown, [0, 0, 4000 / 4095], atol=1e-6)


def test_signed_values_without_a_window(tmp_path):
    # From -1000 to 3000: no range of whole bits is half full, so the picture's own range counts.
    np.testing.assert_allclose(show(tmp_path, np.array([-1000, 0, 3000], "<i2"), 16), [0, 0.25, 1], atol=1e-6)
    # From -2048 to 2047 are 12 bits, whatever the file states.
    np.testing.assert_allclose(show(tmp_path, np.array([-2048, 0, 2047], "<i2"), 16), [0, 2048 / 4095, 1])


def test_look_up_tables(tmp_path):
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "US", [4, 10, 8])  # four entries, from the value 10 on, of 8 bits
    table.add_new("LUTData", "US", [255, 51, 102, 0])
    shown = show(
        tmp_path,
        np.array([0, 10, 11, 12, 13, 99], "<u2"),
        VOILUTSequence=[table],
        RescaleSlope=1,
        RescaleIntercept=0,
    )
    np.testing.assert_allclose(shown, [1, 1, 0.2, 0.4, 0, 0], atol=1e-6)
    shown = show(tmp_path, np.array([0, 10, 11, 12, 13, 99], "<u2"), ModalityLUTSequence=[table])
    np.testing.assert_allclose(shown, [1, 1, 0.2, 0.4, 0, 0], atol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(2000, 900), (40.5, 1), (4000, 1e6)])
def test_windows_are_those_of_pydicom(function, centre, width):
    values = np.arange(4096, dtype="<u2").reshape(64, 64)
    dataset = pydicom.Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.PixelRepresentation = "MONOCHROME2", 12, 0
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = centre, width, function
    expected = apply_windowing(values, dataset) / 4095
    np.testing.assert_allclose(apply_window(values, centre, width, function), expected, atol=1e-6)


def test_colour_becomes_luminance(tmp_path):
    values = np.zeros((16, 16, 3), np.uint8)
    values[..., 0] = 255
    path = write_values(tmp_path / "a.dcm", values, 8, "RGB")
    image, colourful = read_image_and_colour(path)
    assert colourful
    np.testing.assert_allclose(image, 0.299, atol=0.003)


def make_code(meaning):
    code = pydicom.Dataset()
    code.CodeMeaning = meaning
    return [code]


REFUSED = {
    "a CT slice": {"Modality": "CT"},
    "an MR slice": {"Modality": "MR"},
    "of modality IVUS": {"Modality": "IVUS"},
    "holds 3 frames": {"NumberOfFrames": 3},
    "is a lateral view": {"ViewPosition": "LL"},
    "lateral view by": {"ViewCodeSequence": make_code("lateral")},
    "a lateral": {"PatientOrientation": ["P", "F"]},
    "is encrypted and shows no picture": {"PixelData": None, "EncryptedAttributesSequence": make_code("x")},
    "holds no pixels, as if it were truncated": {"PixelData": None},
    "window of width 0": {"WindowCenter": 100, "WindowWidth": 0},
    "shows nothing: correct": {"WindowCenter": 100000, "WindowWidth": 10},
    "window of width inf": {"WindowCenter": 100, "WindowWidth": "inf"},
    "around nan": {"WindowCenter": "nan", "WindowWidth": 100},
    "look-up table that can't be read": {"WindowCenter": [], "VOILUTSequence": make_code("x")},
    "CT slice by its tags": {"Modality": "OT", "SOPClassUID": CTImageStorage},
    "lateral view by its": {"ViewPosition": "LLAT"},
    "12 bits up to bit 15": {"BitsStored": 12, "HighBit": 15, "BitsAllocated": 16, "PixelData": bytes(8192)},
    "lacks the tag BitsStored": {"BitsStored": None},
    "in colours that aren't read": {"PhotometricInterpretation": "PALETTE COLOR"},
    "pixels, too small for an X-ray": {"Rows": 4, "Columns": 4},
    "megapixels that are read": {"Rows": 60000, "Columns": 60000},
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_refused(tmp_path, words, capfd):
    path = make_dicom(tmp_path / "a.dcm", GREYS, **REFUSED[words])
    with pytest.raises(InputError, match=words) as raised:
        read_image(path)
    assert str(path) in str(raised.value)
    said = str(raised.value) + "".join(capfd.readouterr())
    assert PATIENT not in said
    assert "Roe" not in said


@pytest.mark.parametrize(
    "tags",
    [
        {"ViewPosition": "PA"},
        {"ViewPosition": "LLD"},  # of somebody who lies on the left side, from the front
        {"ViewCodeSequence": make_code("antero-posterior, left lateral decubitus")},
        {"PatientOrientation": ["L", "F"]},
        {"Modality": None},
    ],
)
def test_frontal_views_are_read(tmp_path, tags):
    assert read_image(make_dicom(tmp_path / "a.dcm", GREYS, **tags)).shape == (64, 64)


def test_damaged_files(tmp_path):
    path = make_dicom(tmp_path / "a.dcm", GREYS)
    whole = path.read_bytes()
    for length, words in (
        (0, "a.dcm is empty"),
        (100, "no DICOM header"),
        (133, "no pixels"),
        (-9, "truncated"),
    ):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=words):
            read_image(path)
    path.write_bytes(whole[132:])  # without the header
    bare = path.rename(tmp_path / "bare")
    with pytest.raises(InputError, match="bare has no DICOM header"):
        read_image(bare)
    packed = make_dicom(tmp_path / "b.dcm", GREYS, syntax=JPEG2000Lossless)
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(InputError, match="truncated"):
        read_image(packed)
    with pytest.raises(InputError, match=r"c\.dcm doesn't exist"):
        read_image(tmp_path / "c.dcm")


def test_a_codec_that_is_missing_is_named(tmp_path, monkeypatch):
    path = make_dicom(tmp_path / "a.dcm", GREYS, 12, syntax=JPEGLosslessSV1)
    decoder = pydicom.pixels.get_decoder(JPEGLosslessSV1)
    monkeypatch.setattr(type(decoder), "is_available", property(lambda self: False))
    with pytest.raises(InputError, match=r"JPEG Lossless.*pip install pylibjpeg pylibjpeg-libjpeg$"):
        read_image(path)
    path = make_dicom(tmp_path / "a.dcm", GREYS, 12, syntax=JPEG2000Lossless)
    with pytest.raises(InputError, match=r"JPEG 2000.*pip install pylibjpeg pylibjpeg-openjpeg$"):
        read_image(path)


def test_a_video_is_refused(tmp_path):
    path = make_dicom(tmp_path / "a.dcm", GREYS)
    data = path.read_bytes().replace(b"1.2.840.10008.1.2.1\x00", MPEG4HP41[:19].encode() + b"\x00")
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.dcm"):
        read_image(path)


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    path = make_dicom(tmp_path / "a.dcm", GREYS)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"a\.dcm is a DICOM file.*pip install 'lungseg\[dicom\]'"):
        read_image(path)


def test_a_mask_in_dicom_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a DICOM file, and masks are PNG"):
        read_mask(make_dicom(tmp_path / "a.dcm", GREYS))


def test_a_list_of_files_is_no_picture(tmp_path):
    path = make_dicom(tmp_path / "DICOMDIR", GREYS)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    dataset.save_as(path)
    with pytest.raises(InputError, match="list of DICOM files and no picture"):
        read_image(path)


@pytest.mark.parametrize(
    ("tags", "spacing"),
    [
        ({}, None),
        ({"PixelSpacing": [0.2, 0.18]}, (0.2, 0.18)),
        ({"ImagerPixelSpacing": [0.2, 0.2], "EstimatedRadiographicMagnificationFactor": 1.25}, (0.16, 0.16)),
        ({"PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.2, 0.2]}, (0.1, 0.1)),
        ({"NominalScannedPixelSpacing": [0.175, 0.175]}, (0.175, 0.175)),
    ],
)
def test_pixel_spacing(tmp_path, tags, spacing):
    path = make_dicom(tmp_path / "a.dcm", GREYS, **tags)
    found = find_spacing(read_header(path), path)
    assert found == (spacing if spacing is None else pytest.approx(spacing))


@pytest.mark.parametrize("spacing", [[0, 0], [0.2, 200], [-0.2, 0.2]])
def test_a_spacing_that_cannot_be_true(tmp_path, spacing):
    path = make_dicom(tmp_path / "a.dcm", GREYS, PixelSpacing=spacing)
    with pytest.raises(InputError, match=r"a\.dcm has a PixelSpacing of .* give spacing_mm"):
        find_spacing(read_header(path), path)


def test_what_is_dicom(tmp_path):
    for name in ("a.dcm", "IM0001", "1.2.840.99"):
        assert is_dicom(make_dicom(tmp_path / name, GREYS))
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "notes").write_text("no picture")
    assert not is_dicom(tmp_path / "a.png")
    assert not is_dicom(tmp_path / "notes")


def test_a_png_that_is_called_dicom_is_read_as_png(tmp_path):
    Image.new("L", (32, 32), 51).save(tmp_path / "a.png")
    path = (tmp_path / "a.png").rename(tmp_path / "a.dcm")
    assert read_image(path)[0, 0] == np.float32(0.2)


@pytest.mark.parametrize(
    ("tags", "mirrored", "caution"),
    [
        ({"PatientOrientation": ["L", "F"]}, False, ""),
        ({"PatientOrientation": ["R", "F"]}, True, "is mirrored by"),
        ({"PatientOrientation": ["F", "L"]}, False, "is turned by"),
        ({"ViewPosition": "RAO"}, False, "is an oblique view"),
        ({"BodyPartExamined": "Hand"}, False, "is of the hand"),
        ({"BodyPartExamined": "CHEST"}, False, ""),
    ],
)
def test_what_to_look_at(tmp_path, tags, mirrored, caution):
    header = read_header(make_dicom(tmp_path / "a.dcm", GREYS, **tags))
    assert header.mirrored == mirrored
    assert " ".join(header.cautions).startswith(caution)
    assert bool(header.cautions) == bool(caution)


def test_tags_of_a_wrong_kind_end_in_one_sentence(tmp_path):
    """Every tag in turn gets another type of value, and every byte of the tags another value."""
    whole = make_dicom(tmp_path / "a.dcm", GREYS, WindowCenter=1, WindowWidth=5, BodyPartExamined="HAND",
                       PixelPaddingValue=3, ViewCodeSequence=make_code("x")).read_bytes()  # fmt: skip
    end = whole.index(b"\xe0\x7f\x10\x00")
    broken = [whole[:at] + b"FD" + whole[at + 2 :] for at in range(132, end) if whole[at : at + 2].isupper()]
    rng = np.random.default_rng(0)
    for at in rng.integers(132, end, 150).tolist():
        broken.append(whole[:at] + rng.bytes(1) + whole[at + 1 :])
    path = tmp_path / "broken.dcm"
    said = []
    for data in broken:
        path.write_bytes(data)
        try:
            assert np.isfinite(read_image(path)).all()
        except InputError as error:
            said.append(str(error))
    assert len(said) > 20
    assert all("broken.dcm" in text and PATIENT not in text for text in said)


def test_a_patients_name_is_one_in_both_unicode_forms():
    names = {pseudonym.name_patient(unicodedata.normalize(form, " Müller 7")) for form in ("NFC", "NFD")}
    assert len(names) == 1


def test_a_patients_name_needs_the_salt(tmp_path, monkeypatch):
    names = []
    for home in ("one", "one", "two"):
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / home))
        names.append(pseudonym.name_patient(PATIENT))
    assert names[0] == names[1] == pseudonym_of(tmp_path / "one")
    assert names[0] != names[2]
    assert (tmp_path / "one/lungseg/patient-salt").stat().st_mode & 0o77 == 0
    (tmp_path / "three").write_text("a file in the place of a folder")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "three"))
    with pytest.raises(InputError, match="patient-salt can't be stored"):
        pseudonym.name_patient(PATIENT)


def pseudonym_of(home):
    """The name of PATIENT by RFC 2104, without the library for it."""
    from hashlib import sha256

    salt = (home / "lungseg/patient-salt").read_bytes().ljust(64, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in salt) for pad in (0x36, 0x5C))
    return "patient-" + sha256(outer + sha256(inner + PATIENT.encode()).digest()).hexdigest()[:12]


@pytest.fixture
def series(tmp_path):
    """A folder of DICOM images without masks' endings, three of one patient, and their masks."""
    mask = np.zeros((64, 64), np.uint8)
    mask[4:9, 4:9] = 255
    for name, tags in (
        ("a.dcm", {"PixelSpacing": [0.2, 0.2]}),
        ("IM2", {}),
        ("1.2.3", {"PatientID": "other"}),
        ("d.dcm", {"PatientID": None, "BodyPartExamined": "HAND"}),
    ):
        make_dicom(tmp_path / "images" / name, GREYS, **tags)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name.removesuffix('.dcm')}.png")
    (tmp_path / "images/DICOMDIR").write_bytes(b"")
    return tmp_path


def open_series(series, **options):
    return find_dataset("folder", {"images": "images", "masks": "masks", **options}, series)


def test_a_folder_of_dicom_files(series):
    samples = {sample.id: sample for sample in open_series(series).samples()}
    assert set(samples) == {"a", "IM2", "1.2.3", "d"}
    assert samples["a"].patient == samples["IM2"].patient != samples["1.2.3"].patient
    assert samples["d"].patient == "d"  # no PatientID: the image stands for itself
    assert PATIENT not in repr(samples)
    assert (samples["a"].spacing, samples["IM2"].spacing) == ((0.2, 0.2), None)
    assert samples["a"].mask().sum() == 25
    assert samples["a"].caution is None
    assert "of the hand" in samples["d"].caution
    assert open_series(series).inventory().notes == []


def test_keys_go_before_what_files_say(series):
    make_dicom(series / "images/a.dcm", GREYS, PixelSpacing=[0, 0])
    make_dicom(series / "images/d.dcm", GREYS, Modality="CT")
    inventory = open_series(series).inventory()
    assert len(inventory.samples) == 2  # the others are named, and don't hide one another
    assert ["PixelSpacing of 0 x 0 mm" in inventory.conflicts[0], "a CT slice" in inventory.conflicts[1]] == [
        True, True,
    ]  # fmt: skip
    make_dicom(series / "images/d.dcm", GREYS)
    samples = open_series(series, spacing_mm=0.3, patient_pattern="^(.)").samples()
    assert {sample.spacing for sample in samples} == {(0.3, 0.3)}
    assert [sample.patient for sample in samples] == ["1", "I", "a", "d"]


def test_one_patient_in_all_files_is_noted(series):
    for name in ("1.2.3", "d.dcm"):
        make_dicom(series / "images" / name, GREYS)
    (note,) = open_series(series).inventory().notes
    assert note.startswith("all 4 images are of one patient")
    assert NAME not in note
    assert read_header(series / "images/a.dcm").patient_id == PATIENT
    assert PATIENT not in repr(read_header(series / "images/a.dcm"))
