import numpy as np
import pytest
from PIL import Image

from lungseg.data.datasets.clinical import read_finding
from lungseg.data.loading import find_dataset, load_dataset
from lungseg.system.errors import InputError
from tests.data.datasets.layouts import make_montgomery, make_shenzhen, phantom, save


@pytest.mark.parametrize("folder", ["MontgomerySet", "NLM-MontgomeryCXRSet/MontgomerySet", "."])
def test_the_original_layout_is_read(tmp_path, monkeypatch, folder):
    make_montgomery(tmp_path / folder, 2)
    monkeypatch.setenv("LUNGSEG_DATA", str(tmp_path))
    loaded = load_dataset("montgomery", {})
    first, second = loaded.samples.values()
    assert (first.id, first.patient, first.source, first.label) == (
        "MCUCXR_0001_0", "MCUCXR_0001", "montgomery", "normal",
    )  # fmt: skip
    assert second.label == "tuberculosis"
    image, mask = phantom(0)
    np.testing.assert_array_equal(first.image(), image / np.float32(255))
    np.testing.assert_array_equal(first.mask(), mask > 0)  # both lungs
    assert first.spacing is None
    assert loaded.notes == ()


def test_an_image_needs_both_lungs(tmp_path):
    make_montgomery(tmp_path, 2)
    (tmp_path / "ManualMask/leftMask/MCUCXR_0001_0.png").unlink()
    inventory = find_dataset("montgomery", {}, tmp_path).inventory()
    assert [sample.id for sample in inventory.samples] == ["MCUCXR_0002_1"]
    assert inventory.images_without_mask == ["MCUCXR_0001_0.png"]


def test_pixels_of_the_original_size_have_the_published_spacing(tmp_path):
    make_montgomery(tmp_path, 1)
    Image.new("1", (4892, 4020)).save(tmp_path / "CXR_png/MCUCXR_0001_0.png")
    (sample,) = find_dataset("montgomery", {}, tmp_path).samples()
    assert sample.spacing == (0.0875, 0.0875)


def test_a_reading_that_contradicts_the_name_is_a_note(tmp_path):
    make_montgomery(tmp_path, 3)
    reading = tmp_path / "ClinicalReadings/MCUCXR_0003_0.txt"
    reading.write_text("Patient's Sex: M\nPatient's Age: 061Y\ncavity, right upper lobe.\n")
    assert find_dataset("montgomery", {}, tmp_path).inventory().notes == [
        "1 image is read otherwise than named, such as MCUCXR_0003_0 (normal, read as 'cavity, right upper "
        "lobe'): the label is the name's"
    ]


@pytest.mark.parametrize(
    "text",
    ["Patient's Sex: F\nPatient's Age: 027Y\nnormal\n", "male 45yrs\nnormal", "Female, 28yrs \r\n\r\nnormal.",
     "femal 32yrs\nnormal", "male 16month normal"],
)  # fmt: skip
def test_findings_are_read_in_every_form(tmp_path, text):
    path = tmp_path / "x.txt"
    path.write_text(text)
    assert read_finding(path) == "normal"


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(InputError, match=r"needs LUNGSEG_DATA.*lungseg data fetch montgomery"):
        find_dataset("montgomery", {}, None).samples()
    with pytest.raises(InputError, match="holds no 'CXR_png' and 'ManualMask' of dataset montgomery: run"):
        find_dataset("montgomery", {}, tmp_path).samples()
    make_shenzhen(tmp_path, 1)
    held = r'but 3 folders: use dataset "shenzhen", or run `lungseg data fetch'
    with pytest.raises(InputError, match=held):
        find_dataset("montgomery", {}, tmp_path).samples()
    root = tmp_path / "MontgomerySet"
    for name in ("CXR_png", "ManualMask"):
        (root / name).mkdir(parents=True)
    (root / "CXR_png/a.dcm").touch()
    with pytest.raises(InputError, match=r"CXR_png holds no image of dataset montgomery, but 1 \.dcm file"):
        find_dataset("montgomery", {}, tmp_path).samples()


def test_a_foreign_name(tmp_path):
    make_montgomery(tmp_path, 1)
    for folder in ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask"):
        save(tmp_path / folder / "CHNCXR_0001_0.png", phantom(0)[1])
    with pytest.raises(InputError, match=r"CHNCXR_0001_0\.png isn't named MCUCXR_0001_0"):
        find_dataset("montgomery", {}, tmp_path).samples()
